"""A seller's file servers are not filled by whoever orders work and does not pay for it (mode A, M7)."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.money import Msat
from dvm.settlement import Settlement
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
