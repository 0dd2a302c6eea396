"""Jobs that wait for a worker of their kind: `schedule.py` decides who is next, here they wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

from core.clock import Clock
from dvm.schedule import Schedule, Ticket


class Line:
    """The workers of one kind.

    Args:
        workers: jobs at once.
        clock: time.
    """

    def __init__(self, workers: int, clock: Clock) -> None:
        self._schedule, self._clock = Schedule(workers), clock
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._numbers = count()

    @property
    def workers(self) -> int:
        """Jobs at once."""
        return self._schedule.workers

    @property
    def running(self) -> int:
        """Jobs at work."""
        return self._schedule.running

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return self._schedule.waiting

    def resize(self, workers: int) -> None:
        """Another number of workers from now on; what runs is left to run."""
        self._schedule.workers = workers
        self._start()

    def promise(self, ticket: Ticket) -> None:
        """A quote stands: the job may come."""
        self._schedule.promise(ticket)

    def leave(self, job: str) -> None:
        """What was promised does not come any more."""
        self._schedule.leave(job)

    def wait_s(self, ticket: Ticket) -> int:
        """How long a job would wait now, in whole seconds, rounded up."""
        return -(-self._schedule.wait_ms(ticket, self._millis()) // 1000)

    @asynccontextmanager
    async def turn(self, ticket: Ticket) -> AsyncIterator[None]:
        """Wait for a worker, and have it until the block ends."""
        self._schedule.leave(ticket.job)  # it is promised no more: here it is
        # Numbered, for after a fault of the database a job may be begun once more while it still runs
        ticket = replace(ticket, job=f"{ticket.job}/{next(self._numbers)}")
        turn = self._turns[ticket.job] = asyncio.get_running_loop().create_future()
        self._schedule.enter(ticket)
        self._start()
        try:
            await turn
            yield
        finally:
            self._turns.pop(ticket.job, None)
            self._schedule.leave(ticket.job)
            self._start()

    def _start(self) -> None:
        while (ticket := self._schedule.begin(self._millis())) is not None:
            turn = self._turns.get(ticket.job)
            if turn is not None and not turn.done():
                turn.set_result(None)

    def _millis(self) -> int:
        return int(self._clock.monotonic() * 1000)
