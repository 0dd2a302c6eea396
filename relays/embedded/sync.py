"""Reconciliation with clients (NIP-77): what is stored is frozen once for each, and its messages are answered in turn.

A frozen set takes 41 bytes an event; the sum over all clients is bounded. Building and comparing run in a thread.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import TypeAlias

from relays.embedded import frame
from relays.embedded.client import Client
from relays.embedded.error import EventFileFailed, QueryTooBroad
from relays.embedded.limit import Limits
from relays.error import MalformedSync
from relays.filter import Filter
from relays.negentropy import FRAME_BYTES, Vector, respond

Read: TypeAlias = Callable[[Sequence[Filter]], Awaitable[list[tuple[int, str]]]]
_Name: TypeAlias = tuple[Client, str]

_TOO_MANY = "blocked: too many events; ask for a shorter time"
_FULL = "blocked: the relay has too many reconciliations open; try again later"
_BUSY = "invalid: one message at a time"
_FAILED = "error: the event store failed"


class _Set:
    """One open reconciliation. It has no vector while it is being read."""

    __slots__ = ("busy", "size", "vector")

    def __init__(self) -> None:
        self.vector: Vector | None = None
        self.size = 0
        self.busy = True


class Syncs:
    """All open reconciliations of one relay.

    Args:
        read: (created_at, id) of all stored events that filters meet.
        limits: how many, and how big.
        threads: for the work on big sets.
    """

    def __init__(self, read: Read, limits: Limits, threads: Executor) -> None:
        self._read, self._limits, self._threads = read, limits, threads
        self._open: dict[_Name, _Set] = {}
        self.items = 0

    def __len__(self) -> int:
        return len(self._open)

    async def begin(self, client: Client, sub_id: str, filters: Sequence[Filter], message: str) -> None:
        """Freeze what is stored, and answer the first message."""
        self.end(client, sub_id)
        name = (client, sub_id)
        opened = self._open[name] = _Set()
        try:
            items = await self._read(filters)
        except QueryTooBroad:
            self._fail(name, opened, _TOO_MANY)
            return
        except EventFileFailed:
            self._fail(name, opened, _FAILED)
            return
        reason = self._no_room(len(items))
        if reason:
            self._fail(name, opened, reason)
        elif self._open.get(name) is opened:
            self.items += len(items)
            opened.size = len(items)
            opened.vector = await asyncio.get_running_loop().run_in_executor(self._threads, Vector, items)
            await self._answer(name, opened, message)

    def _no_room(self, size: int) -> str:
        if size > self._limits.sync_items:
            return _TOO_MANY
        return _FULL if self.items + size > self._limits.all_sync_items else ""

    async def go_on(self, client: Client, sub_id: str, message: str) -> None:
        """Answer the next message."""
        opened = self._open.get((client, sub_id))
        if opened is None:
            return
        if opened.busy:
            self._fail((client, sub_id), opened, _BUSY)
            return
        await self._answer((client, sub_id), opened, message)

    async def _answer(self, name: _Name, opened: _Set, message: str) -> None:
        vector, opened.busy = opened.vector, True
        if vector is None or self._open.get(name) is not opened:
            return
        try:
            reply = await asyncio.get_running_loop().run_in_executor(
                self._threads, respond, vector, message, FRAME_BYTES
            )
        except MalformedSync as error:
            self._fail(name, opened, f"invalid: {error.message}")
            return
        opened.busy = False
        if self._open.get(name) is opened:
            name[0].send(frame.sync_message(name[1], reply))

    def _fail(self, name: _Name, opened: _Set, reason: str) -> None:
        if self._open.get(name) is opened:
            client, sub_id = name
            self.end(client, sub_id)
            client.session.forget_sync(sub_id)
            client.send(frame.sync_error(sub_id, reason))

    def end(self, client: Client, sub_id: str) -> None:
        """Give the set back."""
        opened = self._open.pop((client, sub_id), None)
        self.items -= 0 if opened is None else opened.size

    def leave(self, client: Client) -> None:
        """The client is gone."""
        for _, sub_id in [name for name in self._open if name[0] is client]:
            self.end(client, sub_id)
