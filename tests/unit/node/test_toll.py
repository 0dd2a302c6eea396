"""Paying for the right to write: no paid day is lost, and nothing is taken for nothing."""

import asyncio

import pytest

from node.collector import Collector
from node.toll import CashuToll
from relays.embedded.toll import PaymentRefused
from relays.key import Key
from tests.gate_part import SetClock, memory
from wallet.cashu.proof import Proof
from wallet.cashu.token import encode

DAY = 86_400
MINT = "https://mint.example.com"
WRITER = Key.generate().pubkey


class Wallet:
    mints = (MINT,)


class Doing:
    """A treasurer for whom every token is good; each has its own operation."""

    def __init__(self):
        self.moved = []

    async def move(self, session, name, body, note, effect, act):
        self.moved.append(session.effect_key())
        await asyncio.sleep(0)
        return {"op_id": session.effect_key(), "state": "done"}


def token(amount, seed, mint=MINT):
    return encode(mint, "sat", [Proof("00" + "a" * 14, amount, f"{seed:064x}", "02" + "b" * 64)])


@pytest.fixture
def toll():
    clock = SetClock()
    doing = Doing()
    made = CashuToll(Collector(Wallet(), doing), memory(clock), clock, 20, 30)
    made.doing, made.clock = doing, clock
    return made


async def test_two_payments_at_the_same_moment_add_up(toll):
    until = await asyncio.gather(*(toll.pay(WRITER, token(20, number)) for number in range(3)))
    assert max(until) == toll.clock.now() + 3 * 30 * DAY
    assert toll.paid[WRITER] == max(until)


async def test_the_same_token_counts_once_also_at_the_same_moment(toll):
    until = await asyncio.gather(*(toll.pay(WRITER, token(20, 1)) for _ in range(3)))
    assert set(until) == {toll.clock.now() + 30 * DAY}


async def test_more_than_twelve_periods_are_not_taken(toll):
    with pytest.raises(PaymentRefused):
        await toll.pay(WRITER, token(20 * 13, 1))
    assert toll.doing.moved == []


async def test_a_token_of_another_mint_begins_nothing(toll):
    for mint in ("https://other.example.com", "ftp://x", "https://mint.example.com/other"):
        with pytest.raises(PaymentRefused):
            await toll.pay(WRITER, token(20, 1, mint))
    assert toll.doing.moved == []
    await toll.pay(WRITER, token(20, 1, "https://MINT.example.com/"))
    assert len(toll.doing.moved) == 1
