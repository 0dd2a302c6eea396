"""A wire between a node and its PostgreSQL that can be cut at a word: before it is heard, or before it is answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Wire:
    """Passes bytes on. `cut_before` and `cut_after` name what is never heard, or is heard and never answered.

    At `stuck_at` a connection passes nothing more, and nobody is told.
    """

    def __init__(self, far: Path) -> None:
        self.cut_before = self.cut_after = self.stuck_at = b""
        self.cuts = self.port = 0
        self._far = far
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._far))
        deaf = asyncio.Event()
        both = [
            asyncio.create_task(self._there(reader, far_writer, deaf)),
            asyncio.create_task(self._back(far_reader, writer, deaf)),
        ]
        self._tasks.update(both)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the test is over: asyncio would write down a server's cancelled handler
            return
        finally:
            for task in both:
                task.cancel()
            self._tasks.difference_update(both)
            for one in (writer, far_writer):
                one.transport.abort()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if self.cut_before and self.cut_before in data:
                self.cuts, self.cut_before = self.cuts + 1, b""
                return
            if self.cut_after and self.cut_after in data:
                self.cuts, self.cut_after = self.cuts + 1, b""
                deaf.set()
            if self.stuck_at and self.stuck_at in data:
                self.cuts, self.stuck_at = self.cuts + 1, b""
                while await reader.read(1 << 16):
                    pass  # until whoever asked has given up
                return
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if deaf.is_set():
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def wire_to(socket: Path) -> AsyncIterator[Wire]:
    """A wire to a server's socket, with a port of its own on this machine."""
    wire = Wire(socket)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
