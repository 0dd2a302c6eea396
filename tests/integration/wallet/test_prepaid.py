"""Deposits and vouchers at a real mint with its default fees: what it says of the coins is what counts (ADR 27)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.money import MicroUsd, Msat
from dvm.policy import Policy
from dvm.request import ComputeRequest, Datum
from dvm.settlement import Settlement
from node.storage.memory import MemoryDatabase
from relays.key import new_words
from tests.mint_part import running_mint
from tests.simulation.wire import SimRelay, Weather
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import freeze
from tests.wallet_part import allow
from wallet.cashu.mint import MintClient

CLOCK = SystemClock()
RULES = Settlement(
    prepaid_max=Msat(100_000), prepaid_after=1, prepaid_s=3_600, deposit_max=Msat(200_000), deposit_margin_s=60
)
POLICY = Policy(quote_window_ms=2_000, timeout_s=60, lock_margin_s=300)
SAT = 1_000
LONG_S = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mint_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with running_mint(tmp_path_factory.mktemp("mint")) as url:
        yield url


class Street:
    """A buyer, a seller, and the real mint of both."""

    def __init__(self, url: str, http: aiohttp.ClientSession, rules: Settlement) -> None:
        self.relay = SimRelay(1, Weather(delay=0.0, resync=0.5), CLOCK)
        mint = MintClient(url, http, allow)
        self.mint = mint
        parts = {"settlement": rules, "policy": POLICY}
        self.buyer = Node(new_words(), self.relay, mint, CLOCK, db=MemoryDatabase(), **parts)
        self.seller = Node(new_words(), self.relay, mint, CLOCK, db=MemoryDatabase(), services=echo(SAT), **parts)

    async def bought(self, text: str) -> dict:
        ask = ComputeRequest(5050, (Datum(text),), (), MicroUsd(50_000))
        staged = await self.buyer.buying.buy("agent:a", text, ask)

        async def closed() -> bool:
            return (await self.buyer.buying.view(staged.job_id)).purchase.closed

        await until(closed, text)
        view = await self.buyer.buying.view(staged.job_id)
        assert view.result == text, view.to_dict()
        return view.to_dict()

    async def row(self) -> dict:
        return (await self.buyer.buying.prepaying.rows())[0]

    async def theirs(self) -> dict:
        return (await self.seller.selling.custodian.rows())[0]

    async def becomes(self, *states: str) -> dict:
        async def there() -> bool:
            return (await self.row())["state"] in states

        await until(there, str(states))
        return await self.row()

    async def open(self, sat: int = 30) -> dict:
        await self.buyer.buying.prepaying.open("operator", "d", self.seller.key.pubkey, sat)
        return await self.becomes("open", "failed")

    async def close(self) -> dict:
        row = await self.row()
        if row["state"] == "open":
            await self.buyer.buying.prepaying.close(row["id"])
        return await self.becomes("closed")


async def until(holds, what: str) -> None:
    end = CLOCK.monotonic() + LONG_S
    while not await holds():
        assert CLOCK.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.05)


@pytest.fixture
async def street(mint_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Street]:
    async with aiohttp.ClientSession() as http:
        here = Street(mint_url, http, getattr(request, "param", RULES))
        await here.buyer.up()
        await here.seller.up()
        await here.buyer.fund(200)
        await here.bought("first")
        yield here
        for node in (here.buyer, here.seller):
            if node.tasks:
                await node.down()


async def test_five_jobs_of_a_sat_are_drawn_and_the_rest_comes_back(street: Street) -> None:
    before = await street.buyer.sat()
    await street.open()
    shown = [await street.bought(f"job {n}") for n in range(5)]
    assert {(one["method"], one["cost_msat"]) for one in shown} == {("prepaid", SAT)}
    assert (await street.row())["drawn_msat"] == (await street.theirs())["drawn_msat"] == 5 * SAT
    row = await street.close()
    assert (row["fault"], row["drawn_msat"]) == (None, 5 * SAT)
    assert before - 5 - 8 <= await street.buyer.sat() < before - 5
    for node in (street.buyer, street.seller):
        assert (await node.wallet.audit()).differences == ()


@pytest.mark.parametrize(
    ("who", "moment"),
    [("buyer", "locking"), ("buyer", "taking"), ("seller", "claiming")],
)
async def test_a_node_that_is_killed_anywhere_forgets_nothing_and_pays_nothing_twice(
    street: Street, who: str, moment: str
) -> None:
    before = await street.buyer.sat()
    opening = moment == "locking"
    node = street.buyer if who == "buyer" else street.seller
    if not opening:
        await street.open()
        await street.bought("one")
    frozen = freeze(node, "deposit", moment)
    prepaying = street.buyer.buying.prepaying
    if opening:
        await prepaying.open("operator", "d", street.seller.key.pubkey, 30)
    else:
        await prepaying.close((await street.row())["id"])
    await frozen.wait()
    await node.crash()
    await node.up()
    if opening:
        await street.becomes("open")
        await street.bought("one")
    row = await street.close()
    assert (row["drawn_msat"], row["fault"]) == (SAT, None)
    assert before - 1 - 8 <= await street.buyer.sat() < before - 1
    for one in (street.buyer, street.seller):
        assert (await one.wallet.audit()).differences == ()


@pytest.mark.parametrize("street", [replace(RULES, prepaid_s=8, deposit_margin_s=2)], indirect=True)
async def test_a_deposit_whose_seller_is_gone_is_taken_back(street: Street) -> None:
    before = await street.buyer.sat()
    await street.open()
    await street.seller.crash()
    row = await street.becomes("refunded")
    assert row["returned_msat"] >= 28 * SAT
    assert await street.buyer.sat() >= before - 5
    assert (await street.buyer.wallet.audit()).differences == ()
