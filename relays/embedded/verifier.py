"""Signatures are checked in bursts: what arrived in one turn of the loop is checked together.

A check is 30 µs inside libsecp256k1, which lets other threads run. A few are done on the loop; more go to threads
in chunks, since handing over single events costs twice what the check does.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from relays.error import ForgedEvent, MalformedEvent
from relays.event import Event, verify

T = TypeVar("T")

_INLINE = 16
_CHUNK = 32
_MAX_CHUNK = 64


class Verifier(Generic[T]):
    """Takes events in, gives them back with their text if they are genuine, with None if they are forged."""

    def __init__(self, done: Callable[[Sequence[tuple[T, Event, bytes | None]]], None], threads: int) -> None:
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(threads, "relay-verify")
        self._waiting: list[tuple[T, Event]] = []

    def submit(self, origin: T, event: Event) -> None:
        """Check an event, soon."""
        if not self._waiting:
            self._loop.call_soon(self._drain)
        self._waiting.append((origin, event))

    async def close(self) -> None:
        """Wait for the threads; what they checked is still given back."""
        await self._loop.run_in_executor(None, self._threads.shutdown)

    def _drain(self) -> None:
        batch, self._waiting = self._waiting, []
        if len(batch) < _INLINE:
            self._done(_check(batch))
            return
        size = max(_CHUNK, min(_MAX_CHUNK, (len(batch) + 1) // 2))
        for at in range(0, len(batch), size):
            self._threads.submit(_check, batch[at : at + size]).add_done_callback(self._checked)

    def _checked(self, future: "Future[list[tuple[T, Event, bytes | None]]]") -> None:
        self._loop.call_soon_threadsafe(self._done, future.result())


def _check(batch: Sequence[tuple[T, Event]]) -> list[tuple[T, Event, bytes | None]]:
    checked: list[tuple[T, Event, bytes | None]] = []
    for origin, event in batch:
        try:
            verify(event)
        except (ForgedEvent, MalformedEvent):
            checked.append((origin, event, None))
        else:
            # The client's own bytes are not kept: they may hold other fields, or one field twice.
            checked.append((origin, event, event.to_json().encode()))
    return checked
