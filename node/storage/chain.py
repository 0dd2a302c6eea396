"""Where the next ledger entry of a run goes. Pure; used by all databases.

The place is taken when the entry is sealed and given back when its unit is rolled back, so that a refused unit
leaves no gap and two units of one group follow each other.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import orjson

from core.clock import Clock
from core.unit import Append, Row


class Head(NamedTuple):
    """The place for one more entry: its number in the run, the id of the entry before it ("" for the first).

    `at` is its time in Unix seconds, never before the time of the entry before it.
    """

    run: str
    seq: int
    prev: str
    at: int


Seal: TypeAlias = Callable[[Head, Append], Row]
"""Makes the row of table `entry` for an entry at this place (all columns but `n`)."""


def unsigned_seal(head: Head, entry: Append) -> Row:
    """Entries without a signature, chained by a hash. For databases that hold no real ledger (simulations, tests)."""
    raw = orjson.dumps(
        {"run": head.run, "seq": head.seq, "prev": head.prev, "created_at": head.at, "body": entry.body}
    ).decode()
    return {
        "run": head.run,
        "seq": head.seq,
        "id": hashlib.sha256(raw.encode()).hexdigest(),
        "prev": head.prev,
        "type": entry.type,
        "effect_id": entry.effect_id,
        "raw": raw,
    }


class Chain:
    """The heads of all runs, kept in memory by the one writer."""

    def __init__(self, seal: Seal, clock: Clock, newest: Callable[[str], Row | None]) -> None:
        """`newest` finds the last row of a run in the database, as it stands then."""
        self._seal, self._clock, self._newest = seal, clock, newest
        self._heads: dict[str, Head] = {}
        self._undo: list[tuple[str, Head]] = []
        self._kept = 0

    def _head(self, run: str) -> Head:
        """Where the run ends in the database."""
        last = self._newest(run)
        if last is None:
            return Head(run, 0, "", 0)
        return Head(run, int(last["seq"]) + 1, str(last["id"]), int(orjson.loads(last["raw"])["created_at"]))

    def append(self, entry: Append) -> Row:
        """Seal an entry at the end of its run and move the head."""
        run = entry.run
        head = self._heads.get(run) or self._head(run)
        at = max(head.at, self._clock.now())
        row = self._seal(Head(run, head.seq, head.prev, at), entry)
        self._undo.append((run, head))
        self._heads[run] = Head(run, head.seq + 1, row["id"], at)
        return row

    @property
    def mark(self) -> int:
        """How many places were taken so far, less those that were given back."""
        return self._kept + len(self._undo)

    def keep(self, mark: int | None = None) -> None:
        """What was appended stays: all of it, or as far as a mark."""
        count = len(self._undo) if mark is None else mark - self._kept
        del self._undo[:count]
        self._kept += count

    def give_back(self, mark: int | None = None) -> None:
        """What was appended since `keep`, or since a mark, was rolled back: its places are free again."""
        least = 0 if mark is None else mark - self._kept
        while len(self._undo) > least:
            run, head = self._undo.pop()
            self._heads[run] = head

    def forget(self) -> None:
        """What is in the database is not known any more: look again."""
        self._undo.clear()
        self._heads.clear()
