"""A buyer and a seller that can be made to fail at any step, and what the relay and the mint say became of a job.

Nothing in `Facts` comes from a node: the requests, results and payments are events of the relay, the payments opened
with the seller's key; whether coins were spent, and by whose word, is the mint's answer (NUT-07); what a wallet holds
is restored from its words at the mint (NUT-09, NUT-13).
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cli.demo.checker import restored_balance
from cli.demo.wire import Wire, watching
from relays.error import NotForUs
from relays.kind import GIFT_WRAP
from relays.nip17 import unwrap
from relays.nip90 import read_answer
from tests import dying_mint_part
from tests.dying_part import MARGINS, PROGRAM, disarm
from tests.market_part import PATIENT, Market, Spec, market, until
from tests.mint_part import running_mint
from wallet.cashu.curve import y_of

KINDS = {"A": 5050, "B": 5051}  # work first, money first
PRICES_SAT = {5050: 20, 5051: 21}
FEES_SAT = 4  # of our swap and of the seller's, or of our two, at the mint's default fees
DEPOSIT_SAT = 3_000
SELLS = "".join(
    f'\n[[sell]]\nkind = {kind}\nprice_msat = {sat}000\nprovider = "echo"\neta_s = 1\n'
    for kind, sat in PRICES_SAT.items()
)
CONFIG = {
    **PATIENT,
    "atomic = false": "atomic = true",
    "order_max_msat = 0": "order_max_msat = 20000",
    'order = ["dvm", "builtin"]': 'order = ["dvm"]',
    "lock_margin_s = 300": f"lock_margin_s = {MARGINS['dvm.buyer_rule.ATOMIC_MARGIN_S']}",
    'per_day_usd = "1.00"': 'per_day_usd = "100"',
    'per_seller_usd = "0.50"': 'per_seller_usd = "100"',
}
NODES = ("buyer", "seller")
SCRIPT = Path(dying_mint_part.__file__)
_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is bought in one trial."""

    mode: str
    text: str
    timeout_s: int = 25

    @property
    def kind(self) -> int:
        """Its kind, by which its mode is chosen."""
        return KINDS[self.mode]

    @property
    def sat(self) -> int:
        """Its price."""
        return PRICES_SAT[self.kind]

    @property
    def body(self) -> dict[str, Any]:
        """As it is asked for."""
        return {"kind": self.kind, "input": self.text, "timeout_s": self.timeout_s}


@dataclass(frozen=True, slots=True)
class Facts:
    """What relay and mint tell of one job."""

    requests: frozenset[str]
    results: frozenset[str]
    payments: frozenset[tuple[str, ...]]  # the coins of each that was handed over
    states: frozenset[str]
    preimages: frozenset[str]  # with which coins were taken
    hashes: frozenset[str]  # that the results were sealed under


