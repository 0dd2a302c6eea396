"""Opening wraps costs a curve operation each, and anybody may send them: a budget, and a fair queue beyond it. Pure.

Within the budget a wrap is opened at once. What comes faster waits in lanes, one for each agent and relay, that take
turns, so that a flood for one agent or from one relay delays nobody else; within a lane those with proof of work go
first. What does not fit is dropped from the longest lane.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Lane = tuple[str, str]

WORKED_BITS = 12


@dataclass(slots=True)
class Bucket:
    """Tokens that come back with time; seconds are handed in."""

    burst: float
    per_second: float
    level: float = -1.0
    at: float = 0.0

    def take(self, mono: float) -> bool:
        """Whether one is left."""
        self._fill(mono)
        if self.level < 1.0:
            return False
        self.level -= 1.0
        return True

    def wait(self, mono: float) -> float:
        """Seconds until one is left."""
        self._fill(mono)
        return max(0.0, (1.0 - self.level) / self.per_second)

    def _fill(self, mono: float) -> None:
        if self.level < 0:
            self.level, self.at = self.burst, mono
        self.level = min(self.burst, self.level + max(0.0, mono - self.at) * self.per_second)
        self.at = mono


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    worked: deque[Item] = field(default_factory=deque)
    plain: deque[Item] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.worked) + len(self.plain)

    def pop(self) -> Item:
        return self.worked.popleft() if self.worked else self.plain.popleft()

    def shed(self) -> None:
        """Lose the last one: the first have waited longest."""
        (self.plain or self.worked).pop()


class FairQueue(Generic[Item]):
    """Lanes that take turns. `size` bounds all of them together, `lane_size` each."""

    def __init__(self, size: int = 8_192, lane_size: int = 2_048) -> None:
        self._size, self._lane_size = size, lane_size
        self._lanes: dict[Lane, _Waiting[Item]] = {}
        self._count = 0
        self.shed = 0

    def __len__(self) -> int:
        return self._count

    def put(self, lane: Lane, item: Item, bits: int = 0) -> None:
        """Add one at the end of its lane; if all are full, the longest lane loses its last."""
        waiting = self._lanes.setdefault(lane, _Waiting())
        (waiting.worked if bits >= WORKED_BITS else waiting.plain).append(item)
        self._count += 1
        if len(waiting) > self._lane_size:
            self._drop(lane)
        elif self._count > self._size:
            self._drop(max(self._lanes, key=lambda one: len(self._lanes[one])))

    def _drop(self, lane: Lane) -> None:
        waiting = self._lanes[lane]
        waiting.shed()
        self._count -= 1
        self.shed += 1
        if not len(waiting):
            del self._lanes[lane]

    def take(self) -> Item | None:
        """The next one: of the lane whose turn it is, which then goes to the end."""
        if not self._lanes:
            return None
        lane = next(iter(self._lanes))
        waiting = self._lanes.pop(lane)
        item = waiting.pop()
        self._count -= 1
        if len(waiting):
            self._lanes[lane] = waiting
        return item
