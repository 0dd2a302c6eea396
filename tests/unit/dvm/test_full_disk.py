"""A buyer's disk that is full when a large result is here that it has paid for: drivers and files, in made-up time."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.error import VendoError
from core.money import MicroUsd, Msat
from dvm import seal_rule, unpacking
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest, Datum
from dvm.service import Service
from dvm.settlement import Settlement
from dvm.shipping import Shipping
from dvm.unpacking import Unpacking
from node.error import DiskLow
from node.message.error import FileUnreachable
from node.message.shelf import Shelf
from tests.model_mint import Fault
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_market import World

ASK = ComputeRequest(5050, (Datum("a long story"),), (), MicroUsd(50_000))
TEXT = "once upon a time " * 10_000
SEALED = {"proven": lambda mint: True}
MODE_A = SEALED | {"settlement": Settlement(atomic=True, modes=("A",), order_max=Msat(20_000))}
WAYS = pytest.mark.parametrize("parts", [{}, SEALED, MODE_A], ids=["locked", "sealed B", "sealed A"])


class Storyteller:
    """Answers with a text that is too long for an event."""

    name = "teller"
    kinds = frozenset({5050})

    def check(self, request: ComputeRequest) -> None:
        pass

    async def run(self, request: ComputeRequest) -> Answer:
        return Answer(TEXT)


class Attic:
    """One file server in memory; it may be away."""

    servers = ("https://attic.example",)

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.away = False

    async def has(self, server: str, x: str) -> bool:
        return x in self.blobs

    async def store(self, server: str, x: str, stored: bytes) -> None:
        self.blobs[x] = stored

    async def fetch(self, url: str, most: int, within_s: float) -> bytes:
        if self.away:
            raise FileUnreachable("It is away.")
        return self.blobs[url.rsplit("/", 1)[1]]


class Disk:
    """What a node asks before it writes."""

    full = False

    def check(self) -> None:
        if self.full:
            raise DiskLow("The disk is nearly full.")


class Inline(ThreadPoolExecutor):
    """No threads: made-up time would run away while one works."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **more))
        except VendoError as error:
            done.set_exception(error)
        return done


class Town:
    """A buyer whose disk can be full, a seller, and its file server."""

    def __init__(self, world: World, folder: Path, parts: dict[str, Any]) -> None:
        world.loop.set_default_executor(Inline())
        self.world, self.attic, self.disk, clock = world, Attic(), Disk(), world.clock
        self.buyer = world.node(**parts)
        self.seller = world.node(services=lambda: [Service(5050, Msat(9_000), Storyteller(), eta_s=1)], **parts)
        attic = self.attic
        self.seller.parcels = lambda node: (
            Shipping(attic, Shelf(folder / "sold", 1 << 30), node.keyring, clock),
            None,
        )
        self.buyer.parcels = lambda node: (
            None,
            Unpacking(attic, Shelf(folder / "bought", 1 << 30, self.disk.check), clock, node.pool.fetch),
        )

    async def open(self) -> str:
        """Both are up, and a job is bought; its id."""
        await self.seller.up()
        await self.buyer.up()
        await self.buyer.fund(200)
        return (await self.buyer.buying.buy("agent:a", "k", ASK)).job_id

    async def view(self, job_id: str) -> Any:
        return await self.buyer.buying.view(job_id)

    async def ended(self, job_id: str) -> Any:
        while not (view := await self.view(job_id)).purchase.closed:
            await self.world.clock.sleep(1)
        return view

    async def fill_when_it_is_paid(self, job_id: str) -> None:
        """The disk is full from before anything that was paid for is written."""
        if not self.buyer.settlement and self.buyer.proven("") is False:
            self.disk.full = True
            await until(self.world.clock, lambda: bool(self.attic.blobs))
            return
        while (await self.view(job_id)).purchase.state.value != "sealed":
            await self.world.clock.sleep(0.005)
        self.disk.full = True


async def read(node: Node, job_id: str) -> str:
    text = await node.buying.result(job_id)
    assert isinstance(text, str)
    return text


