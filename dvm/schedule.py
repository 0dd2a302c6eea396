"""Whose job is next: weighted fair queueing between customers, the nearest deadline first within one customer. Pure.

A pool of workers serves one kind. Each customer has a line, and each line a place in virtual time that moves on by
*expected time / weight* with every job of it that begins; the line whose next job would end first is served
(self-clocked fair queueing, Golestani 1994). Virtual time moves on with whoever is served, so that every line is
reached in the end, however many others come. No worker is idle while a job waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from core.money import Msat

LEAST_WEIGHT, MOST_WEIGHT = 1_000, 1_000_000  # msat for a second: who pays nothing has a thousandth of the dearest
_SCALE = 1_000_000  # virtual time is whole: a millisecond at weight 1 is so long


def weight_of(price: Msat, expected_s: int, trust: int) -> int:
    """The share of a job: what it brings for a second of work, times how far its customer is trusted; bounded."""
    return max(LEAST_WEIGHT, min(MOST_WEIGHT, price.value * trust // max(1, expected_s)))


@dataclass(frozen=True, slots=True)
class Ticket:
    """One job that wants a worker.

    Attributes:
        job: its id.
        customer: whose line it is in.
        expected_ms: how long the work usually takes.
        weight: see `weight_of`.
        deadline: when its result is worthless, in any unit that all tickets share.
    """

    job: str
    customer: str
    expected_ms: int
    weight: int
    deadline: int

    @property
    def length(self) -> int:
        """How far it moves its line in virtual time."""
        return max(1, self.expected_ms * _SCALE // self.weight)


@dataclass(slots=True)
class _Line:
    """One customer's jobs that wait, the nearest deadline first, and where the line stands in virtual time."""

    at: int
    waiting: list[Ticket] = field(default_factory=list)

    @property
    def finish(self) -> int:
        return self.at + self.waiting[0].length


@dataclass(slots=True)
class Schedule:
    """The jobs of one kind: promised, waiting, running. Mutable, but it does nothing by itself; time is handed in.

    Attributes:
        workers: jobs that run at once.
    """

    workers: int
    _now: int = 0  # virtual
    _lines: dict[str, _Line] = field(default_factory=dict)
    _promised: dict[str, Ticket] = field(default_factory=dict)
    _running: dict[str, int] = field(default_factory=dict)  # the millisecond of its expected end

    def promise(self, ticket: Ticket) -> None:
        """Keep a place: the job may come. It counts for those who ask how long they would wait."""
        self._promised[ticket.job] = ticket

    def enter(self, ticket: Ticket) -> None:
        """The job has come."""
        self._promised.pop(ticket.job, None)
        line = self._lines.get(ticket.customer)
        if line is None:
            line = self._lines[ticket.customer] = _Line(self._now)  # what it had before is not after now
        line.waiting.append(ticket)
        line.waiting.sort(key=lambda one: one.deadline)  # stable: equal deadlines go as they came

    def begin(self, now_ms: int) -> Ticket | None:
        """The job that begins now; None if every worker is busy or nothing waits."""
        if len(self._running) >= self.workers or not self._lines:
            return None
        customer = min(self._lines, key=self._rank)
        line = self._lines[customer]
        line.at = line.finish
        self._now = max(self._now, line.at)  # a nearer deadline may have put a shorter job before the others
        ticket = line.waiting.pop(0)
        if not line.waiting:
            del self._lines[customer]
        self._running[ticket.job] = now_ms + ticket.expected_ms
        return ticket

    def _rank(self, customer: str) -> tuple[int, int]:
        line = self._lines[customer]
        return line.finish, line.waiting[0].deadline

    def leave(self, job: str) -> None:
        """A job has ended, or is not wanted any more."""
        self._promised.pop(job, None)
        if self._running.pop(job, None) is not None:
            return
        for customer, line in self._lines.items():
            if any(one.job == job for one in line.waiting):
                line.waiting = [one for one in line.waiting if one.job != job]
                if not line.waiting:
                    del self._lines[customer]
                return

    # ---- looking

    @property
    def running(self) -> int:
        """Jobs at work."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Jobs that came and have no worker yet."""
        return sum(len(line.waiting) for line in self._lines.values())

    def wait_ms(self, ticket: Ticket, now_ms: int) -> int:
        """How long a job would wait if it came now, as far as it can be known: work before it, over the workers.

        What is promised is counted as if it had come. A job that runs for longer than expected counts as done.
        """
        busy = len(self._running) + self.waiting + len(self._promised)
        if busy < self.workers:
            return 0
        place = self._place(ticket.customer) + ticket.length
        ahead = sum(max(0, end - now_ms) for end in self._running.values())
        ahead += sum(one.expected_ms for one in self._before(place))
        return ahead // self.workers

    def _place(self, customer: str) -> int:
        line = self._lines.get(customer)
        return self._now if line is None else line.at + sum(one.length for one in line.waiting)

    def _before(self, place: int) -> Iterator[Ticket]:
        """Jobs that would begin before one at this place in virtual time."""
        for line in self._lines.values():
            at = line.at
            for one in line.waiting:
                at += one.length
                if at <= place:
                    yield one
        promised: dict[str, int] = {}
        for one in self._promised.values():
            at = promised.get(one.customer, self._place(one.customer)) + one.length
            promised[one.customer] = at
            if at <= place:
                yield one