@dataclass(slots=True)
class Mint:
    """The mint, which dies and comes back at the same address with what it had."""

    folder: Path
    url: str = ""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def home(self) -> Path:
        """Where it works."""
        return self.folder / f"mint-{self.url.rsplit(':', 1)[1]}"

    async def up(self) -> None:
        """See to it that it runs."""
        if self.url and await self._answers():
            return
        await self.down()
        port = int(self.url.rsplit(":", 1)[1]) if self.url else None
        self.url = await self._stack.enter_async_context(running_mint(self.folder, port=port, script=SCRIPT))

    async def down(self) -> None:
        """It runs no more."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _answers(self) -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/v1/info") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def pending(self) -> int:
        """How many coins it has put aside for a swap that it was killed in. It never looks at them again (0.20.2)."""
        with closing(sqlite3.connect(self.home / "db" / "mint.sqlite3")) as db:
            return int(db.execute("SELECT count(*) FROM proofs_pending WHERE melt_quote IS NULL").fetchone()[0])

    async def freed(self) -> None:
        """Its operator frees these coins by hand, and starts it again."""
        await self.down()
        with closing(sqlite3.connect(self.home / "db" / "mint.sqlite3")) as db, db:
            for keyset, sat in db.execute("SELECT id, sum(amount) FROM proofs_pending GROUP BY id").fetchall():
                db.execute("UPDATE keysets SET balance = balance + ? WHERE id = ?", (sat, keyset))
            db.execute("DELETE FROM proofs_pending")
        await self.up()

    async def fell(self) -> None:
        """Wait until it is gone."""

        async def gone() -> bool:
            return not (self.home / "mint.arm").exists() and not await self._answers()

        await until(gone, "the mint to die", _WAIT_S)


@dataclass(slots=True)
class Town:
    """The market. Between two trials both nodes run and no money of theirs is on its way."""

    market: Market
    mint: Mint
    wire: Wire  # requests and answers expire; this has seen them all

    async def ready(self) -> None:
        """Both nodes and the mint run, and nothing is armed; whatever the trial before left."""
        await self.mint.up()
        for name in NODES:
            disarm(self.market.homes[name])
            child = self.market.nodes.get(name)
            if child is not None and child.process.returncode is not None:
                self.market.children.remove(self.market.nodes.pop(name))
            if name not in self.market.nodes:
                await self.market.up(name)

    async def held(self) -> dict[str, int]:
        """What each wallet holds at the mint, by its words."""
        rings, http = self.market.rings, self.market.http
        return {name: await restored_balance(rings[name], self.mint.url, http) for name in NODES}

    async def buy(self, job: Job) -> str:
        """Ask for the job under its one key; its id, or nothing if the buyer was not there or could not take it."""
        try:
            status, answer = await self.market.call("buyer", "node/compute/new", job.body, job.text)
        except aiohttp.ClientError:
            return ""
        assert status in (200, 503), answer
        return str(answer["job_id"]) if status == 200 else ""

    async def shown(self, job_id: str) -> dict[str, Any]:
        """The buyer's own view of the job; empty while it is not there."""
        try:
            return dict(await self.market.get("buyer", f"node/compute/jobs/{job_id}/status"))
        except (aiohttp.ClientError, KeyError):
            return {}

    async def fell(self, name: str, job_id: str) -> bool:
        """Wait until a node has died of what it was armed with, and count it out; or the job ended without that."""
        child = self.market.nodes[name]
        armed = self.market.homes[name] / "arm"

        async def over() -> bool:
            if child.process.returncode is not None or not armed.exists():
                return True
            shown = await self.shown(job_id) if job_id else {}
            return bool(shown.get("closed")) and shown["state"] != "delivered"  # else each step is taken in the end

        await until(over, f"the {name} to die", _WAIT_S)
        if child.process.returncode is None and disarm(self.market.homes[name]):
            return False
        assert await asyncio.wait_for(child.process.wait(), _WAIT_S) == -9, self.market.log(name)[-3_000:]
        self.market.children.remove(self.market.nodes.pop(name))
        return True

    async def ended(self, job: Job) -> dict[str, Any]:
        """Wait until the job is closed and both wallets' books agree with the mint; the buyer's view of it."""

        async def asked() -> str:
            return await self.buy(job)  # under its key: it is the same job, or it never was one

        job_id = await until(asked, "the job to be taken", _WAIT_S)

        async def closed() -> dict[str, Any] | None:
            found = await self.shown(job_id)
            return found if found.get("closed") else None

        found: dict[str, Any] = await until(closed, f"the job to close: {await self.shown(job_id)}", _WAIT_S)
        for name in NODES:
            await until(lambda name=name: self._clean(name), f"the {name}'s books to agree", _WAIT_S)
        return found

    async def _clean(self, name: str) -> bool:
        audit = await self.market.get(name, "node/wallet/audit")
        return bool(audit["clean"]) and not audit["open_operations"]

    async def facts(self, job: Job) -> Facts:
        """What relay and mint say."""
        buyer, seller = self.market.rings["buyer"].node, self.market.rings["seller"].node
        events = list(self.wire.events.values())
        requests = {one.id for one in events if one.kind == job.kind and job.text in one.values("i")}
        payments = set()
        for one in events:
            if one.kind == GIFT_WRAP and one.value("p") == seller.pubkey:
                try:
                    rumor = unwrap(seller, one)
                except NotForUs:
                    continue
                if rumor.sender == buyer.pubkey and rumor.value("e") in requests and rumor.content.startswith("{"):
                    payments.add(
                        tuple(sorted(y_of(proof["secret"]) for proof in orjson.loads(rumor.content)["proofs"]))
                    )
        results = [one for one in events if one.kind == job.kind + 1_000 and requests & set(one.values("e"))]
        states = await self._states(sorted({y for payment in payments for y in payment}))
        witnesses = [json.loads(one["witness"]) for one in states if one.get("witness")]
        return Facts(
            frozenset(requests),
            frozenset(one.id for one in results),
            frozenset(payments),
            frozenset(one["state"] for one in states),
            frozenset(one["preimage"] for one in witnesses if one.get("preimage")),
            frozenset(seal.hash for one in results if (seal := read_answer(one).seal) is not None),
        )

    async def _states(self, ys: Sequence[str]) -> list[dict[str, Any]]:
        if not ys:
            return []
        async with self.market.http.post(f"{self.mint.url}/v1/checkstate", json={"Ys": list(ys)}) as answer:
            answer.raise_for_status()
            return list((await answer.json())["states"])


