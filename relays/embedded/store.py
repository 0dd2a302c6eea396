"""The event store: one writer thread with group commit, a few readers, and a fast path when nothing else is going on.

An outcome is reported only after COMMIT, and with `synchronous=FULL` (the default) COMMIT includes the fsync.
Whatever waits for the writer when it is free becomes the next group; it never waits to fill one.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from relays.embedded.error import EventFileFailed
from relays.embedded.retention import Retention
from relays.embedded.store_query import VECTOR_ITEMS, EventReader, Snapshot
from relays.embedded.store_schema import claim, connect, failing_as_file, prepare
from relays.embedded.store_search import WordIndex
from relays.embedded.store_sweep import Sweeper
from relays.embedded.store_write import Entry, EventWriter, Outcome
from relays.embedded.trait import DELETION, VANISH
from relays.filter import Filter

T = TypeVar("T")
Done = Callable[[Sequence[Entry], Sequence[Outcome]], None]

_log = logging.getLogger(__name__)

STORE_NIPS = (50, 62)  # what a relay can do because its store can: search, vanishing

_GROUP = 1_000
_SLOW = (DELETION, VANISH)  # one of them may remove many events
_GROUP_BYTES = 1 << 20  # what is stored together is sent together, to every listener
_READERS = 2
_QUICK_S = 0.002  # the loop commits by itself only while the disk is faster than this
_CHECKPOINT_BYTES = 16 << 20
_WAL_BYTES = 64 << 20  # beyond it the writer waits for a checkpoint, so that the log can start anew
_SWEPT = 500  # events removed in one transaction
_SWEEPS = 10  # such transactions in one go
_INDEXED = 250  # events whose words are indexed in one transaction
_INDEXING_S = 0.5
_SIP = 16  # the same while events come, with pauses, so that a commit waits for a millisecond or two at most
_SIP_PAUSE_S = 0.005
_FAR_BEHIND = 4_000  # from here on the words go first, or a search would have to catch up
_SOUGHT = 5_000  # events that a search indexes before it looks; more are found once the store has caught up
_COUNT_EVERY_S = 60


@dataclass(slots=True)
class StoreStats:
    """Counted since the store was opened."""

    groups: int = 0  # transactions, each with its own fsync
    stored: int = 0
    failed: int = 0


class Store:
    """The relay's own database file.

    Args:
        path: the file; it and its folder are made when they are missing.
        store_bytes: its greatest size.
        synchronous: `FULL` (fsync before each OK) or `NORMAL` (an OK survives a crash of the process, not of the
            machine).
        retention: how long events are kept.
    """

    def __init__(
        self, path: Path, *, store_bytes: int, synchronous: str = "FULL", retention: Retention | None = None
    ) -> None:
        self._path = path
        self._store_bytes = store_bytes
        self._synchronous = synchronous
        self._retention = retention or Retention()
        self._now = 0  # Unix seconds, as the relay's clock last said
        self._counted_s = 0
        self._unsettled = False  # whether the index of words is in pieces
        self._tended = 0  # the last event when the words were last tended
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Sequence[Entry] | None] = queue.SimpleQueue()
        self._commit_s = 0.0  # how long a commit takes lately
        self.stats = StoreStats()

    def open(self, done: Done) -> None:
        """Open the file and start the threads. `done` is called on the running loop for every submitted group.

        Raises:
            RelayBusy: another process serves this file.
            NewerEventFile: a newer version wrote it.
            EventFileFailed: SQLite cannot open it.
        """
        self._loop, self._done = asyncio.get_running_loop(), done
        with ExitStack() as opened, failing_as_file("opening"):
            claim(self._path, opened)
            self._db = self._connect(opened, cache_kib=65_536)
            keyed = prepare(self._db, self._path, self._store_bytes)
            self._writer = EventWriter(self._db, keyed)
            self._writer.too_old = lambda event: self._retention.refuse(event, self._now)
            self._words = WordIndex(self._writer)
            self._sweeper = Sweeper(self._writer, self._retention, self._store_bytes)
            self._checkpoint = self._connect(opened, cache_kib=1_024)
            self._idle = queue.SimpleQueue[EventReader]()
            for _ in range(_READERS):
                reader = EventReader(self._path, keyed, lambda: self._writer.kinds, lambda: self._writer.is_vanishing)
                opened.callback(reader.close)
                self._idle.put(reader)
            self._opened = opened.pop_all()
        self._readers = ThreadPoolExecutor(_READERS, "relay-read")
        self._tender = ThreadPoolExecutor(1, "relay-tend")
        self._thread = threading.Thread(target=self._write, name="relay-write", daemon=True)
        self._thread.start()

    def _connect(self, opened: ExitStack, *, cache_kib: int) -> sqlite3.Connection:
        db = connect(self._path, synchronous=self._synchronous, cache_kib=cache_kib, write=True)
        opened.callback(db.close)
        return db

    @property
    def kinds(self) -> frozenset[int]:
        """Every kind ever stored."""
        return self._writer.kinds

    @property
    def total(self) -> int:
        """How many events are stored."""
        return self._writer.total

    def answers_to(self, urls: Collection[str]) -> None:
        """The relay's own addresses, canonical: requests to vanish (NIP-62) that name one of them are obeyed."""
        self._writer.urls = frozenset(urls)

    async def close(self) -> None:
        """Store what was submitted, put the log back into the file, let go of it."""
        self._queue.put(None)
        await self._loop.run_in_executor(self._readers, self._thread.join)
        self._readers.shutdown()
        self._tender.shutdown()
        with self._opened:
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error:  # the log is still there and is read at the next start
                _log.warning("the last checkpoint failed", extra={"action": "relay_checkpoint_failed"})

    # -- writing --------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Entry]) -> None:
        """Hand a group to the writer thread."""
        self._queue.put(entries)

    def commit_now(self, entries: Sequence[Entry]) -> list[Outcome] | None:
        """Store a few events on the calling thread, saving two hand-overs. None if the writer is busy or slow."""
        if any(entry.event.kind in _SLOW for entry in entries):
            return None
        if self._commit_s > _QUICK_S or not self._queue.empty() or not self._lock.acquire(blocking=False):
            self._commit_s *= 0.98  # so that one slow moment is forgotten
            return None
        try:
            return self._commit(entries)
        finally:
            self._lock.release()

    def _write(self) -> None:
        ended = False
        while not ended:
            first = self._queue.get()
            if first is None:
                return
            group, size = list(first), _bytes(first)
            while len(group) < _GROUP and size < _GROUP_BYTES and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ended = True
                    break
                group += more
                size += _bytes(more)
            with self._lock:
                outcomes = self._commit(group)
            self._loop.call_soon_threadsafe(self._done, group, outcomes)

    def _commit(self, entries: Sequence[Entry]) -> list[Outcome]:
        started = time.perf_counter()
        try:
            outcomes = self._writer.commit(entries)
        except sqlite3.Error as error:
            self.stats.failed += len(entries)
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            _log.error("events were not stored", extra={"action": "relay_store_failed", "sqlite": name})
            full = name == "SQLITE_FULL"
            return [Outcome(None, False, f"error: {'the relay is full' if full else 'could not store'}")] * len(entries)
        self._commit_s += (time.perf_counter() - started - self._commit_s) / 8
        self.stats.groups += 1
        self.stats.stored += sum(outcome.seq is not None for outcome in outcomes)
        return outcomes

    # -- reading --------------------------------------------------------------------------------------------------

    async def snapshot(self, filters: Sequence[Filter], now: int) -> Snapshot:
        """What is stored and meets one of the filters; see `EventReader.snapshot` for order and errors."""
        if self._words.behind and any(wanted.search for wanted in filters):
            await self._loop.run_in_executor(self._tender, self._index, _SOUGHT, False)
        return await self._loop.run_in_executor(
            self._readers, self._read, lambda reader: reader.snapshot(filters, now), now
        )

    async def page(self, seqs: Sequence[int], now: int) -> list[bytes]:
        """The texts of some of a snapshot's events."""
        return await self._loop.run_in_executor(self._readers, self._read, lambda reader: reader.page(seqs, now), now)

    async def count(self, filters: Sequence[Filter], now: int) -> int:
        """How many stored events meet one of the filters."""
        return await self._loop.run_in_executor(self._readers, self._read, lambda reader: reader.count(filters), now)

    async def vector(self, filters: Sequence[Filter], now: int, most: int = VECTOR_ITEMS) -> list[tuple[int, str]]:
        """`created_at` and id of what meets one of the filters (NIP-77); see `EventReader.vector`."""
        return await self._loop.run_in_executor(
            self._readers, self._read, lambda reader: reader.vector(filters, most), now
        )

    def _read(self, ask: Callable[[EventReader], T], now: int) -> T:
        if self._writer.next_expiry <= now:  # or expired events would use up the answer's limit
            self._repeat(lambda: self._sweeper.expired(now, _SWEPT), 1)
        reader = self._idle.get()
        try:
            return ask(reader)
        finally:
            self._idle.put(reader)

    # -- upkeep ---------------------------------------------------------------------------------------------------

    async def tend(self, now: int) -> None:
        """Remove what may go, index words, bring the log back into the file. To be called every second or so.

        Raises:
            EventFileFailed: the writer has ended by a fault of ours; who runs the relay starts it again.
        """
        if not self._thread.is_alive():
            raise EventFileFailed("The relay's writer has ended.")
        self._now = now
        await self._loop.run_in_executor(self._tender, self._tend, now)

    def _tend(self, now: int) -> None:
        self._shrink(now)
        self._index(None, True)
        try:
            if self._log_bytes() > _CHECKPOINT_BYTES:
                self._checkpoint.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if self._log_bytes() > _WAL_BYTES:
                with self._lock:  # nothing is added meanwhile, so the next commit begins a new log
                    self._checkpoint.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error:
            _log.warning("a checkpoint failed", extra={"action": "relay_checkpoint_failed"})

    def _log_bytes(self) -> int:
        log = self._path.with_name(self._path.name + "-wal")
        return log.stat().st_size if log.exists() else 0

    def _shrink(self, now: int) -> None:
        if self._writer.next_expiry <= now:
            self._repeat(lambda: self._sweeper.expired(now, _SWEPT))
        self._repeat(lambda: self._sweeper.vanished(_SWEPT))
        self._repeat(lambda: self._sweeper.aged(now, _SWEPT))
        self._repeat(lambda: self._sweeper.trimmed(_SWEPT))
        if abs(now - self._counted_s) >= _COUNT_EVERY_S:  # to find the surplus, as many index rows as are kept are read
            self._counted_s = now
            self._repeat(lambda: self._sweeper.surplus(_SWEPT))

    def _repeat(self, sweep: Callable[[], int], most: int = _SWEEPS) -> None:
        """Sweep until nothing is left, at most so many times; others may write in between."""
        try:
            for _ in range(most):
                with self._lock:
                    removed = sweep()
                if removed < _SWEPT:
                    return
        except sqlite3.Error:  # a full disk; readers leave expired events and vanished authors out anyway
            _log.warning("events were not removed", extra={"action": "relay_sweep_failed"})

    def _index(self, most: int | None, patiently: bool) -> None:
        """Index words, for a while or up to so many events; `patiently` lets everything else go first.

        While events come, a little is indexed at a time, and nothing is joined: whoever publishes meanwhile waits for
        the same lock.
        """
        deadline, done = time.monotonic() + _INDEXING_S, 0
        quiet = self._tended == self._writer.seq
        step = _INDEXED if quiet or not patiently or self._words.behind > _FAR_BEHIND else _SIP
        if patiently:
            self._tended = self._writer.seq
        try:
            while self._words.behind and (most is None or done < most) and time.monotonic() < deadline:
                if patiently and not self._queue.empty():
                    return
                with self._lock:
                    self._words.catch_up(step)
                done, self._unsettled = done + step, True
                if step == _SIP:
                    time.sleep(_SIP_PAUSE_S)
            while patiently and quiet and self._unsettled and self._queue.empty() and time.monotonic() < deadline:
                with self._lock:
                    self._unsettled = self._words.settle()
        except sqlite3.Error:  # the words are indexed when there is room again
            _log.warning("words were not indexed", extra={"action": "relay_index_failed"})


def _bytes(entries: Sequence[Entry]) -> int:
    return sum(len(entry.raw) for entry in entries)
