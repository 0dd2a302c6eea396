"""What a mint says of its keysets: asked once for all who wait, and remembered within bounds."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from core.error import VendoError
from tests.model_mint import ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, HandClock, make_wallet
from wallet import restorer
from wallet.amount import EUR, SAT, USD, Amount
from wallet.cashu.keyset import MAX_KEYSETS, KeysetInfo
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


# ---------------------------------------------------------------------- what is remembered


def listing(mint: ModelMint, infos: Sequence[KeysetInfo]) -> None:
    async def keysets() -> tuple[KeysetInfo, ...]:
        return tuple(infos)

    mint.keysets = keysets


def fresh(round_: int) -> list[KeysetInfo]:
    return [KeysetInfo(f"00{round_:07x}{place:07x}", USD, True, 0) for place in range(MAX_KEYSETS)]


async def test_a_mint_that_lists_new_keysets_without_end_is_remembered_by_its_last_answer(clock):
    mint = ModelMint(clock=clock)
    roll = Roll(mint, clock)
    roll.pin("00" + "ff" * 7, SAT)
    for round_ in range(20):
        listing(mint, fresh(round_))
        await roll.refresh()
        roll.pin(fresh(round_)[0].id, USD)
    listed = [info.id for round_ in range(20) for info in fresh(round_)]
    assert sum(roll.unit(id_) is not None for id_ in listed) == MAX_KEYSETS + 19
    assert all(roll.unit(fresh(round_)[0].id) == USD for round_ in range(20))
    assert roll.unit("00" + "ff" * 7) == SAT


async def test_a_keyset_that_changes_its_unit_stays_out_however_often_that_is_said(clock):
    mint = ModelMint(clock=clock)
    roll = Roll(mint, clock)
    ours, other = fresh(1)[:2]
    listing(mint, [ours, other])
    await roll.refresh()
    roll.pin(ours.id, USD)
    for _ in range(3):
        listing(mint, [replace(ours, unit=EUR), replace(other, unit=EUR)])
        await roll.refresh()
        assert roll.contested == {ours.id, other.id}
        assert roll.infos == {}
    # Not even if it was not spoken of in between, where money of ours lies in it.
    listing(mint, [])
    await roll.refresh()
    listing(mint, [replace(ours, unit=EUR)])
    await roll.refresh()
    assert roll.contested == {ours.id}
    listing(mint, [ours])
    await roll.refresh()
    assert (set(roll.infos), roll.contested) == ({ours.id}, frozenset())


async def test_what_was_planned_received_or_found_is_remembered_when_the_mint_goes_silent_about_it(clock, monkeypatch):
    monkeypatch.setattr(restorer, "GAP", 50)
    mint = ModelMint(clock=clock, more=(USD,))
    infos = await mint.keysets()
    wallet = make_wallet(BUYER_WORDS, [mint], clock)
    await wallet.foreign.deposit("cents", mint.url, Amount(64, USD), EFFECT, PERMIT)
    await wallet._keeper.poll("cents")
    again = make_wallet(BUYER_WORDS, [mint], clock)
    assert (await again.restore(mint.url, USD)).amount == 64
    for one in (wallet, again):
        roll = one._books.roll(mint.url)
        listing(mint, [])
        await roll.refresh()
        listing(mint, [replace(info, unit=SAT) for info in infos])
        await roll.refresh()
        assert roll.contested == {info.id for info in infos if info.unit == USD}
