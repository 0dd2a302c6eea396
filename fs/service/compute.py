"""/compute: buy work. A record written to `new` becomes a job; what becomes of it is read under `jobs/<id>`.

Authority, budget and the job's maximum are the gate's and the buyer's business. Here a request is checked for form,
and a key that is repeated within one tick is seen before anything is committed.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import RootModel

from core.error import Conflict, InvalidInput, KeyReused, NotFound, Unavailable
from core.identifier import PubKey, derived_id, is_hex64
from core.unit import Write
from dvm.request import MAX_INPUT_BYTES, ComputeRequest
from fs.feed import Feed
from fs.protocol import Record
from fs.service.model.job import CANCEL, Fraud, Job, Payments, Policy, Provider, Quote, Standing, Started, Usage, Wish
from fs.session import Batch, Role, Session
from fs.tree import File, Folder, Node, Tree, json_bytes, json_object, json_reader, text_bytes
from relays.key import parse_pubkey

NEW = "/compute/new"
MAX_REQUEST = 8 * MAX_INPUT_BYTES  # JSON may write one byte as six
LISTED = 200
_LOOK_AGAIN_S = 0.25
_ENDED = ("delivered", "failed", "cancelled")


class NoComputeProvider(Unavailable):
    """This node has nobody to buy work from."""

    code = "compute.no_provider"
    status = 409  # trying again does not help
    remedy = "Configure a relay and a mint, or put a built-in provider in [policy] order."


class StagedJob(Protocol):
    """A job the gate allows; it begins once `writes` are committed and `start` was called."""

    @property
    def job_id(self) -> str:
        """Its id."""

    @property
    def writes(self) -> Sequence[Write]:
        """What is committed with whatever else the caller commits."""

    @property
    def repeated(self) -> bool:
        """Whether the key was used before, for the same request: then there is nothing to commit."""

    @property
    def start(self) -> Callable[[], None]:
        """Called after the commit."""


class JobView(Protocol):
    """What is known of a job."""

    @property
    def job_id(self) -> str:
        """Its id."""

    @property
    def caller(self) -> str:
        """Who asked for it, as the gate names it."""

    @property
    def state(self) -> str:
        """Where it is: staged, quoting, paying, working, fallback; delivered, failed or cancelled at the end."""

    @property
    def version(self) -> int:
        """Rises with every change."""

    @property
    def kept(self) -> Any:
        """Its result, if that is so large that it lies in a file; else None."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""


class Jobs(Protocol):
    """Buys work: `dvm.buying.Buying`."""

    async def stage(
        self,
        caller: str,
        key: str,
        request: ComputeRequest,
        path: str = NEW,
        pending: Iterable[Write] = (),
        *,
        at_once: bool = False,
    ) -> StagedJob:
        """Judge a request, together with writes that will be committed beside it; nothing is committed.

        `at_once`: the commit follows without delay.

        Raises:
            Refused: the gate said no.
        """

    async def view(self, job_id: str) -> JobView:
        """What is known of a job.

        Raises:
            NotFound: there is none with this id.
        """

    async def result(self, job_id: str) -> str:
        """Its result.

        Raises:
            VendoError: it has none, or not yet.
        """

    async def proof(self, job_id: str) -> Mapping[str, Any]:
        """What shows to anybody that its seller's key does not open the sealed result that it signed.

        Raises:
            VendoError: no fraud can be shown.
        """

    def pieces(self, kept: Any) -> AsyncIterator[bytes]:
        """A large result in pieces; `kept` is that of its view.

        Raises:
            VendoError: it is not kept any more.
        """

    async def list_jobs(self) -> Sequence[JobView]:
        """The latest jobs, newest first."""

    async def cancel(self, job_id: str) -> object:
        """Ask for it to end early; money that has moved is still followed to its end."""


@dataclass(frozen=True, slots=True)
class Market:
    """What `/compute` shows beside the jobs: each is looked up when it is read.

    `standing` is of a seller; with `True` relays and mints may be asked.
    """

    policy: Callable[[], Mapping[str, Any]]
    providers: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
    usage: Callable[[], Awaitable[Mapping[str, Any]]]
    standing: Callable[[PubKey, bool], Awaitable[Mapping[str, Any]]]


