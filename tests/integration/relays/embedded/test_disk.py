"""What the event store asks of the disk: one sync for each acknowledged group; a full or a failing disk says so."""

import asyncio

import pytest

from relays.embedded.store import Store
from relays.filter import Filter
from tests.fsync_part import MAIN, WAL, watched_disk
from tests.integration.relays.embedded.relay_part import running
from tests.unit.relays.embedded.event_part import NOW, note
from tests.unit.relays.embedded.test_store import entries

FULL, IOERR_WRITE, IOERR_FSYNC = 13, 10 | 3 << 8, 10 | 4 << 8


@pytest.fixture
def disk():
    with watched_disk() as watched:
        yield watched


async def opened(path, told):
    store = Store(path, store_bytes=1 << 30)
    store.open(told)
    return store


async def test_every_acknowledged_group_was_synced_first(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("relays.embedded.store._QUICK_S", 60.0)
    synced = []
    store = await opened(tmp_path / "relay.db", lambda group, _outcomes: synced.append((len(group), disk.syncs[WAL])))
    try:
        before, groups = disk.syncs[WAL], store.stats.groups
        for number in range(20):  # on the loop
            assert store.commit_now(entries(note(content=str(number))))
            assert disk.syncs[WAL] - before == number + 1
        for number in range(300):  # by the thread, in groups of its own making
            store.submit(entries(note(content=f"group {number}")))
        while sum(size for size, _ in synced) < 300:
            await asyncio.sleep(0.005)
        done = store.stats.groups - groups
        assert disk.syncs[WAL] - before == done
        assert 20 < done <= 320
        assert all(count - before >= 20 + number for number, (_, count) in enumerate(synced, 1))
    finally:
        await store.close()


async def test_reading_syncs_nothing_and_words_sync_on_their_own_account(disk, tmp_path):
    told = asyncio.Event()
    store = await opened(tmp_path / "relay.db", lambda _group, _outcomes: told.set())
    try:
        store.submit(entries(note(content="kiwi")))
        await told.wait()
        before = disk.syncs[WAL]
        await store.snapshot([Filter()], NOW)
        await store.count([Filter()], NOW)
        await store.vector([Filter()], NOW)
        assert disk.syncs[WAL] == before
        assert len((await store.snapshot([Filter(search="kiwi")], NOW)).seqs) == 1
        assert disk.syncs[WAL] == before + 1
        assert store.stats.groups == 1
    finally:
        await store.close()


@pytest.mark.parametrize(("code", "word"), [(FULL, "the relay is full"), (IOERR_WRITE, "could not store")])
async def test_a_disk_that_takes_nothing_refuses_with_a_reason_and_recovers(disk, tmp_path, code, word):
    async with running(tmp_path / "relay.db") as relay:
        wire = await relay.connect()
        kept, lost, later = (note(content=text) for text in ("kept", "lost", "later"))
        assert (await wire.publish(kept))[0]
        disk.failing, disk.failing_write = WAL, code
        accepted, reason = await wire.publish(lost)
        assert (accepted, reason) == (False, f"error: {word}")
        assert await wire.ask({"ids": [kept.id, lost.id]}) == [kept.id]  # it still answers
        disk.failing_write = 0
        assert (await wire.publish(later))[0]
        assert (await wire.publish(lost))[0]  # what was refused may be sent again
        assert set(await wire.ask({})) == {kept.id, lost.id, later.id}


async def test_an_event_whose_sync_failed_is_not_acknowledged(disk, tmp_path):
    async with running(tmp_path / "relay.db") as relay:
        wire = await relay.connect()
        disk.failing, disk.failing_sync = WAL, IOERR_FSYNC
        accepted, reason = await wire.publish(note())
        assert (accepted, reason.partition(":")[0]) == (False, "error")
        disk.failing_sync = 0
        assert (await wire.publish(note(content="after")))[0]


async def test_a_checkpoint_that_fails_loses_nothing(disk, tmp_path, monkeypatch):
    monkeypatch.setattr("relays.embedded.store._CHECKPOINT_BYTES", 0)
    store = await opened(tmp_path / "relay.db", lambda _group, _outcomes: None)
    events = [note(content="x" * 5_000, at=NOW + n) for n in range(40)]
    disk.failing, disk.failing_write = MAIN, FULL
    for event in events:
        store.submit(entries(event))
    await store.tend(NOW)
    await store.close()
    disk.failing_write = 0
    again = await opened(tmp_path / "relay.db", lambda _group, _outcomes: None)
    try:
        assert {event_id for _, event_id in await again.vector([Filter()], NOW)} == {event.id for event in events}
    finally:
        await again.close()
