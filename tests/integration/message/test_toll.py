"""A stranger who pays is heard: real coins of a model mint, swapped by the real wallet through the real gate."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from core.clock import SystemClock
from fs.service.treasury import Treasurer
from node.collector import Collector
from node.gate.gate import NodeGate
from node.message.admission import Rules, Strangers
from node.message.service import Reach
from node.storage.memory import MemoryDatabase
from relays.key import Key, Keyring
from relays.pool import Pool
from tests.integration.agent.node_part import OWNER, STRANGER, Town, town
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, make_wallet
from wallet.wallet import Wallet

CLOCK = SystemClock()
RULES = Rules(contacts=frozenset({OWNER.pubkey}), strangers=Strangers.PAY, toll_sat=10)


@dataclass
class Gatehouse:
    """A town where strangers pay, the mint, and a stranger with money."""

    here: Town
    mint: ModelMint
    payer: Wallet
    wallets: list[Wallet]

    async def token(self, sat: int, op_id: str = "send") -> str:
        return await self.payer.send(op_id, self.mint.url, sat, EFFECT, PERMIT)

    async def earned(self) -> int:
        return sum(one.live for one in await self.wallets[0].balance())


def _reach(mint: ModelMint, wallets: list[Wallet]) -> Callable[[Pool, MemoryDatabase, NodeGate], Reach]:
    def make(pool: Pool, unit: MemoryDatabase, gate: NodeGate) -> Reach:
        wallet = Wallet(unit, Keyring(SELLER_WORDS), CLOCK, gate.check, [mint], permit_for=gate.permit)
        wallets.append(wallet)
        return Reach(collector=Collector(wallet, Treasurer(wallet, gate, unit, CLOCK)))

    return make


@asynccontextmanager
async def gatehouse(relay: str, unit: MemoryDatabase | None = None) -> AsyncIterator[Gatehouse]:
    mint, wallets = ModelMint(clock=CLOCK), []
    payer = make_wallet(BUYER_WORDS, [mint], CLOCK)
    await payer.deposit("deposit", mint.url, 500, EFFECT, PERMIT)
    await payer.poll("deposit")
    async with town(relay, unit, rules=RULES, reach=_reach(mint, wallets)) as here:
        yield Gatehouse(here, mint, payer, wallets)


async def _held(here: Town, least: int) -> bool:
    return len(await here.rows("message", state="held")) >= least


async def _inbox(here: Town, count: int) -> bool:
    return len(await here.rows("inbox", cause="message")) == count


async def _inbox_has(here: Town, least: int) -> bool:
    return len(await here.rows("inbox", cause="message")) >= least


async def test_a_first_message_with_the_toll_in_it_is_heard_and_so_are_the_next_ones(relay: str) -> None:
    async with gatehouse(relay) as at:
        here = at.here
        token = await at.token(20)
        await here.say(STRANGER, f"ask: hello {token}")
        await here.until(lambda: _inbox(here, 1))
        assert await at.earned() >= 10
        (effect,) = await here.settled("/wallet/toll")
        assert (effect["caller"], effect["state"]) == ("node", "commit")
        (row,) = await here.rows("message", direction="in")
        assert (row["state"], row["reason"]) == ("received", "paid")
        for table in ("message", "inbox", "entry"):
            assert token not in str(await here.rows(table)), "a token is money: it is shown nowhere"
        await here.say(STRANGER, "ask: hello again")
        await here.until(lambda: _inbox(here, 2))
        assert len(await here.rows("effect", path="/wallet/toll")) == 1
        kept = here.unit
    async with town(relay, kept, rules=RULES, reach=_reach(at.mint, [])) as again:
        await again.say(STRANGER, "ask: after a restart")
        await again.until(lambda: _inbox(again, 3))


@pytest.mark.parametrize("kind", ["none", "little", "forged", "other mint"])
async def test_too_little_or_no_money_is_dropped_without_asking_the_mint(relay: str, kind: str) -> None:
    async with gatehouse(relay) as at:
        here = at.here
        token = await at.token(20 if kind in ("forged", "other mint") else 5)
        if kind == "other mint":
            other = ModelMint("https://elsewhere.test", clock=CLOCK)
            purse = make_wallet(BUYER_WORDS, [other], CLOCK)
            await purse.deposit("d", other.url, 100, EFFECT, PERMIT)
            await purse.poll("d")
            token = await purse.send("s", other.url, 20, EFFECT, PERMIT)
        text = {"none": "hello", "forged": "hello " + token[:60]}.get(kind, f"hello {token}")
        asked = len(at.mint.calls)
        await here.say(STRANGER, text)
        await here.until(lambda: here.messages.counts["unpaid"] == 1)
        assert len(at.mint.calls) == asked
        assert not await here.rows("message")
        assert not await here.rows("effect", path="/wallet/toll")


async def test_a_token_that_was_spent_before_buys_nothing(relay: str) -> None:
    async with gatehouse(relay) as at:
        here = at.here
        token = await at.token(20)
        other = make_wallet(SELLER_WORDS, [at.mint], CLOCK)
        await other.receive("theirs", token, EFFECT, PERMIT)
        await here.say(STRANGER, f"hello {token}")
        await here.until(lambda: _dropped(here))
        assert await _inbox(here, 0)
        assert await at.earned() == 0
        (effect,) = await here.settled("/wallet/toll")
        assert effect["state"] == "fail"


async def _dropped(here: Town) -> bool:
    rows = await here.rows("message", direction="in")
    return bool(rows) and rows[0]["state"] == "dropped"


async def test_an_answer_that_was_lost_is_looked_up_and_the_message_comes_after_all(relay: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.05)
        async with gatehouse(relay) as at:
            here, left = at.here, [Fault.ANSWER_LOST]
            at.mint.script = lambda name: left.pop() if left and name.startswith("swap") else Fault.NONE
            await here.say(STRANGER, f"ask: hello {await at.token(20)}")
            await here.until(lambda: _inbox(here, 1), 60)
            assert left == []
            assert await at.earned() >= 10


async def test_the_owner_pays_nothing_even_if_there_is_a_token_in_the_message(relay: str) -> None:
    async with gatehouse(relay) as at:
        token = await at.token(20)
        await at.here.say(OWNER, f"ask: keep this {token}")
        await at.here.until(lambda: _inbox(at.here, 1))
        await asyncio.sleep(0.1)
        assert await at.earned() == 0
        assert replace(RULES) == at.here.messages.rules("agent")


async def test_while_nobody_knows_whether_the_money_came_the_stranger_is_not_in(relay: str) -> None:
    """The swap's answer is lost and so is every answer to the question what became of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.02)
        async with gatehouse(relay) as at:
            here, token, swaps = at.here, await at.token(20), []

            def script(name: str) -> Fault:
                if name.startswith("swap"):
                    swaps.append(name)
                return Fault.REQUEST_LOST if swaps else Fault.NONE

            at.mint.script = script
            await here.say(STRANGER, f"ask: hello {token}")
            await here.until(lambda: swaps)
            await asyncio.sleep(0.3)
            assert await _inbox(here, 0), "an operation that is open is no money"
            assert here.messages._doors["agent"].paid == {}
            at.mint.script = lambda name: Fault.NONE
            await at.wallets[0].recover()
            await here.until(lambda: _inbox(here, 1), 60)
            assert await at.earned() >= 10


