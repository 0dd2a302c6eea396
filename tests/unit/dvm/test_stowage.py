"""A seller's file servers are not filled by whoever orders work and does not pay for it (mode A, M7)."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.money import Msat
from dvm.settlement import Settlement
from dvm.view import PurchaseView
from relays.blob import TAG_BYTES
from tests.unit.dvm.market_part import until
from tests.unit.dvm.test_full_disk import ASK, TEXT, Town
from tests.unit.dvm.test_market import World, bought, freeze

ROOM = Settlement(atomic=True, modes=("A",), order_max=Msat(20_000), ban_s=0, order_bytes=len(TEXT) + 1_000)


def parts(settlement: Settlement) -> dict[str, object]:
    return {"proven": lambda mint: True, "settlement": settlement}


async def left_unpaid(town: Town) -> None:
    """Work that its customer has had done, and never paid."""
    frozen = freeze(town.buyer, "purchase", "paying")
    await town.open()
    await frozen.wait()
    await town.buyer.crash()
    await until(town.world.clock, lambda: not town.seller.selling.open_count(), 200)
    assert [row["state"] for row in await town.seller.selling.list_sales()] == ["lost"]
    assert len(town.attic.blobs) == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_customer_that_leaves_results_unpaid_has_no_more_of_them_stored_even_after_a_restart(
    tmp_path: Path, again: bool
) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts(ROOM))
        await left_unpaid(town)
        if again:
            await town.seller.crash()
            await town.seller.up()
        await town.buyer.up()
        await bought(town.buyer, ASK)  # the first one ends, and its money is back
        view = await bought(town.buyer, ASK, key="again")
        shown = view.to_dict()
        assert (shown["state"], shown["money"]) == ("failed", "none")
        assert "too large to be stored here before it is paid for" in shown["error"]
        assert len(town.attic.blobs) == 1

    World().run(tell, 20_000)


def test_all_keys_together_leave_no_more_than_is_allowed_in_all(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts(replace(ROOM, orders=1)))
        other = world.node(**parts(ROOM))
        other.parcels = town.buyer.parcels
        await left_unpaid(town)
        await other.up()
        await other.fund(200)
        view = await bought(other, ASK)
        assert (view.state, view.to_dict()["money"]) == ("failed", "none")
        assert len(town.attic.blobs) == 1
        await world.clock.sleep(1)

    World().run(tell, 20_000)


def test_who_pays_has_its_next_result_stored(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts(ROOM))
        await town.ended(await town.open())
        await until(world.clock, lambda: not town.seller.selling.open_count(), 200)
        view = await bought(town.buyer, ASK, key="again")
        assert (view.state, view.to_dict()["mode"]) == ("delivered", "A")
        assert len(town.attic.blobs) == 2

    World().run(tell, 20_000)


def test_work_that_could_not_be_handed_over_unpaid_is_not_done_again_before_it_is_paid(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        narrow = replace(ROOM, order_bytes=1_000, ban_s=86_400)
        town = Town(world, tmp_path, parts(narrow))
        view = await bought_in(town)
        assert (view.state, view.to_dict()["money"]) == ("failed", "none")
        view = await bought(town.buyer, ASK, key="again")
        shown = view.to_dict()
        assert (shown["state"], shown["mode"], shown["money"]) == ("delivered", None, "claimed")

    World().run(tell, 20_000)


def test_where_no_room_is_left_at_all_the_money_comes_first(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        full = replace(ROOM, order_bytes=len(TEXT) + TAG_BYTES)
        town = Town(world, tmp_path, parts(full))
        await left_unpaid(town)
        await town.buyer.up()
        await bought(town.buyer, ASK)
        view = await bought(town.buyer, ASK, key="again")
        assert (view.state, view.to_dict()["mode"]) == ("delivered", None)

    World().run(tell, 20_000)


def test_what_fits_an_event_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.dvm.test_full_disk.TEXT", "once upon a time " * 2_100)

    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts(replace(ROOM, order_bytes=0)))
        view = await bought_in(town)
        assert (view.state, view.to_dict()["mode"]) == ("delivered", "A")
        assert not town.attic.blobs

    World().run(tell, 20_000)


async def bought_in(town: Town) -> PurchaseView:
    """Both are up, and a job is bought and ended."""
    await town.open()
    return await bought(town.buyer, ASK)
