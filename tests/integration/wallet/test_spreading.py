"""Money moves between two real mints on two real Lightning nodes, and lies where the owner's rules want it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.effect import EffectClass, Permit
from core.identifier import EffectId, OperationId
from fs.service.treasury import Treasurer
from fs.session import Role, Session
from node.gate.gate import NodeGate
from node.spreading import FIRST_REST_S, Spreading
from node.storage.memory import MemoryDatabase
from relays.key import Keyring, new_words
from tests.gate_part import memory, open_gate
from tests.lightning.mint import Mint, lightning_mint
from tests.lightning.network import Network, network
from tests.lightning.process import until
from tests.lightning.purse import REGTEST, proves
from wallet.cashu.mint import MintClient
from wallet.error import TooDear
from wallet.payment import State
from wallet.spread import Move, Rules
from wallet.wallet import Wallet

pytestmark = [pytest.mark.needs("lightning"), pytest.mark.asyncio(loop_scope="module")]
CLOCK = SystemClock()
FUNDS_SAT = 9_000
HANGS_S = 60


class Hasty(SystemClock):
    """Sleeps are short: a round each hundredth of a second."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@dataclass
class Part:
    """A node's wallet at both mints, with the gate and what moves money through it."""

    net: Network
    near: Mint
    far: Mint
    http: aiohttp.ClientSession
    unit: MemoryDatabase
    gate: NodeGate
    ring: Keyring

    def wallet(self, *listed: str, retired: tuple[str, ...] = ()) -> Wallet:
        def clients(urls: tuple[str, ...]) -> list[MintClient]:
            return [MintClient(url, self.http, self.gate.check) for url in urls]

        return Wallet(
            self.unit, self.ring, CLOCK, self.gate.check, clients(listed), permit_for=self.gate.permit,
            retired=clients(retired), currencies=REGTEST,
        )  # fmt: skip

    def spreading(self, wallet: Wallet, rules: Rules) -> Spreading:
        return Spreading(wallet, Treasurer(wallet, self.gate, self.unit, CLOCK), self.unit, Hasty(), rules)

    async def live(self, wallet: Wallet) -> dict[str, int]:
        return {one.mint: one.live for one in await wallet.balance()}

    async def fund(self, wallet: Wallet, mint: str) -> None:
        """Coins at one mint, paid for by the node between."""

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, str]:
            return {"invoice": (await wallet.deposit(op_id, mint, FUNDS_SAT, effect_id, permit)).invoice}

        treasurer = Treasurer(wallet, self.gate, self.unit, CLOCK)
        asked = await treasurer.move(operator("fund"), "deposit", b"", {}, EffectClass.EXTERNAL, act)
        proves(await self.net.middle.client.pay(asked["invoice"]))

        async def arrived() -> bool:
            return (await wallet.poll(asked["op_id"])).state is State.DONE

        await until(arrived, "the deposit")


def operator(key: str) -> Session:
    return Session("operator", Role.OPERATOR, key)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mints(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Network, Mint, Mint]]:
    folder = tmp_path_factory.mktemp("two-mints")
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(network(folder / "net"))
        near = await stack.enter_async_context(lightning_mint("near", folder, folder, net.near))
        far = await stack.enter_async_context(lightning_mint("far", folder, folder, net.far))
        yield net, near, far


@pytest_asyncio.fixture(loop_scope="module")
async def part(mints: tuple[Network, Mint, Mint]) -> AsyncIterator[Part]:
    net, near, far = mints
    await net.settled()
    unit = memory(CLOCK)
    gate = await open_gate(unit, CLOCK)
    async with aiohttp.ClientSession() as http:
        yield Part(net, near, far, http, unit, gate, Keyring(new_words()))


@asynccontextmanager
async def running(spreading: Spreading) -> AsyncIterator[None]:
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(spreading.run(ready, stop))
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, HANGS_S)


async def agree(wallet: Wallet) -> None:
    audit = await wallet.audit()
    assert (audit.differences, audit.open_operations) == ((), 0)


async def test_a_sum_goes_from_one_mint_to_the_other_and_the_books_agree(part: Part) -> None:
    wallet = part.wallet(part.near.url, part.far.url)
    await part.fund(wallet, part.near.url)
    spreading = part.spreading(wallet, Rules())
    wish = Move(part.near.url, part.far.url, 2_000, 60)
    moved = await spreading.move(operator("move"), wish)
    assert moved["state"] == "done"
    held = await part.live(wallet)
    assert held[part.far.url] == 2_000
    assert FUNDS_SAT - 2_060 <= held[part.near.url] < FUNDS_SAT - 2_000
    assert await spreading.move(operator("move"), wish) == moved, "the same key moves nothing twice"
    assert await part.live(wallet) == held
    await agree(wallet)


async def test_a_move_that_would_cost_too_much_moves_nothing(part: Part) -> None:
    wallet = part.wallet(part.near.url, part.far.url)
    await part.fund(wallet, part.near.url)
    with pytest.raises(TooDear):
        await part.spreading(wallet, Rules()).move(operator("move"), Move(part.near.url, part.far.url, 2_000, 1))
    assert (await part.live(wallet))[part.near.url] == FUNDS_SAT
    assert (await wallet.audit()).differences == ()


async def test_what_is_above_a_cap_moves_by_itself(part: Part) -> None:
    wallet = part.wallet(part.near.url, part.far.url)
    await part.fund(wallet, part.near.url)
    rules = Rules(cap_sat=6_000)

    async def spread() -> bool:
        held = await part.live(wallet)
        return held[part.near.url] <= 6_000 and held.get(part.far.url, 0) > 3_000

    async with running(part.spreading(wallet, rules)):
        await until(spread, "the money to be spread")
    assert sum((await part.live(wallet)).values()) > FUNDS_SAT - 100
    await agree(wallet)


async def test_a_mint_that_was_taken_off_the_list_is_emptied(part: Part) -> None:
    await part.fund(part.wallet(part.near.url, part.far.url), part.near.url)
    wallet = part.wallet(part.far.url, retired=(part.near.url,))

    async def emptied() -> bool:
        held = await part.live(wallet)
        return held.get(part.near.url, 0) < 20 and held[part.far.url] > FUNDS_SAT - 300

    async with running(part.spreading(wallet, Rules())):
        await until(emptied, "the money to leave")
    assert (await wallet.audit()).differences == ()


async def test_where_a_move_fails_it_is_left_alone_for_a_while(part: Part) -> None:
    wallet = part.wallet(part.near.url, part.far.url)
    await part.fund(wallet, part.near.url)
    spreading = part.spreading(wallet, Rules(cap_sat=6_000, fee_percent=0))  # 3 sat are too little for this way
    effects = await part.unit.select("effect")
    async with running(spreading):

        async def failed() -> bool:
            return any(row["state"] == "fail" for row in await part.unit.select("effect"))

        await until(failed, "the first try to fail")
        await asyncio.sleep(0.3)  # thirty rounds
    new = [row for row in await part.unit.select("effect") if row["id"] not in {one["id"] for one in effects}]
    assert len([row for row in new if row["state"] == "fail"]) == 1
    assert FIRST_REST_S > HANGS_S
    assert (await part.live(wallet))[part.near.url] == FUNDS_SAT