def judge(job: Job, shown: dict[str, Any], facts: Facts, before: dict[str, int], after: dict[str, int]) -> str:
    """What became of a job whose money is final: `claimed`, `refunded`, or `nothing` was ever out.

    Raises:
        AssertionError: something was lost, forgotten, or happened twice.
    """
    told = f"{job} {shown['events']} {shown['refused']} {facts} {before} {after}"
    spent, earned = before["buyer"] - after["buyer"], after["seller"] - before["seller"]
    assert len(facts.requests) <= 1, told
    assert len(facts.results) <= 1, told
    assert len(facts.payments) <= 1, told
    if facts.preimages:
        assert facts.states == {"SPENT"}, told
        assert {sha256(bytes.fromhex(one)).hexdigest() for one in facts.preimages} == facts.hashes, told
        assert (shown["state"], shown["result"], shown["money"]) == ("delivered", job.text, "claimed"), told
        assert earned == job.sat, told
        assert job.sat <= spent <= job.sat + FEES_SAT, told
        return "claimed"
    assert earned == 0, told
    assert 0 <= spent <= (FEES_SAT if facts.requests else 0), told
    assert facts.states <= {"SPENT"}, told
    assert shown["state"] == "failed", told
    assert shown["money"] in ("refunded", "none"), told
    return "refunded" if spent else "nothing"


async def tried(town: Town, job: Job, before: dict[str, int]) -> str:
    """Wait for the job's end; what became of it by what the relay and the mint say."""
    shown = await town.ended(job)
    fate = judge(job, shown, await town.facts(job), before, await town.held())
    print(f"{job.text}: {fate}")  # noqa: T201 - shown by -s, and where a test fails
    return fate


@asynccontextmanager
async def settling(folder: Path) -> AsyncIterator[Town]:
    """The town, with money on both sides and a mint that both have tried."""
    mint = Mint(folder)
    await mint.up()
    try:
        specs = {
            "buyer": Spec(replace=CONFIG, mints=[mint.url]),
            "seller": Spec(SELLS, replace=CONFIG, mints=[mint.url]),
        }
        async with market(folder, specs, mint=False, program=PROGRAM) as opened:
            for name in NODES:
                await opened.fund(name, DEPOSIT_SAT)
            for name in NODES:
                await until(lambda name=name: _proven(opened, name), f"the mint to be tried by the {name}")
            async with watching(opened.http, opened.relay) as wire:
                yield Town(opened, mint, wire)
    finally:
        await mint.down()


async def _proven(opened: Market, name: str) -> bool:
    return all(one["proven"] for one in await opened.get(name, "node/wallet/mints"))
