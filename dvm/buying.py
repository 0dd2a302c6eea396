"""Buying: every job of ours, from a caller's wish to a result and settled money.

`stage` judges and commits nothing, so that a tick can commit a job together with everything else it decided; `start`
is called after that commit. What a crash interrupts is found by `resume`, which reads the open rows.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from core.clock import Clock
from core.effect import Admission, EffectClass, Gate, Intent, Repeated
from core.error import Conflict, VendoError
from core.guard import Crew
from core.identifier import PubKey, derived_id
from core.money import MicroUsd, Msat
from core.unit import Among, Condition, Delete, Insert, UnitOfWork, Within, Write
from dvm.ancestry import Ancestry
from dvm.buyer_event import CancelAsked
from dvm.desk import Desk, Finished
from dvm.envelope import Envelope
from dvm.error import (
    JobFailed,
    NobodyServes,
    NoSuchJob,
    NotDeterministic,
    NotFinished,
    NotNow,
    ResultGone,
)
from dvm.exposure import Exposure
from dvm.fraud import FRAUD, Proof, to_dict, told
from dvm.invoice import Checkout
from dvm.job import Funds, Limit, Purchase, State
from dvm.opening import TABLE, Fx, StagedPurchase, Wish, check_wire, limit_of, row_of, share_of
from dvm.parallel import Parallel
from dvm.parcel import Kept
from dvm.policy import BUILTIN, MARKET, Policy
from dvm.prepaying import Prepaying
from dvm.provider.provider import Provider
from dvm.purchase import OpenJob
from dvm.record import decode
from dvm.redundancy import Redundancy, Seat, panel_id, seat_id, seat_ids, seat_key
from dvm.reputation import HORIZON_S, MAX_SELLERS
from dvm.request import ComputeRequest
from dvm.restored import adopt_copy, nothing_was_paid, open_rows
from dvm.settlement import Settlement
from dvm.unpacking import Unpacking
from dvm.view import PurchaseView
from relays.directory import Directory
from relays.error import MalformedEvent, NotForUs
from relays.event import Event
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import GIFT_WRAP
from relays.nip17 import unwrap
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.error import FxUnpriced
from wallet.fx import history
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

NEW = "/compute/new"
LISTED = 200
ANSWERS = "market/answers"
CANCEL = "cancel/"  # keys in table `meta`
_CANCELS = Within(CANCEL, "cancel0")
# In these a job may be whose committer never heard that it was committed; nothing is paid in them.
_EARLY = Among((State.STAGED.value, State.QUOTING.value, State.FALLBACK.value))
_PAST_MONEY = (Funds.CLAIMED.value, Funds.REFUNDED.value)
REMEMBERED = 2_000  # paid jobs that are read at the start; each takes a fifth of a millisecond
LUCK = 1 << 32


class Buying:
    """Buys work, by the policy: the market first, built-in providers after it, or as it says.

    Args:
        unit: the database.
        gate: the node's gate.
        pool: relays; without any the market is left out of every route.
        outbox: sends what was committed.
        wallet: pays. Its mints are the ones that we pay at.
        fx: the rate for budgets in dollars.
        keyring: its node key signs requests.
        clock: time.
        policy: how work is bought.
        providers: the built-in ones, in the order in which they are tried.
        known_sellers: who is known to sell a kind, so that quoting can end early.
        directory: finds where sellers take messages.
        random: `random(n)` gives a whole number from 0 to n - 1.
        settlement: how sellers are paid.
        proven: whether a mint was found to show preimages; at no other is a sealed result bought.
        unpacking: fetches results that are too large for an event; without it none are taken.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        fx: Fx,
        keyring: Keyring,
        clock: Clock,
        policy: Policy,
        providers: Sequence[Provider] = (),
        known_sellers: Callable[[int], frozenset[PubKey]] = lambda kind: frozenset(),
        directory: Directory | None = None,
        *,
        random: Callable[[int], int] = secrets.randbelow,
        settlement: Settlement | None = None,
        proven: Callable[[str], bool] = lambda mint: False,
        unpacking: Unpacking | None = None,
    ) -> None:
        self.policy = policy
        self._unit, self._gate, self._pool, self._wallet, self._fx, self._clock = unit, gate, pool, wallet, fx, clock
        self._providers = {provider.name: provider for provider in providers}
        self._random = random
        self._open: dict[str, OpenJob] = {}
        self._crew = Crew(log, "job_task_failed")
        self._running = self._resumed = False
        self._desk = Desk(
            unit=unit,
            gate=gate,
            pool=pool,
            outbox=outbox,
            wallet=wallet,
            clock=clock,
            key=keyring.node,
            policy=policy,
            providers=self._providers,
            known_sellers=known_sellers,
            spawn=self._crew.spawn,
            closed=self._closed,
            directory=directory,
            own=lambda purchase: self._ancestry.own(purchase),
            hear=self._hear,
            envelope=Envelope(keyring, wallet, clock, settlement or Settlement(), proven),
            unsecured=self._unsecured,
            unpacking=unpacking,
        )
        self.prepaying = self._desk.prepaying = Prepaying(
            unit, gate, pool, outbox, wallet, clock, keyring, self._desk.envelope.settlement,
            self._desk.repute.delivered, lambda seller: self._by_jobs(seller, ""),
        )  # fmt: skip
        self._hears = False
        self._key = keyring.node
        self._parallel = Parallel(self._desk, self.cancel)
        self._ancestry = Ancestry(unit, self._parallel, policy)
        if policy.invoices:
            self._desk.checkout = Checkout(wallet.pay_cost, policy.max_unsecured, wallet.currencies)
            self._desk.exposure = Exposure(unit, wallet, clock, policy.max_unsecured, self._jobs)

    def _jobs(self) -> list[Purchase]:
        return [open_job.foreseen for open_job in self._open.values()]

    def _unsecured(self, seller: str, job_id: str) -> Msat:
        return self._by_jobs(seller, job_id) + self.prepaying.at_risk(seller)

    def _by_jobs(self, seller: str, job_id: str) -> Msat:
        jobs = (job for job in self._jobs() if job.job_id != job_id)
        return Msat(sum(job.unsecured(seller).value for job in jobs))

    def on_finished(self, callback: Finished) -> None:
        """Have it called once when a job has ended (its money may still be under way).

        The writes that it returns are committed together with the end of the job. It may be asked again if that
        commit has to be repeated.
        """
        self._desk.finished.append(callback)

    def on_moved(self, callback: Finished) -> None:
        """Have it called when a job has come to another state before its end. The rest is as in `on_finished`.

        It may be asked more than once for one state of a job: what it returns is to be the same.
        """
        self._desk.moved.append(callback)

    def on_closing(self, callback: Finished) -> None:
        """Have it called when a job has ended and its money is final; the rest is as in `on_finished`."""
        self._desk.closing.append(callback)

    # ---- life

    async def resume(self) -> None:
        """At start: read every job that is not closed. `run` then goes on with each."""
        for row in await self._unit.select("receipt", {"verdict": FRAUD}, limit=MAX_SELLERS):
            self.condemn(row["seller"], told(row["y"]))
        for row in reversed(await self._unit.select(TABLE, self._past, order=("-created_at", "id"), limit=REMEMBERED)):
            self._desk.learn(decode(Purchase, row["body"]))
        for row in await open_rows(self._unit):
            purchase = decode(Purchase, row["body"])
            self._desk.learn(purchase)
            if purchase.job_id not in self._open and not purchase.closed:
                self._open[purchase.job_id] = OpenJob(self._desk, purchase, int(row["version"]))
        if self._desk.unpacking is not None:
            await self._desk.unpacking.sweep(self._jobs())
        self._resumed = True

    @property
    def _past(self) -> dict[str, Condition]:
        """Jobs that were paid for and count towards the standing of their sellers."""
        return {"money": Among(_PAST_MONEY), "created_at": Within(self._clock.now() - HORIZON_S, None)}

    def condemn(self, seller: str, why: str) -> None:
        """Buy from a seller no more: a fraud of it is proven."""
        self._desk.repute.condemn(seller, why)

    async def adopt_copy(self) -> int:
        """Before `run`, if the rows are an old copy's: end the jobs that may have been paid since (`dvm.copy`).

        Whoever asked for one is told, in the same commit. How many there were.
        """
        await self.prepaying.adopt_copy()
        return await adopt_copy(self._desk)

    async def nothing_was_paid(self) -> int:
        """Every mint has shown that no money moved since the copy: the jobs that were ended for it cost nothing."""
        return await nothing_was_paid(self._desk)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Work on open jobs until `stop`; what is then open goes on at the next start."""
        if not self._resumed:
            await self.resume()
        self._running = True
        await self.prepaying.start()
        try:
            for job in list(self._open.values()):
                job.resume()
            await self._parallel.resume()
            ready.set()
            await stop.wait()
        finally:
            self._running = self._hears = False
            self._pool.unsubscribe(ANSWERS)
            await self._crew.end()
            await self.prepaying.end()
            self._open.clear()
            self._resumed = False

    def _hear(self) -> None:
        """Read the gift wraps for our key from now on: the answers to wrapped requests come in them."""
        if not self._hears:
            self._hears = True
            ours = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({self._key.pubkey})})
            self._pool.subscribe(ANSWERS, [ours], self._on_wrap, backdated=True, remember=False)

    async def _on_wrap(self, event: Event, relay: str) -> None:
        try:
            rumor = unwrap(self._key, event)
        except (NotForUs, MalformedEvent):
            return
        asked = rumor.value("e")
        for job in list(self._open.values()):
            if job.job.request_id == asked:
                await job.on_rumor(rumor, relay)

    def _closed(self, job_id: str) -> None:
        self._open.pop(job_id, None)

    # ---- a new job

    async def stage(
        self,
        caller: str,
        key: str,
        request: ComputeRequest,
        path: str = NEW,
        pending: Iterable[Write] = (),
        *,
        at_once: bool = False,
    ) -> StagedPurchase:
        """Judge a job, together with what the caller will commit beside it. Nothing is committed, nothing leaves.

        Args:
            caller: who asks for it.
            key: under which idempotency key.
            request: the job.
            path: where it was asked for.
            pending: what the caller will commit beside it.
            at_once: it will be committed without delay, so its request may be made now.

        Raises:
            InvalidInput: the request cannot go out, or nothing on the route serves it.
            ChainBroken, NotFinished, NoSuchJob: it builds on a job that has no result, or none yet.
            FxUnpriced: the budget is in dollars, and there is no fresh rate (M8).
            Refused: the gate says no: authority, budget, pause, or the key was used for another request.
        """
        request.check(self.policy.max_input_bytes)
        body = request.canonical()
        check_wire(request, len(body))
        if request.redundancy is not None:
            return await self._stage_panel(Wish(caller, path, key), request, request.redundancy, tuple(pending))
        job_id = derived_id("job", derived_id(caller, path, key))
        route = self._route(request.kind)
        if not route:
            raise NobodyServes(f"Nothing in the policy's order serves kind {request.kind}.")
        limit = await self._limit(request) if MARKET in route else Limit(self.policy.default_max.unit, 0, Msat(0))
        wish = Wish(caller, path, key)
        admission = await self._admit(wish, body, job_id, request.kind, limit if MARKET in route else None, pending)
        if isinstance(admission, Repeated):
            await self._revive(admission.subject)
            return StagedPurchase(admission.subject, (), True, lambda: None)
        inputs = await self._ancestry.placed(caller, request)
        purchase = self._purchase(job_id, admission.effect_id, caller, request, limit, route)
        purchase = replace(purchase, inputs=inputs)
        used = () if limit.rate is None else (history(limit.rate),)
        if at_once and self._running:
            job = OpenJob(self._desk, purchase, 0)
            writes = (*admission.writes, *await job.prepare(), *used)
            return StagedPurchase(job_id, writes, False, lambda: self._started(job))
        writes = (*admission.writes, row_of(purchase), *used)
        return StagedPurchase(job_id, writes, False, lambda: self._start(purchase))

    async def _admit(
        self, wish: Wish, body: bytes, job_id: str, kind: int, limit: Limit | None, pending: Iterable[Write]
    ) -> Admission:
        intent = Intent(
            caller=wish.caller,
            path=wish.path,
            key=wish.key,
            body=body,
            effect=EffectClass.EXTERNAL,
            subject=job_id,
            reserve=limit.money if limit is not None else None,
            note={"kind": kind, "ceiling_msat": limit.ceiling.value if limit is not None else 0},
        )
        return await self._gate.stage(intent, pending)

    async def _stage_panel(
        self, wish: Wish, request: ComputeRequest, wanted: Redundancy, pending: tuple[Write, ...]
    ) -> StagedPurchase:
        """The same job from several sellers: as many purchases, each with an equal part of the one reservation."""
        if request.kind not in self.policy.deterministic:
            raise NotDeterministic(f"Results of kind {request.kind} are not said to be always the same.")
        if MARKET not in self._route(request.kind):
            raise NobodyServes("The market is not in the policy's order, so no sellers can be asked.")
        body, panel = request.canonical(), panel_id(derived_id(wish.caller, wish.path, wish.key))
        whole = await self._limit(request)
        part = share_of(whole, wanted.of)
        # All of it is judged at once, against the limit for one job too; what is then begun are its parts.
        admission = await self._admit(wish, body, panel, request.kind, whole, pending)
        if isinstance(admission, Repeated):
            for job_id in seat_ids(panel):
                await self._revive(job_id)
            return StagedPurchase(panel, (), True, lambda: None)
        inputs, jobs, writes = await self._ancestry.placed(wish.caller, request), [], list[Write]()
        sellers = self._parallel.sellers(request.kind, wanted.of, part.ceiling.value)
        for number, seller in enumerate(sellers, 1):
            job_id, own = seat_id(panel, number), replace(request, redundancy=None, to=seller)
            seat = Seat(panel, number, wanted.agree, wanted.of)
            ask = replace(wish, key=seat_key(wish.key, number))
            admission = await self._admit(ask, body, job_id, request.kind, part, (*pending, *writes))
            if isinstance(admission, Repeated):
                raise Conflict("A part of this job was begun before.")
            made = self._purchase(job_id, admission.effect_id, wish.caller, own, part, (MARKET,))
            jobs.append(replace(made, inputs=inputs, seat=seat))
            writes += [*admission.writes, row_of(jobs[-1])]
        writes += [self._parallel.opened(panel)] + ([] if whole.rate is None else [history(whole.rate)])

        def start() -> None:
            for job in jobs:
                self._start(job)

        return StagedPurchase(panel, tuple(writes), False, start)

    async def buy(self, caller: str, key: str, request: ComputeRequest, path: str = NEW) -> StagedPurchase:
        """Stage, commit and start at once; a race for the same key ends with the same job.

        Raises:
            VendoError: as `stage` and as the database's `commit`.
        """
        staged = await self.stage(caller, key, request, path, at_once=True)
        if not staged.repeated:
            try:
                await self._unit.commit(staged.writes)
            except Conflict:
                staged = await self.stage(caller, key, request, path, at_once=True)
                if not staged.repeated:
                    await self._unit.commit(staged.writes)
        staged.start()
        return staged

    def _start(self, purchase: Purchase, version: int = 0) -> None:
        if not self._running or purchase.job_id in self._open:
            return  # not up: the rows are there, and the next `resume` finds them
        job = self._open[purchase.job_id] = OpenJob(self._desk, purchase, version)
        job.resume()

    def _started(self, job: OpenJob) -> None:
        if self._running and job.job.job_id not in self._open:
            self._open[job.job.job_id] = job
            job.started()

    async def adopt(self) -> None:
        """Take up what other processes committed: new jobs, and wishes to end one."""
        if not self._running:
            return
        await self.prepaying.adopt()
        known = set(self._open)  # what ends while the rows are read is not taken up again
        for row in await self._unit.select(TABLE, {"state": _EARLY}, columns=("id",)):
            if row["id"] not in known:
                await self._revive(row["id"])
        for row in await self._unit.select("meta", {"key": _CANCELS}):
            job = self._open.get(row["key"].removeprefix(CANCEL))
            if job is not None and not job.view.ended:
                await job.tell(CancelAsked(self._clock.millis()))
            await self._unit.commit([Delete("meta", {"key": row["key"]})])

    async def _revive(self, job_id: str) -> None:
        """Begin a job that was committed and never started: whoever committed it did not hear that it was."""
        if not self._running or job_id in self._open:
            return
        for row in await self._unit.select(TABLE, {"id": job_id, "state": _EARLY}):
            self._take_up(row)

    def _take_up(self, row: Mapping[str, Any]) -> None:
        self._desk.outbox.kick()  # its request may be there, and whoever sends it was not told
        self._start(decode(Purchase, row["body"]), int(row["version"]))

    def _route(self, kind: int) -> tuple[str, ...]:
        found: list[str] = []
        for word in self.policy.order:
            if word == MARKET:
                found += [MARKET] if self._pool.urls else []
            elif word == BUILTIN:
                found += [name for name, provider in self._providers.items() if kind in provider.kinds]
            elif word in self._providers and kind in self._providers[word].kinds:
                found.append(word)
        return tuple(dict.fromkeys(found))

    async def _limit(self, request: ComputeRequest) -> Limit:
        """The reservation in the budget's unit, and the rate that this job keeps (M8)."""
        unit = self.policy.default_max.unit
        wish = request.maximum if request.maximum is not None else self.policy.default_max
        try:
            rate = await self._fx.rate()
        except FxUnpriced:
            if unit == MicroUsd.unit or isinstance(wish, MicroUsd):
                raise
            return Limit(unit, wish.value, Msat(wish.value))
        return limit_of(unit, wish, rate)

    def _bid(self, ceiling: Msat) -> Msat:
        """The highest price, net to a seller and in whole sat, whose cost with all fees stays within the ceiling."""
        best = 0
        for mint in self._wallet.mints:
            try:
                over = self._wallet.lock_cost(mint, ceiling).value - ceiling.value
            except VendoError:
                continue
            best = max(best, ceiling.value - max(0, over))
        return Msat.of_sat(Msat(best).sat_down())

    def _purchase(
        self, job_id: str, effect_id: str, caller: str, request: ComputeRequest, limit: Limit, route: tuple[str, ...]
    ) -> Purchase:
        policy = self.policy
        return Purchase(
            job_id=job_id,
            effect_id=effect_id,
            caller=caller,
            kind=request.kind,
            inputs=request.inputs,
            params=request.params,
            output=request.output,
            limit=limit,
            bid=self._bid(limit.ceiling),
            mints=self._wallet.mints,
            route=route,
            created_at=self._clock.now(),
            window_ms=policy.quote_window_ms,
            patience_ms=policy.patience_ms,
            timeout_s=request.timeout_s or policy.timeout_s,
            lock_margin_s=policy.lock_margin_s,
            prefer=request.prefer or policy.prefer,
            to=request.to,
            private=request.private,
            luck=self._random(LUCK) if policy.spread else None,
        )

    # ---- what became of it

    async def view(self, job_id: str) -> PurchaseView:
        """A job as it stands.

        Raises:
            NoSuchJob: there is none with this id.
        """
        job = self._open.get(job_id)
        if job is not None:
            return job.view
        rows = await self._unit.select(TABLE, {"id": job_id})
        if rows:
            return PurchaseView(decode(Purchase, rows[0]["body"]), int(rows[0]["version"]))
        whole = await self._parallel.view(job_id)
        if whole is None:
            raise NoSuchJob(f"There is no job {job_id}.")
        return whole

    async def result(self, job_id: str) -> str:
        """Its result.

        Raises:
            NoSuchJob: there is none with this id.
            NotFinished: not yet.
            JobFailed: it ended without one.
            ResultGone: it was large, and is not kept any more.
        """
        view = await self.view(job_id)
        if view.result is not None:
            return view.result
        if view.kept is not None:
            return b"".join([piece async for piece in self.pieces(view.kept)]).decode()
        if view.ended:
            raise JobFailed(view.purchase.error or f"The job was {view.state}.")
        raise NotFinished(f"The job is {view.state}.")

    async def proof(self, job_id: str) -> dict[str, Any]:
        """What shows to anybody that a job's seller has deceived us; it discloses our key for this one job.

        Raises:
            NoSuchJob: there is none with this id.
            NoFraud: it did not, or it cannot be shown.
        """
        return to_dict(self.shown_fraud((await self.view(job_id)).purchase))

    def shown_fraud(self, job: Purchase) -> Proof:
        """The same, of a job at hand."""
        return self._desk.envelope.proof(job)

    async def pieces(self, kept: Kept) -> AsyncIterator[bytes]:
        """A large result in pieces, as it lies in its file.

        Raises:
            ResultGone: it is not kept any more.
        """
        if self._desk.unpacking is None:
            raise ResultGone
        async for piece in self._desk.unpacking.pieces(kept):
            yield piece

    async def list_jobs(self) -> list[PurchaseView]:
        """The latest jobs, newest first."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=LISTED)
        views = [PurchaseView(decode(Purchase, row["body"]), int(row["version"])) for row in rows]
        return await self._parallel.grouped(views)

    async def cancel(self, job_id: str) -> PurchaseView:
        """End a job early. Money that is out is still followed to its end.

        Raises:
            NoSuchJob: there is none with this id.
            NotNow: it has already ended.
        """
        view = await self.view(job_id)
        if view.attempts and not view.ended:
            for one in view.attempts:
                with suppress(NotNow):  # it has ended by itself
                    await self.cancel(one.job_id)
            return await self.view(job_id)
        job = self._open.get(job_id)
        if view.ended or (job is None and self._running):
            raise NotNow("The job has already ended.")
        if job is None:  # another process drives it, and finds this
            await self._unit.commit([Insert("meta", {"key": CANCEL + job_id, "value": ""}, or_ignore=True)])
            return view
        await job.tell(CancelAsked(self._clock.millis()))
        return job.view
