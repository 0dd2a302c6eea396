"""When the disk counts as nearly full, and what is refused then."""

import asyncio
from pathlib import Path

import pytest

from core.effect import Outcome, OutcomeState, Staged
from core.error import Paused, Unavailable
from node.agent.inbox.intake import Intake
from node.agent.inbox.row import envelope
from node.disk import LOOK_S, REFUSED_S, Disk, free_bytes, writers_of
from node.error import DiskLow
from node.message.shelf import Shelf
from tests.gate_part import SetClock, intent, memory, open_gate
from tests.wallet_part import HandClock

MB = 1 << 20
HOME, DATA = Path("/home"), Path("/data")


class Places:
    """File systems whose room a test sets."""

    def __init__(self, **free: int) -> None:
        self.free = {Path(f"/{name}"): room for name, room in free.items()}
        self.asked = 0

    def __call__(self, place: Path) -> int:
        self.asked += 1
        if place not in self.free:
            raise FileNotFoundError(place)
        return self.free[place]


def disk_of(places: Places, least: int = 100 * MB) -> tuple[Disk, HandClock]:
    clock = HandClock()
    return Disk([HOME, DATA], clock, least, places), clock


async def test_one_place_with_too_little_room_is_enough():
    for free in ({"home": 99 * MB, "data": 999 * MB}, {"home": 999 * MB, "data": 99 * MB}):
        disk, _ = disk_of(Places(**free))
        assert not disk.low
        await disk.look()
        assert disk.low
        assert "99 MiB" in (await disk.ready() or "")
        with pytest.raises(DiskLow, match="99 MiB"):
            disk.check()


async def test_it_goes_on_by_itself_with_a_quarter_more_room_than_the_limit():
    places = Places(home=99 * MB, data=999 * MB)
    disk, _ = disk_of(places)
    await disk.look()
    for free, low in ((101, True), (124, True), (125, False), (101, False), (100, False), (99, True)):
        places.free[HOME] = free * MB
        await disk.look()
        assert disk.low is low, free
    places.free[HOME] = 200 * MB
    await disk.look()
    assert await disk.ready() is None
    disk.check()


async def test_a_refused_write_counts_at_once_and_for_a_while():
    disk, clock = disk_of(Places(home=999 * MB, data=999 * MB))
    called = []
    disk.on_low(lambda: called.append(1))
    disk.full()
    assert disk.low
    assert called == [1]
    assert "full" in (await disk.ready() or "")
    await disk.look()
    assert disk.low, "there seems to be room: a quota, or a server's disk"
    clock.seconds += REFUSED_S + 1
    await disk.look()
    assert not disk.low
    assert disk.facts()["refused_writes"] == 1


async def test_a_limit_of_nothing_leaves_only_refused_writes():
    disk, clock = disk_of(Places(home=0, data=0), least=0)
    await disk.look()
    assert not disk.low
    disk.full()
    assert disk.low
    clock.seconds += REFUSED_S + 1
    await disk.look()
    assert not disk.low


async def test_a_place_that_cannot_be_asked_does_not_stop_the_node():
    disk, _ = disk_of(Places(home=999 * MB))
    await disk.look()
    assert not disk.low
    assert disk.facts()["free_bytes"] == {"/home": 999 * MB}


async def test_it_looks_every_few_seconds_and_at_once_after_a_refused_write():
    places, clock = Places(home=999 * MB, data=999 * MB), SetClock()
    disk = Disk([HOME], clock, 100 * MB, places)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(disk.run(ready, stop))
    await ready.wait()
    assert places.asked == 1
    places.free[HOME] = 1 * MB
    async with asyncio.timeout(10):
        while not disk.low:
            clock.at += int(LOOK_S)
            await asyncio.sleep(0.005)
        before = places.asked
        disk.full()
        while places.asked == before:
            await asyncio.sleep(0.001)
    stop.set()
    await running


def test_a_place_is_asked_for_real(tmp_path):
    assert free_bytes(tmp_path) > 0
    with pytest.raises(OSError, match="No such file"):
        free_bytes(tmp_path / "absent")
    assert writers_of(tmp_path, tmp_path / "x" / "node.db") == [tmp_path, tmp_path / "x"]
    assert writers_of(None, "postgresql://somewhere/else") == []


# ---- what is refused, and what is not


async def test_nothing_new_is_begun_and_what_is_open_is_finished():
    clock = SetClock()
    unit = memory(clock)
    gate = await open_gate(unit, clock)
    full = False
    gate.is_full = lambda: full
    opened = await gate.begin(intent("open"))
    assert isinstance(opened, Staged)
    full = True
    with pytest.raises(DiskLow):
        await gate.stage(intent("new"))
    again = await gate.stage(intent("open"))
    assert again.effect_id == opened.effect_id, "what was begun is still known under its key"
    gate.check(gate.permit(opened.effect_id))
    await unit.commit(await gate.allocate(opened.effect_id, "ab" * 32, intent(reserve=5).reserve))
    await unit.commit(await gate.settle(opened.effect_id, Outcome(OutcomeState.COMMIT, intent(reserve=5).reserve)))
    assert await gate.open_effects() == []
    full = False
    assert isinstance(await gate.stage(intent("new")), Staged)


def test_a_tick_waits_for_it_as_for_a_pause_and_a_relay_is_asked_again():
    error = DiskLow()
    assert isinstance(error, Paused)
    assert isinstance(error, Unavailable)
    assert (error.code, error.status) == ("node.disk_low", 507)


async def test_messages_from_outside_are_refused_and_what_the_node_says_itself_is_not():
    clock = SetClock()
    intake = Intake(memory(clock), clock)
    disk = Disk([HOME], clock, 100 * MB, Places(home=1))
    intake.check = disk.check
    await disk.look()
    for source in ("nostr", "control-plane", "webhook"):
        with pytest.raises(DiskLow):
            async with intake.room(letter(source)):
                raise AssertionError("it was let in")
    for source in ("market", "wallet", "scheduler", "node"):
        async with intake.room(letter(source)) as writes:
            assert len(writes) == 1


def letter(source: str):
    return envelope("a", f"e-{source}", cause="message", source=source, sender="", payload="{}", at=1)


async def test_no_file_is_kept_and_none_is_fetched_while_the_disk_is_nearly_full(tmp_path):
    places = Places(home=99 * MB, data=999 * MB)
    disk, _ = disk_of(places)
    shelf = Shelf(tmp_path / "files", 1 << 20, disk.check)
    await shelf.put("a", "ab" * 32, b"before")
    await disk.look()
    for keep in (shelf.put("a", "cd" * 32, b"x"), shelf.hold("ef" * 32, b"x")):
        with pytest.raises(DiskLow):
            await keep
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ab" * 32]
    assert await shelf.get("a", "ab" * 32) == b"before", "what is there is there"