async def test_a_mint_that_is_away_for_a_moment_loses_nobodys_message(relay: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.02)
        async with gatehouse(relay) as at:
            here, token, asked = at.here, await at.token(20), []

            def script(name: str) -> Fault:
                asked.append(name)
                return Fault.UNREACHABLE if len(asked) < 6 else Fault.NONE

            at.mint.script = script
            await here.say(STRANGER, f"ask: hello {token}")
            await here.until(lambda: _inbox(here, 1), 60)
            assert await at.earned() >= 10
            assert [row["reason"] for row in await here.rows("message", direction="in")] == ["paid"]


async def test_a_toll_waits_over_a_pause_and_loses_neither_message_nor_token(relay: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.02)
        async with gatehouse(relay) as at:
            here, token = at.here, await at.token(20)
            await here.gate.pause()
            await here.say(STRANGER, f"ask: hello {token}")
            await here.until(lambda: here.rows("message", state="held"))
            await asyncio.sleep(0.2)
            (row,) = await here.rows("message", direction="in")
            assert (row["state"], token in row["text"]) == ("held", True)
            await here.gate.resume()
            await here.until(lambda: _inbox(here, 1))
            assert await at.earned() >= 10


async def test_a_token_for_an_agent_that_is_gone_is_not_taken(relay: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.02)
        async with gatehouse(relay) as at:
            here, token = at.here, await at.token(20)
            await here.gate.pause()
            await here.say(STRANGER, f"ask: hello {token}")
            await here.until(lambda: here.rows("message", state="held"))
            here.messages.detach("agent")
            await here.gate.resume()
            await here.until(lambda: _dropped(here))
            assert await at.earned() == 0
            assert not await here.rows("effect", path="/wallet/toll")


async def test_what_is_more_than_fits_the_line_is_taken_later(relay: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.toll._AGAIN_S", 0.02)
        patch.setattr("node.message.toll.MAX_HELD", 1)
        async with gatehouse(relay) as at:
            here = at.here
            await here.gate.pause()
            for number in range(20):  # one that comes while the line is full is not held at all
                sender = Key(bytes([0x31 + number]) * 32)
                await here.say(sender, f"ask: hello {await at.token(20, f'send{number}')}")
                await asyncio.sleep(0.1)
                if await _held(here, 2):
                    break
            else:
                raise AssertionError("two were never held")
            await here.gate.resume()
            await here.until(lambda: _inbox_has(here, 2), 60)
