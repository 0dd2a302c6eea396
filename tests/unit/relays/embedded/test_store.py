import asyncio
import stat

import pytest

from relays.embedded.error import EventFileFailed, NewerEventFile, QueryTooBroad, RelayBusy
from relays.embedded.retention import retention
from relays.embedded.store import Store
from relays.embedded.store_schema import connect
from relays.embedded.store_write import Entry
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import NOW, note


def entries(*events):
    return [Entry(event, event.to_json().encode(), None) for event in events]


class Done:
    def __init__(self):
        self.outcomes = []
        self.told = asyncio.Event()

    def __call__(self, _entries, outcomes):
        self.outcomes += outcomes
        self.told.set()


@pytest.fixture(autouse=True)
def _any_disk_is_quick(monkeypatch):
    """So that `commit_now` depends on the test alone."""
    monkeypatch.setattr("relays.embedded.store._QUICK_S", 60.0)


@pytest.fixture
async def store(tmp_path):
    made = Store(tmp_path / "relay.db", store_bytes=1 << 30)
    made.done = Done()
    made.open(made.done)
    yield made
    await made.close()


async def test_what_waits_together_is_one_group(store):
    with store._lock:  # the writer is held up as by a slow disk
        for number in range(50):
            store.submit(entries(note(content=str(number))))
        await asyncio.sleep(0.02)
        assert store.commit_now(entries(note(content="quick"))) is None
    while len(store.done.outcomes) < 50:
        await store.done.told.wait()
        store.done.told.clear()
    assert store.stats.stored == 50
    assert store.stats.groups <= 2  # the writer may have taken the first alone


async def test_a_quiet_store_commits_at_once_and_a_reader_sees_it(store):
    outcomes = store.commit_now(entries(note()))
    assert outcomes is not None
    snapshot = await store.snapshot([Filter()], NOW)
    assert (snapshot.top, len(snapshot.first)) == (outcomes[0].seq, 1)


async def test_a_slow_disk_moves_commits_off_the_loop_for_a_while(store):
    store._commit_s = 100.0
    tries = [store.commit_now(entries(note())) is not None for _ in range(40)]
    assert not any(tries[:20])
    assert tries[-1]


async def test_one_file_has_one_process(store, tmp_path):
    with pytest.raises(RelayBusy):
        Store(tmp_path / "relay.db", store_bytes=1 << 30).open(Done())


async def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EventFileFailed, match=r"relay\.db"):
        Store(tmp_path / "file" / "relay.db", store_bytes=1 << 30).open(Done())


async def test_the_file_is_private(store, tmp_path):
    store.commit_now(entries(note()))
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_closing_stores_what_was_submitted(tmp_path):
    done = Done()
    store = Store(tmp_path / "relay.db", store_bytes=1 << 30)
    store.open(done)
    for number in range(30):
        store.submit(entries(note(content=str(number))))
    await store.close()
    await asyncio.sleep(0)
    assert len(done.outcomes) == 30
    again = Store(tmp_path / "relay.db", store_bytes=1 << 30)
    again.open(done)
    assert again.total == 30
    await again.close()


async def test_a_full_file_refuses_with_a_reason_and_still_answers(tmp_path):
    store = Store(tmp_path / "relay.db", store_bytes=64 * 4096)
    store.open(Done())
    refused = None
    for number in range(40):
        [refused] = store.commit_now(entries(note(content="x" * 30_000, at=NOW + number))) or [None]
    assert refused is not None
    assert (refused.accepted, refused.reason) == (False, "error: the relay is full")
    assert (await store.snapshot([Filter(limit=3)], NOW)).first
    await store.close()


async def test_a_query_sweeps_what_has_expired_first(store):
    store.commit_now(entries(note(), note(at=NOW + 1, with_tags=[("expiration", str(NOW + 2))])))
    assert len((await store.snapshot([Filter(limit=1)], NOW + 3)).first) == 1
    assert store.total == 1


async def test_the_log_is_brought_back_into_the_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr("relays.embedded.store._CHECKPOINT_BYTES", 0)
    monkeypatch.setattr("relays.embedded.store._WAL_BYTES", 0)
    before = (tmp_path / "relay.db").stat().st_size
    for number in range(50):
        store.commit_now(entries(note(content="x" * 10_000, at=NOW + number)))
    await store.tend(NOW)
    assert (tmp_path / "relay.db").stat().st_size > before + 400_000


def test_a_newer_file_is_refused(tmp_path):
    path = tmp_path / "relay.db"
    connect(path, write=True).execute("PRAGMA user_version=99")

    async def opened():
        with pytest.raises(NewerEventFile):
            Store(path, store_bytes=1 << 30).open(Done())

    asyncio.run(opened())
    connect(path, write=True).execute("PRAGMA user_version=0")

    async def reopened():
        store = Store(path, store_bytes=1 << 30)
        store.open(Done())  # the refusal let go of the file
        await store.close()

    asyncio.run(reopened())


async def test_a_search_finds_what_was_stored_just_now(store):
    store.commit_now(entries(note(content="fresh kiwi")))
    assert len((await store.snapshot([Filter(search="kiwi")], NOW)).seqs) == 1


async def test_words_are_indexed_behind_the_writer_and_put_together(store):
    for number in range(40):
        store.commit_now(entries(note(content=f"kiwi {number}")))
    assert store._words.behind == 40
    await store.tend(NOW)
    assert store._words.behind == 0
    assert store._unsettled  # while events come nothing is joined, for whoever publishes would wait for it
    await store.tend(NOW)
    assert not store._unsettled


async def test_tending_removes_what_may_go(tmp_path):
    kept = retention([{"kinds": [1], "time": 100}, {"kinds": [7], "count": 2}])
    store = Store(tmp_path / "relay.db", store_bytes=1 << 30, retention=kept)
    store.open(Done())
    try:
        old, reactions = note(at=NOW - 200), [note(kind=7, at=NOW + n) for n in range(5)]
        short = note(kind=42, with_tags=[("expiration", str(NOW + 1))])
        for event in (old, short, *reactions):
            assert store.commit_now(entries(event))[0].accepted
        await store.tend(NOW + 1)
        assert store.total == 2
        [refused] = store.commit_now(entries(note(at=NOW - 300)))
        assert (refused.accepted, refused.reason.partition(":")[0]) == (False, "invalid")
    finally:
        await store.close()


async def test_tending_finishes_what_a_vanished_author_left(store, monkeypatch):
    monkeypatch.setattr("relays.embedded.store_write._VANISHED_AT_ONCE", 3)
    store.answers_to({"wss://relay.example"})
    for number in range(10):
        store.commit_now(entries(note(content=str(number))))
    store.submit(entries(note(kind=62, at=NOW + 9, with_tags=[("relay", "wss://relay.example")])))
    await store.done.told.wait()
    assert store.total == 8
    assert len((await store.snapshot([Filter()], NOW)).first) == 1
    await store.tend(NOW)
    assert store.total == 1


@pytest.mark.parametrize("kind", [5, 62])
async def test_what_may_remove_much_is_left_to_the_thread(store, kind):
    assert store.commit_now(entries(note(kind=kind))) is None


async def test_a_reconciliation_has_a_bound(store):
    for number in range(5):
        store.commit_now(entries(note(content=str(number))))
    assert len(await store.vector([Filter(limit=1)], NOW)) == 5
    with pytest.raises(QueryTooBroad):
        await store.vector([Filter()], NOW, 4)