@WAYS
def test_what_is_paid_for_waits_for_room_on_the_disk_over_a_restart_and_long_after_the_deadline(
    tmp_path: Path, parts: dict[str, Any]
) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts)
        job_id = await town.open()
        await town.fill_when_it_is_paid(job_id)
        await world.clock.sleep(600)
        view = await town.view(job_id)
        assert not view.ended, view.to_dict()
        assert await town.seller.sat() == 9, "it is paid for"
        await town.buyer.crash()
        await town.buyer.up()
        await world.clock.sleep(300)
        view = await town.view(job_id)
        assert not view.ended, view.to_dict()
        if parts:
            told = [one for one in view.to_dict()["events"] if one["word"] == "unkept"]
            assert len(told) == 1, "said once, not at each try"
            assert "nearly full" in told[0]["detail"]
            world.mint.script = lambda call: Fault.UNREACHABLE  # nobody needs the mint for it any more
        town.disk.full = False
        view = await town.ended(job_id)
        shown = view.to_dict()
        assert (shown["state"], shown["money"], shown["verdict"]) == ("delivered", "claimed", "delivered")
        assert await read(town.buyer, job_id) == TEXT
        assert not list((tmp_path / "bought" / "out").glob("*")), "nothing is kept twice"

    World().run(tell, 20_000)


@WAYS
def test_what_finds_no_room_for_a_day_fails_with_the_true_reason_and_is_no_fault_of_the_sellers(
    tmp_path: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (seal_rule, unpacking):  # a quarter of an hour is a day here: the wallet looks up four times a second
        monkeypatch.setattr(place, "KEEP_MS", 900_000)

    async def tell(world: World) -> None:
        town = Town(world, tmp_path, parts)
        job_id = await town.open()
        await town.fill_when_it_is_paid(job_id)
        view = await town.ended(job_id)
        shown = view.to_dict()
        assert (shown["state"], shown["money"], shown["fault"]) == ("failed", "claimed", None)
        assert "could not be kept" in shown["error"]
        assert "nearly full" in shown["error"]
        assert shown["verdict"] is None
        began = shown["created_at"]
        assert 750 <= world.clock.now() - began < 1_300

    World().run(tell, 20_000)


@pytest.mark.parametrize("mode", ["A", "B"])
def test_a_sealed_result_that_finds_no_room_before_it_is_signed_for_costs_nothing(tmp_path: Path, mode: str) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, MODE_A if mode == "A" else SEALED)
        town.disk.full = True
        view = await town.ended(await town.open())
        shown = view.to_dict()
        assert shown["state"] == "failed"
        assert "could not be kept" in shown["error"]
        assert "bad" not in shown["error"]
        assert shown["money"] == ("none" if mode == "A" else "refunded")
        assert shown["verdict"] is None

    World().run(tell, 20_000)


def test_held_bytes_that_are_gone_are_fetched_again_when_their_server_is_back(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        town = Town(world, tmp_path, SEALED)
        job_id = await town.open()
        await town.fill_when_it_is_paid(job_id)
        await world.clock.sleep(30)
        for file in (tmp_path / "bought" / "out").glob("*"):
            file.unlink()
        town.attic.away, town.disk.full = True, False
        await world.clock.sleep(300)
        assert not (await town.view(job_id)).ended
        town.attic.away = False
        await town.ended(job_id)
        assert await read(town.buyer, job_id) == TEXT

    World().run(tell, 20_000)


def test_a_disk_that_seems_well_and_takes_nothing_has_the_bytes_fetched_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = 0

    class Counting(Attic):
        async def fetch(self, url: str, most: int, within_s: float) -> bytes:
            nonlocal fetched
            fetched += 1
            return await super().fetch(url, most, within_s)

    async def refused(self: Shelf, *args: object) -> None:
        raise DiskLow("The file cannot be kept: Disk quota exceeded.")

    monkeypatch.setattr("tests.unit.dvm.test_full_disk.Attic", Counting)
    monkeypatch.setattr(Shelf, "put", refused)
    monkeypatch.setattr(unpacking, "KEEP_MS", 3_600_000)

    async def tell(world: World) -> None:
        town = Town(world, tmp_path, {})
        view = await town.ended(await town.open())
        assert view.to_dict()["money"] == "claimed"
        assert 5 < fetched < 20  # in an hour

    World().run(tell, 20_000)
