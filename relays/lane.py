"""What waits to be sent to one relay, what is in flight, and when to try again. Pure."""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from relays.backoff import Jitter, pause
from relays.verdict import Verdict, VerdictState

MAX_IN_FLIGHT = 256
MAX_HELD = 10_000
RETRY_BASE_S = 1.0
RETRY_CAP_S = 300.0
MAX_FOREIGN_TRIES = 24  # of one event at a relay that is not ours: after an hour and a half it is given up
MAX_ANSWERED_TRIES = 20  # an `error:` that comes back this often will not go away


@dataclass(slots=True)
class Item:
    """One event for one relay, as in a row of table `outbox`."""

    event_id: str
    raw: str
    effect_id: str
    tries: int = 0
    answered: int = 0  # tries that the relay answered with something that is neither yes nor a final no


class Lane:
    """Events for one relay in the order in which they came. Holds at most `MAX_HELD`; the rest stays in the table.

    Attributes:
        overflow: rows may be pending in the table that are not held here.
        pumping: its owner is sending from it right now.
        foreign: the relay is not ours: what it does not answer is given up in the end.
        reach_at: monotonic seconds before which a relay that is not ours is not tried again.
        rounds: how often it was tried in vain.
    """

    __slots__ = (
        "_in_flight",
        "_jitter",
        "_known",
        "_later",
        "_queue",
        "foreign",
        "overflow",
        "pumping",
        "reach_at",
        "relay",
        "rounds",
    )

    def __init__(self, relay: str, jitter: Jitter, *, foreign: bool = False) -> None:
        self.relay = relay
        self.foreign = foreign
        self.overflow = self.pumping = False
        self.reach_at = 0.0
        self.rounds = 0
        self._jitter = jitter
        self._queue: deque[Item] = deque()
        self._later: list[tuple[float, str, Item]] = []
        self._known: set[str] = set()
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def waiting(self) -> bool:
        """Whether something could be sent now, were the relay there."""
        return bool(self._queue)

    def add(self, items: Iterable[Item]) -> None:
        """Take items that are not held yet; what does not fit sets `overflow`."""
        for item in items:
            if item.event_id in self._known:
                continue
            if len(self._known) >= MAX_HELD:
                self.overflow = True
                return
            self._known.add(item.event_id)
            self._queue.append(item)

    def due(self, mono: float) -> None:
        """Queue again what has waited long enough."""
        while self._later and self._later[0][0] <= mono:
            self._queue.append(heapq.heappop(self._later)[2])

    def take(self) -> Item | None:
        """The next to send, if the relay may be given another one."""
        if not self._queue or self._in_flight >= MAX_IN_FLIGHT:
            return None
        self._in_flight += 1
        return self._queue.popleft()

    def put_back(self, item: Item) -> None:
        """It was not sent after all."""
        self._in_flight -= 1
        self._queue.appendleft(item)

    def settle(self, item: Item, verdict: Verdict, mono: float) -> tuple[Verdict, float]:
        """A verdict came. Returns it, or a final one in its place, and the seconds to wait if it is tried again."""
        self._in_flight -= 1
        item.tries += 1
        if verdict.state is VerdictState.UNKNOWN:
            item.answered += verdict.answered
            patient = not self.foreign or item.tries < MAX_FOREIGN_TRIES
            if patient and item.answered < MAX_ANSWERED_TRIES:
                wait = pause(item.tries, self._jitter, RETRY_BASE_S, RETRY_CAP_S)
                heapq.heappush(self._later, (mono + wait, item.event_id, item))
                return verdict, wait
            verdict = Verdict(VerdictState.REFUSED, verdict.reason)
        self._known.discard(item.event_id)
        return verdict, 0.0

    def postpone(self, item: Item, mono: float) -> None:
        """It cannot be sent for a reason of our own; try again as if the relay had not answered."""
        self._in_flight -= 1
        item.tries += 1
        wait = pause(item.tries, self._jitter, RETRY_BASE_S, RETRY_CAP_S)
        heapq.heappush(self._later, (mono + wait, item.event_id, item))

    @property
    def hungry(self) -> bool:
        """Whether the table should be read for more."""
        return self.overflow and len(self._known) <= MAX_HELD // 2