class _Compute:
    def __init__(self, jobs: Jobs, feed: Feed) -> None:
        self._jobs, self._feed = jobs, feed

    async def new(self, body: bytes, session: Session) -> bytes:
        request = ComputeRequest.parse(json_object(body))
        key = session.effect_key()
        wish = hashlib.sha256(request.canonical()).hexdigest()
        mark = "job-key:" + derived_id(session.caller, NEW, key)
        if session.batch is not None and mark in session.batch.marks:
            job_id, _, known = session.batch.marks[mark].partition(":")
            if known != wish:
                raise KeyReused
            return _answer(job_id, "staged")
        staged = await self._apply(request, key, session)
        if session.batch is not None and not staged.repeated:
            _mark(session.batch, mark, staged.job_id, wish)
            return _answer(staged.job_id, "staged")
        return _answer(staged.job_id, "repeated" if staged.repeated else "pending")

    async def _apply(self, request: ComputeRequest, key: str, session: Session) -> StagedJob:
        """Stage and apply. Who loses a race for the same key is judged once more, and finds the winner's job."""
        at_once = session.batch is None
        staged = await self._jobs.stage(session.caller, key, request, NEW, session.gathered, at_once=at_once)
        if staged.repeated:
            return staged
        try:
            await session.apply(staged.writes, staged.start)
        except Conflict:
            staged = await self._jobs.stage(session.caller, key, request, NEW, at_once=at_once)
            if not staged.repeated:
                await session.apply(staged.writes, staged.start)
        return staged

    async def _seen(self, job_id: str, session: Session) -> JobView:
        """A job that the caller may see: the operator all, an agent its own.

        Raises:
            NotFound: there is none, or it is someone else's.
        """
        view = await self._jobs.view(job_id)
        if session.role < Role.OPERATOR and view.caller != session.caller:
            raise NotFound("There is no job with this id.")
        return view

    async def names(self, session: Session) -> Sequence[str]:
        views = await self._jobs.list_jobs()
        own = [view.job_id for view in views if session.role >= Role.OPERATOR or view.caller == session.caller]
        staged = [name[4:] for name in (session.batch.marks if session.batch else ()) if name.startswith("job:")]
        return [*staged, *own[:LISTED]]

    async def everything(self, session: Session) -> bytes:
        views = await self._jobs.list_jobs()
        own = [view for view in views if session.role >= Role.OPERATOR or view.caller == session.caller]
        return json_bytes([view.to_dict() for view in own[:LISTED]])

    async def find(self, job_id: str, session: Session) -> Node | None:
        if session.batch is not None and "job:" + job_id in session.batch.marks:
            return _staged_folder()
        try:
            view = await self._seen(job_id, session)
        except NotFound:
            return None
        return self.folder(job_id, view.kept)

    def folder(self, job_id: str, kept: Any = None) -> Folder:
        """The files of one job, which is there or not; `kept` is its result if that lies in a file."""

        async def status(session: Session) -> bytes:
            return json_bytes((await self._seen(job_id, session)).to_dict())

        def part(*names: str) -> Callable[[Session], Awaitable[bytes]]:
            async def read(session: Session) -> bytes:
                whole = (await self._seen(job_id, session)).to_dict()
                return json_bytes(whole.get(names[0]) if len(names) == 1 else {name: whole.get(name) for name in names})

            return read

        about = "its result; an error until there is one"

        async def result(session: Session) -> bytes:
            return text_bytes(await self._jobs.result(job_id))

        async def proof(session: Session) -> bytes:
            await self._seen(job_id, session)
            return json_bytes(await self._jobs.proof(job_id))

        async def pieces(session: Session) -> AsyncIterator[bytes]:
            async for piece in self._jobs.pieces(kept):
                yield piece

        async def ctl(body: bytes, session: Session) -> bytes:
            if body.strip() != b"cancel":
                raise InvalidInput("A job's ctl knows one word: cancel.")
            await self._seen(job_id, session)
            await self._jobs.cancel(job_id)
            return await status(session)

        def stream(session: Session, after: int | None) -> AsyncIterator[Record]:
            return self._follow(job_id, session, after)

        return Folder(
            "One job.",
            {
                "status": File("all that is known of it, as JSON", read=status, gives=Job),
                "result": File(about, read=result) if kept is None else File(about, pieces=pieces),
                "quotes": File(
                    "who offered what, and why each was taken or not", read=part("quotes"), gives=RootModel[list[Quote]]
                ),
                "payments": File(
                    "what was reserved, paid, spent on fees and released", read=part(*PAYMENT_FIELDS), gives=Payments
                ),
                "proof": File("what proves its seller's fraud; an error where there is none", read=proof, gives=Fraud),
                "stream": File("its states as they change; ends with the job", watch=stream, stream=True, gives=Job),
                "ctl": File("write `cancel` to end it early", call=ctl, takes=CANCEL, gives=Job),
            },
        )

    async def _follow(self, job_id: str, session: Session, after: int | None) -> AsyncIterator[Record]:
        """A record for each change that is seen; the cursor is the job's own version. Ends when the job has."""
        last = -1 if after is None else after
        while True:
            count = self._feed.count("jobs")
            view = await self._seen(job_id, session)
            whole = view.to_dict()
            version = view.version
            if version > last:
                last = version
                yield Record(version, orjson.dumps(whole), "job")
            if view.state in _ENDED:
                return
            await self._feed.wait("jobs", count, _LOOK_AGAIN_S)


