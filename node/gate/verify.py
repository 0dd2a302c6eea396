"""Walking a ledger: is every entry signed, in its place, and does every effect begin once and end once? Pure.

It needs the entries alone, so it works on a running node, on a stopped one, and on a copy.
"""

from collections.abc import AsyncIterator, Generator, Iterable
from dataclasses import dataclass, field
from types import coroutine

from core.error import VendoError
from core.identifier import PubKey
from core.unit import Row
from node.gate.ledger import entry_tags
from relays.event import Event, parse_json, verify
from relays.kind import LEDGER_ENTRY

_TYPES = ("root", "begin", "commit", "fail", "unknown")
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """The first entry that is wrong, and why."""

    run: str
    seq: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk found. `open` are effects that were begun and have not ended; of these, `unknown` are parked."""

    entries: int
    runs: int
    effects: int
    open: tuple[str, ...]
    unknown: tuple[str, ...]
    problem: Problem | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


@dataclass(slots=True)
class Walk:
    """Takes entries in the order in which they were written, runs interleaved as they come.

    Without an `author`, the first entry's is taken, and every other must be the same.
    """

    author: PubKey | None = None
    entries: int = 0
    problem: Problem | None = None
    _heads: dict[str, tuple[int, str, int]] = field(default_factory=dict)  # run → next seq, id, time of its last entry
    _effects: dict[str, str] = field(default_factory=dict)  # effect → type of its last entry

    def feed(self, row: Row) -> bool:
        """Check the next entry; false if it is wrong, and then nothing more is taken."""
        if self.problem is not None:
            return False
        reason = self._wrong(row)
        if reason is not None:
            self.problem = Problem(str(row.get("run")), int(row.get("seq") or 0), str(row.get("id")), reason)
            return False
        self.entries += 1
        return True

    def _wrong(self, row: Row) -> str | None:
        try:
            event = parse_json(row["raw"])
            verify(event)
        except VendoError as error:
            return error.message
        return self._misplaced(row, event) or self._out_of_turn(row["type"], row["effect_id"])

    def _misplaced(self, row: Row, event: Event) -> str | None:
        run, seq, prev = row["run"], row["seq"], row["prev"]
        next_seq, last, at = self._heads.get(run, (0, "", 0))
        if self.author is None:
            self.author = event.pubkey
        if event.pubkey != self.author:
            return "It was signed by another key."
        if event.kind != LEDGER_ENTRY or event.id != row["id"]:
            return "The row shows another event."
        if event.tags != entry_tags(run, seq, prev, row["type"], row["effect_id"]):
            return "The row's columns are not what was signed."
        if seq != next_seq:
            return f"Entry {next_seq} of the run is missing." if seq > next_seq else "The place in the run is taken."
        if prev != last:
            return "It does not follow the entry before it."
        if event.created_at < at:
            return "It is older than the entry before it."
        if (row["type"] == "root") != (seq == 0):
            return "A run begins with its root, and has only one."
        self._heads[run] = (seq + 1, event.id, event.created_at)
        return None

    def _out_of_turn(self, type_: str, effect: str) -> str | None:
        if type_ not in _TYPES:
            return f"There is no type of entry {type_!r}."
        if type_ == "root":
            return None
        before = self._effects.get(effect)
        if type_ == "begin":
            if before is not None:
                return "The effect was begun before."
        elif before is None:
            return "The effect ends and was never begun."
        elif before in ("commit", "fail"):
            return f"The effect had already ended as {before}."
        elif before == type_:
            return f"The effect is {type_} twice."
        self._effects[effect] = type_
        return None

    def report(self) -> Report:
        """What was found so far."""
        parked = tuple(effect for effect, last in self._effects.items() if last == "unknown")
        waiting = tuple(effect for effect, last in self._effects.items() if last in ("begin", "unknown"))
        return Report(self.entries, len(self._heads), len(self._effects), waiting, parked, self.problem)


def verify_rows(rows: Iterable[Row], author: PubKey | None = None) -> Report:
    """Walk entries that are in order of `n`. About 30 µs for each."""
    walk = Walk(author)
    for row in rows:
        if not walk.feed(row):
            break
    return walk.report()


@coroutine
def _turn() -> Generator[None]:
    """Let other tasks run. A bare yield is what every event loop takes for that; this module imports none."""
    yield


async def _spread(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for number, row in enumerate(rows):
        if number % _AT_ONCE == _AT_ONCE - 1:
            await _turn()
        yield row


async def verify_ledger(rows: Iterable[Row], author: PubKey | None = None) -> Report:
    """As `verify_rows`, without holding up the loop that it runs on."""
    walk = Walk(author)
    async for row in _spread(rows):
        if not walk.feed(row):
            break
    return walk.report()
