"""A buyer and a seller that can be made to fail at any step of a settlement, and the mints that they use."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from cli.demo.checker import restored_balance
from cli.demo.wire import Wire, watching
from core.error import VendoError
from relays.event import Event
from relays.kind import HANDLER
from tests.dying_part import PROGRAM, brief, disarm
from tests.integration.settlement.fact_part import Facts, Witness
from tests.integration.settlement.judge_part import GOOD, Case, judge
from tests.integration.settlement.method_part import DEPOSIT_SAT, NODES, Job, Place, changes, sells
from tests.integration.settlement.mint_part import Mint
from tests.market_part import Market, Spec, market, until
from tests.toy_lightning_part import ToyLightning

FUNDS_SAT = 3_000
_WAIT_S = 120.0
_AWAY = (aiohttp.ClientError, TimeoutError, KeyError)  # a node that is dead, or not there, answers nothing
_CLOSABLE = frozenset({"asked", "sent", "open"})
_OVER = frozenset({"failed", "closed", "refunded", "lost"})


@dataclass(slots=True)
class Errand:
    """One trial, as its owner sees it: the job is asked for, and with it whatever its payment needs, until it ends."""

    job: Job
    before: dict[str, int]
    job_id: str = ""
    deposit: str = ""
    task: asyncio.Task[dict[str, Any]] | None = None  # gives the buyer's view of the job

    async def ended(self) -> dict[str, Any]:
        """The buyer's view of the job when it is closed; empty if it was never bought."""
        assert self.task is not None
        return await asyncio.wait_for(asyncio.shield(self.task), 3 * _WAIT_S)

    def missed(self) -> bool:
        """Whether it is over so that some steps are never taken. Of a job that is delivered each is, in the end."""
        assert self.task is not None
        if not self.task.done():
            return False
        shown = self.task.result()
        return bool(self.deposit) or not shown or shown["state"] != "delivered"


