"""What a mint says of its keysets: asked once for all who wait, and remembered within bounds."""

import asyncio
from collections.abc import Callable

import pytest

from core.error import VendoError
from tests.model_mint import ModelMint
from tests.wallet_part import HandClock
from wallet.cashu.roll import Roll
from wallet.error import MintRejected, MintSilent, MintUnreachable

TIME_OUT_S = 20
MANY = 100


class Slow(ModelMint):
    """Answers when the clock has gone on by a time-out; `outcome` may raise."""

    asked = 0

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock=clock)
        self.outcome: Callable[[], None] = lambda: None
        self.put = asyncio.Event()

    async def keysets(self):
        self.asked += 1
        self.put.set()
        for _ in range(10):
            await asyncio.sleep(0)
        await self.clock.sleep(TIME_OUT_S)
        self.outcome()
        return await super().keysets()

    def fails(self, error: VendoError | None) -> None:
        def outcome() -> None:
            if error is not None:
                raise error

        self.outcome = outcome


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def mint(clock) -> Slow:
    return Slow(clock)


@pytest.fixture
def roll(mint, clock) -> Roll:
    return Roll(mint, clock)


async def many(roll: Roll, *, older_than: float = 0.0) -> list[BaseException | None]:
    """What comes of it if so many want to know at once."""
    return await asyncio.gather(*(roll.refresh(older_than=older_than) for _ in range(MANY)), return_exceptions=True)


@pytest.mark.parametrize("older_than", [0.0, 300.0])
async def test_all_who_wait_for_a_silent_mint_fail_after_one_time_out(roll, mint, clock, older_than):
    mint.fails(MintSilent())
    began = clock.monotonic()
    outcomes = await many(roll, older_than=older_than)
    assert (mint.asked, clock.monotonic() - began) == (1, TIME_OUT_S)
    assert {type(one) for one in outcomes} == {MintSilent, MintUnreachable}
    assert roll.silent
    # Nobody who comes later is told of it as if it were news.
    mint.fails(None)
    await roll.refresh(older_than=older_than)
    assert roll.infos
    assert mint.asked == 2


async def test_all_who_wait_for_a_mint_that_was_heard_go_on_after_one_time_out(roll, mint, clock):
    await roll.refresh()
    mint.fails(MintSilent())
    began = clock.monotonic()
    assert set(await many(roll)) == {None}
    assert (mint.asked, clock.monotonic() - began) == (2, TIME_OUT_S)
    assert roll.silent
    with pytest.raises(MintUnreachable):
        await roll.answer()


async def test_a_mint_that_takes_its_time_to_refuse_is_asked_once_as_well(roll, mint):
    mint.fails(MintRejected(1))
    assert {type(one) for one in await many(roll)} == {MintRejected, MintUnreachable}
    assert mint.asked == 1


async def test_one_answer_is_enough_for_all_who_came_before_it_was_asked_for(roll, mint):
    first = asyncio.create_task(roll.refresh())
    await mint.put.wait()
    assert set(await many(roll)) == {None}
    await first
    assert mint.asked == 2, "the first question was put before they came: its answer may be from before, too"


async def test_who_is_cut_off_while_asking_leaves_the_question_to_the_next(roll, mint):
    first = asyncio.create_task(roll.refresh())
    await mint.put.wait()
    waiting = asyncio.create_task(many(roll))
    for _ in range(3):  # until they wait
        await asyncio.sleep(0)
    first.cancel()
    assert set(await waiting) == {None}
    assert mint.asked == 2
    assert roll.infos
