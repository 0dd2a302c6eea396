"""Rows of Lightning on every engine: a payment hash counts once, nobody changes a row twice, a day is summed whole."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from core.error import Conflict
from core.identifier import EffectId, OperationId
from node.storage.chain import unsigned_seal
from relays.key import Keyring
from tests.unit_part import ENGINES, EVERY, Base
from tests.wallet_part import BUYER_WORDS, HandClock
from wallet.lightning import Direction, Payment, Stage
from wallet.lightning_record import LightningBook, Order
from wallet.record import SealBroken, Vault


@pytest_asyncio.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    made = await ENGINES[request.param](tmp_path, unsigned_seal, HandClock())
    yield made
    await made.aclose()


def order(name: str, stage: Stage = Stage.PREPARED, direction: Direction = Direction.PAY, fee: int = 0) -> Order:
    payment = Payment(
        OperationId(name), direction, stage, 2_000_000_000, 1_900_000_000, 1, "OTHER", 5, copied=True, relays=3
    )
    return Order(
        payment, "nwc:one", name.ljust(64, "0"), EffectId("e"), 1_000, 50, "lnbc1", '{"id":1}', "p", "tea", "deposit",
        fee, "why",
    )  # fmt: skip


async def test_a_row_is_read_as_it_was_written(unit: Base) -> None:
    clock = HandClock()
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), clock)
    insert, made = book.begin(order("a"))
    await unit.commit([insert])
    assert await book.find("a") == made
    assert await book.of_hash(made.payment_hash) == made
    update, changed = book.change(made, replace(made, payment=replace(made.payment, stage=Stage.PAID), fee=7))
    await unit.commit([update])
    assert await book.find("a") == changed
    with pytest.raises(Conflict):
        await unit.commit([book.change(made, made)[0]])
    with pytest.raises(Conflict):
        await unit.commit([book.begin(replace(order("b"), payment_hash=made.payment_hash))[0]])
    assert await book.find("b") is None


async def test_a_day_is_summed_with_all_that_is_in_doubt(unit: Base) -> None:
    clock = HandClock()
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), clock)
    await unit.commit([book.begin(order("old-open", Stage.UNKNOWN))[0], book.begin(order("old-paid", Stage.PAID))[0]])
    clock.seconds += 90_000
    rows = (
        order("paid", Stage.PAID, fee=3), order("failed", Stage.FAILED), order("open"),
        order("in", Stage.WAITING, Direction.INVOICE),
    )  # fmt: skip
    await unit.commit([book.begin(one)[0] for one in rows])
    assert await book.spent_since(clock.now() - 86_400) == 1_003 + 1_050 + 1_050
    assert {one.id for one in await book.open()} == {"old-open", "open", "in"}


async def test_what_is_sealed_opens_under_its_own_seed_alone(unit: Base) -> None:
    clock = HandClock()
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), clock)
    await unit.commit([book.begin(order("a"))[0]])
    row = (await unit.select("lightning"))[0]
    assert b"lnbc1" not in bytes(row["sealed"])
    with pytest.raises(SealBroken):
        await LightningBook(unit, Vault(b"\x00" * 32), clock).find("a")


async def test_what_was_in_doubt_for_long_counts_when_it_turns_out_to_be_paid(unit: Base) -> None:
    clock = HandClock()
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), clock)
    insert, made = book.begin(order("a", Stage.UNKNOWN))
    await unit.commit([insert])
    clock.seconds += 2 * 86_400
    assert await book.spent_since(clock.now() - 86_400) == 1_050
    update, _ = book.change(made, replace(made, payment=replace(made.payment, stage=Stage.PAID), fee=7))
    await unit.commit([update])
    assert await book.spent_since(clock.now() - 86_400) == 1_007
    clock.seconds += 86_401
    assert await book.spent_since(clock.now() - 86_400) == 0


async def test_whether_a_wallet_shows_what_it_paid_is_remembered(unit: Base) -> None:
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), HandClock())
    assert not await book.shows_payments("nwc:one")
    for _ in range(2):
        await unit.commit([book.showed("nwc:one")])
    assert await book.shows_payments("nwc:one")
    assert not await book.shows_payments("nwc:two")
