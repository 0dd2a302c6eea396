"""Buying: every job of ours, from a caller's wish to a result and settled money.

`stage` judges and commits nothing, so that a tick can commit a job together with everything else it decided; `start`
is called after that commit. What a crash interrupts is found by `resume`, which reads the open rows.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import Conflict, VendoError
from core.guard import Crew
from core.identifier import EffectId, PubKey, derived_id
from core.money import MicroUsd, Money, Msat, Rate
from core.unit import Among, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from dvm.buyer_event import CancelAsked
from dvm.copy import set_aside
from dvm.error import InputTooLarge, JobFailed, NobodyServes, NoSuchJob, NotFinished, NotNow
from dvm.job import ENDED, Funds, Limit, Purchase, State
from dvm.policy import BUILTIN, MARKET, Policy
from dvm.provider.provider import Provider
from dvm.purchase import TABLE, Desk, Finished, OpenJob
from dvm.record import decode, encode
from dvm.request import ComputeRequest
from dvm.view import PurchaseView
from relays.directory import Directory
from relays.key import Keyring
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.error import FxUnpriced
from wallet.fx import history
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

NEW = "/compute/new"
LISTED = 200
CANCEL = "cancel/"  # keys in table `meta`
_CANCELS = Within(CANCEL, "cancel0")
MAX_WIRE_BYTES = 60_000  # of the request event's inputs and params, as JSON
_OPEN_STATES = tuple(state.value for state in State if state not in ENDED)
_OPEN_MONEY = (Funds.LOCKING.value, Funds.LOCKED.value, Funds.REFUNDING.value)


class Fx(Protocol):
    """Where the price of a bitcoin comes from."""

    async def rate(self) -> Rate:
        """A fresh rate.

        Raises:
            FxUnpriced: there is none.
        """


@dataclass(frozen=True, slots=True)
class StagedPurchase:
    """A job the gate allows. Commit `writes`, then call `start`. A repeated one has no writes and is under way."""

    job_id: str
    writes: tuple[Write, ...]
    repeated: bool
    start: Callable[[], None]


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
    ) -> None:
        self.policy = policy
        self._unit, self._gate, self._pool, self._wallet, self._fx, self._clock = unit, gate, pool, wallet, fx, clock
        self._providers = {provider.name: provider for provider in providers}
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
        )

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

    # ---- life

    async def resume(self) -> None:
        """At start: read every job that is not closed. `run` then goes on with each."""
        for row in await self._open_rows():
            purchase = decode(Purchase, row["body"])
            if purchase.job_id not in self._open and not purchase.closed:
                self._open[purchase.job_id] = OpenJob(self._desk, purchase, int(row["version"]))
        self._resumed = True

    async def _open_rows(self) -> list[Row]:
        """Jobs that have not ended, and those whose money is out."""
        rows = await self._unit.select(TABLE, {"state": Among(_OPEN_STATES)})
        ended = {"state": Among(tuple(state.value for state in ENDED)), "money": Among(_OPEN_MONEY)}
        return [*rows, *await self._unit.select(TABLE, ended)]

    async def adopt_copy(self) -> int:
        """Before `run`, if the rows are an old copy's: end the jobs that may have been paid since (`dvm.copy`).

        Whoever asked for one is told, in the same commit. How many there were.
        """
        count = 0
        for row in await self._open_rows():
            purchase = decode(Purchase, row["body"])
            paid = purchase.payment
            begun = paid is not None and await self._wallet.find(paid.op_id) is not None
            after = set_aside(purchase, self._clock.millis(), begun=begun)
            if after is not None:
                await self._unit.commit(await self._set_aside(purchase, after, int(row["version"])))
                count += 1
        return count

    async def _set_aside(self, before: Purchase, after: Purchase, version: int) -> list[Write]:
        change: dict[str, Value] = {
            "state": after.state.value,
            "money": after.money.value,
            "body": encode(after),
            "updated_at": self._clock.now(),
            "version": version + 1,
        }
        writes: list[Write] = [Update(TABLE, {"id": after.job_id, "version": version}, change)]
        if before.state not in ENDED:
            for callback in self._desk.finished:
                writes += await callback(PurchaseView(after, version + 1))
        if after.closed:
            outcome = Outcome(OutcomeState.UNKNOWN, detail={"job": after.job_id, "reason": "restored"})
            writes += await self._gate.settle(EffectId(after.effect_id), outcome)
        return writes

    async def nothing_was_paid(self) -> int:
        """Every mint has shown that no money moved since the copy: the jobs that were ended for it cost nothing."""
        parked = await self._unit.select("effect", {"state": OutcomeState.UNKNOWN.value})
        count = 0
        for effect in parked:
            for row in await self._unit.select(TABLE, {"effect_id": effect["id"]}):
                purchase = decode(Purchase, row["body"])
                if purchase.copied and purchase.closed and purchase.money is Funds.NONE:
                    cost = purchase.limit.cost(Msat(0))
                    outcome = Outcome(OutcomeState.FAIL, cost, {"job": purchase.job_id, "reason": "never paid"})
                    await self._unit.commit(await self._gate.settle(EffectId(effect["id"]), outcome))
                    count += 1
        return count

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Work on open jobs until `stop`; what is then open goes on at the next start."""
        if not self._resumed:
            await self.resume()
        self._running = True
        try:
            for job in list(self._open.values()):
                job.resume()
            ready.set()
            await stop.wait()
        finally:
            self._running = False
            await self._crew.end()
            self._open.clear()
            self._resumed = False

    def _closed(self, job_id: str) -> None:
        self._open.pop(job_id, None)

    # ---- a new job

    async def stage(
        self, caller: str, key: str, request: ComputeRequest, path: str = NEW, pending: Iterable[Write] = ()
    ) -> StagedPurchase:
        """Judge a job, together with what the caller will commit beside it. Nothing is committed, nothing leaves.

        Raises:
            InvalidInput: the request cannot go out, or nothing on the route serves it.
            FxUnpriced: the budget is in dollars, and there is no fresh rate (M8).
            Refused: the gate says no: authority, budget, pause, or the key was used for another request.
        """
        request.check(self.policy.max_input_bytes)
        body = request.canonical()
        if len(body) > MAX_WIRE_BYTES:
            raise InputTooLarge(f"The request has {len(body)} bytes on the wire; at most {MAX_WIRE_BYTES} fit.")
        effect_id = derived_id(caller, path, key)
        job_id = derived_id("job", effect_id)
        route = self._route(request.kind)
        if not route:
            raise NobodyServes(f"Nothing in the policy's order serves kind {request.kind}.")
        limit = await self._limit(request) if MARKET in route else Limit(self.policy.default_max.unit, 0, Msat(0))
        intent = Intent(
            caller=caller,
            path=path,
            key=key,
            body=body,
            effect=EffectClass.EXTERNAL,
            subject=job_id,
            reserve=limit.money if MARKET in route else None,
            note={"kind": request.kind, "ceiling_msat": limit.ceiling.value},
        )
        admission = await self._gate.stage(intent, pending)
        if isinstance(admission, Repeated):
            await self._revive(admission.subject)
            return StagedPurchase(admission.subject, (), True, lambda: None)
        purchase = self._purchase(job_id, admission.effect_id, caller, request, limit, route)
        used = () if limit.rate is None else (history(limit.rate),)
        writes = (*admission.writes, _insert(purchase), *used)
        return StagedPurchase(job_id, writes, False, lambda: self._start(purchase))

    async def buy(self, caller: str, key: str, request: ComputeRequest, path: str = NEW) -> StagedPurchase:
        """Stage, commit and start at once; a race for the same key ends with the same job.

        Raises:
            VendoError: as `stage` and as the database's `commit`.
        """
        staged = await self.stage(caller, key, request, path)
        if not staged.repeated:
            try:
                await self._unit.commit(staged.writes)
            except Conflict:
                staged = await self.stage(caller, key, request, path)
                if not staged.repeated:
                    await self._unit.commit(staged.writes)
        staged.start()
        return staged

    def _start(self, purchase: Purchase) -> None:
        if not self._running or purchase.job_id in self._open:
            return  # not up: the rows are there, and the next `resume` finds them
        job = self._open[purchase.job_id] = OpenJob(self._desk, purchase, 0)
        job.resume()

    async def adopt(self) -> None:
        """Take up what other processes committed: new jobs, and wishes to end one."""
        if not self._running:
            return
        for row in await self._unit.select(TABLE, {"state": State.STAGED.value}):
            if row["id"] not in self._open:
                self._start(decode(Purchase, row["body"]))
        for row in await self._unit.select("meta", {"key": _CANCELS}):
            job = self._open.get(row["key"].removeprefix(CANCEL))
            if job is not None and not job.view.ended:
                await job.tell(CancelAsked(self._clock.millis()))
            await self._unit.commit([Delete("meta", {"key": row["key"]})])

    async def _revive(self, job_id: str) -> None:
        """Begin a job that was committed and never started: whoever committed it did not hear that it was."""
        if not self._running or job_id in self._open:
            return
        for row in await self._unit.select(TABLE, {"id": job_id, "state": State.STAGED.value}):
            self._start(decode(Purchase, row["body"]))

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
        return _limit(unit, wish, rate)

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
        if not rows:
            raise NoSuchJob(f"There is no job {job_id}.")
        return PurchaseView(decode(Purchase, rows[0]["body"]), int(rows[0]["version"]))

    async def result(self, job_id: str) -> str:
        """Its result.

        Raises:
            NoSuchJob: there is none with this id.
            NotFinished: not yet.
            JobFailed: it ended without one.
        """
        view = await self.view(job_id)
        if view.result is not None:
            return view.result
        if view.ended:
            raise JobFailed(view.purchase.error or f"The job was {view.state}.")
        raise NotFinished(f"The job is {view.state}.")

    async def list_jobs(self) -> list[PurchaseView]:
        """The latest jobs, newest first."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=LISTED)
        return [PurchaseView(decode(Purchase, row["body"]), int(row["version"])) for row in rows]

    async def cancel(self, job_id: str) -> PurchaseView:
        """End a job early. Money that is out is still followed to its end.

        Raises:
            NoSuchJob: there is none with this id.
            NotNow: it has already ended.
        """
        view = await self.view(job_id)
        job = self._open.get(job_id)
        if view.ended or (job is None and self._running):
            raise NotNow("The job has already ended.")
        if job is None:  # another process drives it, and finds this
            await self._unit.commit([Insert("meta", {"key": CANCEL + job_id, "value": ""}, or_ignore=True)])
            return view
        await job.tell(CancelAsked(self._clock.millis()))
        return job.view


def _limit(unit: str, wish: Money, rate: Rate) -> Limit:
    """A wish in either unit as a reservation in the budget's unit: the cost up, the msat that it covers down."""
    if unit == Msat.unit:
        msat = wish if isinstance(wish, Msat) else rate.cover(wish)
        return Limit(unit, msat.value, msat, rate)
    if isinstance(wish, MicroUsd):
        return Limit(unit, wish.value, rate.cover(wish), rate)
    return Limit(unit, rate.cost(wish).value, wish, rate)


def _insert(purchase: Purchase) -> Insert:
    return Insert(
        TABLE,
        {
            "id": purchase.job_id,
            "effect_id": purchase.effect_id,
            "request_id": purchase.request_id,
            "caller": purchase.caller,
            "kind": purchase.kind,
            "state": purchase.state.value,
            "money": purchase.money.value,
            "body": encode(purchase),
            "created_at": purchase.created_at,
            "updated_at": purchase.created_at,
            "version": 0,
        },
    )