PAYMENT_FIELDS = ("money", "closed", "seller", "mint", "locktime", "ys", "reserved", "paid", "fees", "cost", "released")


def _mark(batch: Batch, mark: str, job_id: str, wish: str) -> None:
    batch.marks[mark] = f"{job_id}:{wish}"
    batch.marks["job:" + job_id] = "staged"


def _staged_folder() -> Folder:
    """A job of this very tick: allowed, and nothing has left the process."""

    async def status(session: Session) -> bytes:
        return json_bytes({"status": "staged"})

    return Folder("One job, staged: it begins when this tick is committed.", {"status": File("staged", read=status)})


def _answer(job_id: str, status: str) -> bytes:
    base = f"/compute/jobs/{job_id}"
    return json_bytes(
        {
            "job_id": job_id,
            "status": status,
            "status_path": f"{base}/status",
            "result_path": f"{base}/result",
            "stream_path": f"{base}/stream",
        }
    )


def _sellers(market: Market) -> Folder:
    """What others' receipts say of a seller, by its key."""

    def file(pubkey: PubKey) -> File:
        async def read(session: Session) -> bytes:
            # looking asks relays and mints, which is the operator's to begin; agents see what is known
            return json_bytes(await market.standing(pubkey, session.role >= Role.OPERATOR))

        return File("its standing, with the reasons and the receipts that count", read=read, gives=Standing)

    async def names(session: Session) -> Sequence[str]:
        return sorted({str(one["id"]) for one in await market.providers() if is_hex64(str(one["id"]))})

    async def find(name: str, session: Session) -> Node | None:
        try:
            return file(parse_pubkey(name))
        except InvalidInput:
            return None

    return Folder(
        "What is thought of sellers, from receipts that were checked at the mints.",
        {},
        names,
        find,
        "<npub>",
        "the standing of one seller; any npub or key in hex can be asked for",
        sample=lambda: file(PubKey("0" * 64)),
    )


def compute_service(jobs: Jobs | None, market: Market, feed: Feed) -> Tree:
    """The service at `/compute`; without `jobs` every request answers `compute.no_provider`."""

    async def refuse(body: bytes, session: Session) -> bytes:
        raise NoComputeProvider

    async def policy() -> Mapping[str, Any]:
        return market.policy()

    compute = _Compute(jobs, feed) if jobs is not None else None
    wish = "{kind, input, params?, max_usd? | max_msat?, timeout_s?, output?, prefer?, to?, private?, redundancy?}"
    new = f"buy work: {wish} as JSON; answers the job's id"
    files: dict[str, Node] = {
        "new": File(new, call=compute.new if compute else refuse, max_bytes=MAX_REQUEST, takes=Wish, gives=Started),
        "policy": File("how work is bought", read=json_reader(policy), gives=Policy),
        "usage": File("what was spent today, of what may be", read=json_reader(market.usage), gives=Usage),
        "providers": File(
            "who can do work: known sellers and what is built in",
            read=json_reader(market.providers),
            gives=RootModel[list[Provider]],
        ),
    }
    files["sellers"] = _sellers(market)
    if compute is not None:
        files["jobs"] = Folder(
            "Jobs, newest first.",
            {},
            compute.names,
            compute.find,
            "<job id>/",
            "one job: status, result, quotes, payments, proof, stream, ctl",
            found_are_folders=True,
            read=compute.everything,
            gives=RootModel[list[Job]],
            sample=lambda: compute.folder("job"),
        )
    return Tree(Folder("Buy work on the market. Write a request to `new`, then read under `jobs/<id>`.", files))