@dataclass(slots=True)
class Town:
    """The market. Between two trials both nodes run and no money of theirs is on its way."""

    market: Market
    mints: Mapping[str, Mint]  # of each side; where they share one it stands twice
    network: ToyLightning
    wire: Wire  # requests and answers expire; this has seen them all
    seen: dict[str, float] = field(default_factory=dict)
    spoilt: bool = False  # after a job that failed a buyer thinks less of its seller, and may not buy there again

    async def ready(self, *but: str) -> None:
        """Both nodes and the mints run, and nothing is armed, whatever the trial before left; all but these nodes."""
        await asyncio.gather(*(mint.up() for mint in {id(one): one for one in self.mints.values()}.values()))
        for name in NODES:
            if name in but:
                continue
            disarm(self.market.homes[name])
            child = self.market.nodes.get(name)
            if child is not None and child.process.returncode is not None:
                self.market.children.remove(self.market.nodes.pop(name))
            if name not in self.market.nodes:
                await self.market.up(name)

    async def held(self) -> dict[str, int]:
        """What each wallet holds at its mint, by its words."""
        rings, http = self.market.rings, self.market.http
        return {name: await restored_balance(rings[name], self.mints[name].url, http) for name in NODES}

    def notice(self, event: Event) -> None:
        """It is on the relay."""
        self.seen[event.id] = time.time()

    # ---- what the owner does

    @asynccontextmanager
    async def errand(self, job: Job) -> AsyncIterator[Errand]:
        """Begin a trial. Whoever is asked and away is asked again."""
        errand = Errand(job, await self.held())
        run = self._with_deposit if job.method == "prepaid" else self._bought
        errand.task = asyncio.create_task(run(errand))
        try:
            yield errand
        finally:
            errand.task.cancel()
            await asyncio.gather(errand.task, return_exceptions=True)

    async def _bought(self, errand: Errand) -> dict[str, Any]:
        errand.job_id = await until(lambda: self._buy(errand.job), "the job to be taken", _WAIT_S)

        async def closed() -> dict[str, Any] | None:
            found = await self.shown(errand.job_id)
            return found if found.get("closed") else None

        try:
            return dict(await until(closed, "the job to close", _WAIT_S))
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.shown(errand.job_id)}") from None

    async def _buy(self, job: Job) -> str:
        """Ask for the job under its one key; its id, or nothing if the buyer was not there or could not take it."""
        answer = await self._called("node/compute/new", job.body, job.text)
        return str(answer["job_id"]) if answer else ""

    async def _with_deposit(self, errand: Errand) -> dict[str, Any]:
        """Open a deposit, have the job drawn from it, and close it."""
        seller, shown = self.market.rings["seller"].node.npub, dict[str, Any]()
        asked = {"seller": seller, "sat": DEPOSIT_SAT}
        opened = await until(
            lambda: self._called("node/market/prepaid/open", asked, errand.job.text), "the deposit to be taken", _WAIT_S
        )
        errand.deposit = str(opened["id"])

        async def settled() -> str:
            state = await self._deposit_state(errand)
            return state if state not in ("", "asked", "locking", "sent") else ""

        if await until(settled, "the deposit to be opened", _WAIT_S) == "open":
            shown = await self._bought(errand)

        async def over() -> bool:
            state = await self._deposit_state(errand)
            if state in _CLOSABLE:
                await self._called("node/market/prepaid/close", {"deposit": errand.deposit}, f"{errand.job.text} end")
            return state in _OVER

        await until(over, "the deposit to end", _WAIT_S)
        return shown

    async def _deposit_state(self, errand: Errand) -> str:
        try:
            rows = await self.market.get("buyer", "node/market/prepaid")
        except _AWAY:
            return ""
        found = next(one for one in rows if (one["side"], one["id"]) == ("buyer", errand.deposit))
        assert not found["fault"], found
        return str(found["state"])

    async def _called(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        """What the buyer answers; nothing if it is away or can do nothing now."""
        try:
            status, answer = await self.market.call("buyer", path, body, key)
        except _AWAY:
            return {}
        assert status in (200, 503), answer
        return dict(answer) if status == 200 else {}

    async def shown(self, job_id: str) -> dict[str, Any]:
        """The buyer's own view of the job; empty while it is not there."""
        try:
            return dict(await self.market.get("buyer", f"node/compute/jobs/{job_id}/status"))
        except _AWAY:
            return {}

    # ---- what happens to nodes

    async def fell(self, name: str, errand: Errand) -> bool:
        """Wait until a node has died of what it was armed with, and count it out; or the errand ended without that."""
        child = self.market.nodes[name]
        armed = self.market.homes[name] / "arm"

        async def over() -> bool:
            return child.process.returncode is not None or not armed.exists() or errand.missed()

        await until(over, f"the {name} to die", _WAIT_S)
        if child.process.returncode is None and disarm(self.market.homes[name]):
            return False
        assert await asyncio.wait_for(child.process.wait(), _WAIT_S) == -9, self.market.log(name)[-3_000:]
        self.market.children.remove(self.market.nodes.pop(name))
        return True

    # ---- what became of it

    async def ended(self, errand: Errand) -> dict[str, Any]:
        """Wait until the errand is over and both wallets' books agree with their mints; the buyer's view of the job."""
        shown = await errand.ended()
        await self._until_settled(errand)
        for name in NODES:
            await until(lambda name=name: self._clean(name), f"the {name}'s books to agree", _WAIT_S)
        return shown

    async def _clean(self, name: str) -> bool:
        audit = await self.market.get(name, "node/wallet/audit")
        return bool(audit["clean"]) and not audit["open_operations"]

    async def _until_settled(self, errand: Errand) -> None:
        """An invoice is paid to a mint: its seller comes for the coins later, and then has something to say."""

        async def settled() -> bool:
            facts = await self.facts(errand)
            return not facts.bills.payments or (
                facts.bills.quotes == {"ISSUED"} and (bool(facts.results) or facts.owed)
            )

        await until(settled, "the seller to have what was paid", _WAIT_S)

    async def facts(self, errand: Errand) -> Facts:
        """What relay, mints and network say."""
        rings = self.market.rings
        seller, buyer = rings["seller"].node, rings["buyer"].node.pubkey
        witness = Witness(self.wire.events, self.seen, seller, buyer, self.mints, self.network, self.market.http)
        return await witness.facts(errand.job, errand.deposit)


async def tried(town: Town, errand: Errand) -> str:
    """Wait for the errand's end; what became of it by what relay and mints say."""
    shown = await town.ended(errand)
    fate = judge(Case(errand.job, shown, await town.facts(errand), errand.before, await town.held()))
    print(f"{errand.job.text}: {fate}")  # noqa: T201 - shown by -s, and where a test fails
    town.spoilt = town.spoilt or fate not in GOOD
    return fate


Trial = TypeVar("Trial")


async def every(
    folder: Path, place: Place, cases: Sequence[Trial], trial: Callable[[Town, Trial], Awaitable[None]], **settings: Any
) -> None:
    """Try each case, in the same town as long as that goes well. The `settings` are those of `settling`.

    Raises:
        ExceptionGroup: all that failed, each with its case; of one case it is raised itself.
    """
    left, wrong = list(cases), list[Exception]()
    while left:
        begun = len(left)
        try:
            async with settling(folder / f"town-{begun}", place, **settings) as town:
                while left and not town.spoilt:
                    case = left.pop(0)
                    await trial(town, case)
                    await town.ready()
        except (AssertionError, VendoError, aiohttp.ClientError, TimeoutError) as error:
            if len(left) == begun:  # there was no town for it
                case = left.pop(0)
            error.add_note(f"in the trial {case}")
            wrong.append(error)
    if len(cases) == len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {len(cases)} trials", wrong)


@asynccontextmanager
async def settling(
    folder: Path, place: Place, *, invoice_s: int = 600, waits: Mapping[str, int] | None = None
) -> AsyncIterator[Town]:
    """The town, with money on both sides, at mints that both have tried if results are sealed.

    Args:
        folder: for all files.
        place: which market.
        invoice_s: for how long invoices can be paid.
        waits: of both nodes, see `dying_part.brief`.
    """
    folder.mkdir(exist_ok=True)
    network = ToyLightning(folder / "lightning")
    network.open()
    mints = [Mint(folder, network if place is Place.LIGHTNING else None) for _ in range(_mints(place))]
    try:
        await asyncio.gather(*(mint.up() for mint in mints))
        sides = dict(zip(NODES, mints * (3 - len(mints)), strict=False))
        specs = {name: Spec(mints=[sides[name].url], replace=changes(place), start=False) for name in NODES}
        async with market(folder, specs, mint=False, program=PROGRAM) as opened:
            _write_down(opened, place, waits or {})
            async with watching(opened.http, opened.relay) as wire:
                town = Town(opened, sides, network, wire)
                wire.listeners.append(town.notice)
                await _begun(town, place)
                network.stingy(invoice_s)
                yield town
    finally:
        await asyncio.gather(*(mint.down() for mint in mints))


def _mints(place: Place) -> int:
    return 2 if place is Place.LIGHTNING else 1


def _write_down(opened: Market, place: Place, waits: Mapping[str, int]) -> None:
    """What can be said only once both have their keys."""
    file = opened.homes["seller"] / "config.toml"
    text = file.read_text(encoding="utf-8")
    if place is Place.LIGHTNING:  # who is known may have the result first
        nobody, buyer = "allow = []                     #", opened.rings["buyer"].node.npub
        assert nobody in text
        text = text.replace(nobody, f'allow = ["{buyer}"] #')
    file.write_text(text + sells(place), encoding="utf-8")
    for name in NODES:
        brief(opened.homes[name], waits)


async def _begun(town: Town, place: Place) -> None:
    """Both run, are known to each other, and have money."""
    opened = town.market
    await asyncio.gather(*(opened.up(name) for name in NODES))
    await _each(lambda name: opened.fund(name, FUNDS_SAT))
    seller = opened.rings["seller"].node.pubkey

    async def announced() -> bool:
        return any(one.kind == HANDLER and one.pubkey == seller for one in town.wire.events.values())

    await until(announced, "the seller's announcement")
    if place is Place.SEALED:
        await _each(lambda name: until(lambda: _proven(opened, name), f"the mint to be tried by the {name}"))


async def _each(act: Callable[[str], Awaitable[Any]]) -> None:
    await asyncio.gather(*(act(name) for name in NODES))


async def _proven(opened: Market, name: str) -> bool:
    return all(one["proven"] for one in await opened.get(name, "node/wallet/mints"))
