"""An agent's files as one tick sees them. Pure."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeAlias

import orjson

from core.identifier import derived_id
from fs.error import Unsupported
from fs.handle import Handle, Open, open_file
from fs.namespace import Namespace, Verb
from fs.protocol import Record, Stat
from fs.session import Batch, Role, Session
from node.agent.replay.tape import Tape
from node.agent.tick.stage import Stage

Namespaces: TypeAlias = Callable[[str], Namespace]


class Files:
    """The agent's namespace as one tick sees it: the one that was there when the tick first looked, to its end.

    Calls get keys that a repeated tick finds again.
    """

    __slots__ = ("_agent", "_envelope_id", "_namespaces", "_session", "_snapshot", "_stage", "_tape")

    def __init__(self, namespaces: Namespaces, agent: str, envelope_id: str, tape: Tape, stage: Stage) -> None:
        self._namespaces, self._agent, self._envelope_id = namespaces, agent, envelope_id
        self._tape, self._stage = tape, stage
        self._session: Session | None = None
        self._snapshot: Namespace | None = None

    def _space(self) -> Namespace:
        if self._snapshot is None:
            self._snapshot = self._namespaces(self._agent)
        return self._snapshot

    def _seen_as(self) -> Session:
        if self._session is None:
            self._stage.batch = Batch(kept=self._stage.items, known=self._stage.known)
            self._session = Session(f"agent:{self._agent}", Role.AGENT, batch=self._stage.batch)
        return self._session

    async def list(self, path: str) -> list[Stat]:
        """What is in a directory.

        Raises:
            VendoError: as `fs.namespace.Namespace.list`.
        """
        self._stage.open()
        self._stage.reads += 1

        async def fetch() -> bytes:
            return orjson.dumps(await self._space().list(path, self._seen_as()))

        return [Stat(**one) for one in orjson.loads(await self._tape.read("list", (path,), fetch))]

    async def stat(self, path: str) -> Stat:
        """What a file is, and what can be done with it.

        Raises:
            VendoError: as `fs.namespace.Namespace.stat`.
        """
        self._stage.open()
        self._stage.reads += 1

        async def fetch() -> bytes:
            return orjson.dumps(await self._space().stat(path, self._seen_as()))

        return Stat(**orjson.loads(await self._tape.read("stat", (path,), fetch)))

    async def open(self, path: str, flags: Open = Open.READ) -> Handle:
        """Open a file: to read and write it in parts, to go to places in it, to write it anew or at its end.

        Use it as an async context manager. What is written takes effect when the tick is committed, if the handle was
        flushed or closed by then. A stream is what is there now: a tick does not wait.

        Raises:
            VendoError: as `fs.handle.open_file`.
        """
        return await open_file(_Shelf(self), path, flags)

    async def check(self, path: str, verb: Verb) -> None:
        """Whether this may be done there; nothing is done.

        Raises:
            VendoError: as `fs.namespace.Namespace.check`.
        """
        self._stage.open()

        async def fetch() -> bytes:
            await self._space().check(path, verb, self._seen_as())
            return b""

        await self._tape.read("check", (path, verb.value), fetch)

    async def read(self, path: str) -> bytes:
        """The whole content of a file.

        Raises:
            VendoError: as `fs.namespace.Namespace.read`.
        """
        self._stage.open()
        self._stage.reads += 1

        async def fetch() -> bytes:
            return await self._space().read(path, self._seen_as())

        return await self._tape.read("read", (path,), fetch)

    async def write(self, path: str, body: bytes) -> None:
        """Replace a file's content when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.write`.
        """
        session = self._keyed(None)

        async def fetch() -> bytes:
            await self._space().write(path, body, session)
            return b""

        await self._tape.read("write", (path, body), fetch)

    async def call(self, path: str, body: bytes, key: str | None = None) -> bytes:
        """Send one record; what it causes begins when the tick is committed.

        Args:
            path: the file to call.
            body: the record.
            key: the idempotency key; one that derives from agent, envelope and count if None.

        Raises:
            VendoError: as `fs.namespace.Namespace.call`.
        """
        session = self._keyed(key)

        async def fetch() -> bytes:
            return await self._space().call(path, body, session)

        return await self._tape.read("call", (path, session.key or "", body), fetch)

    async def remove(self, path: str) -> None:
        """Take a file away when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.remove`.
        """
        session = self._keyed(None)

        async def fetch() -> bytes:
            await self._space().remove(path, session)
            return b""

        await self._tape.read("remove", (path,), fetch)

    async def rename(self, path: str, to: str) -> None:
        """Give a file another path when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.rename`.
        """
        session = self._keyed(None)

        async def fetch() -> bytes:
            await self._space().rename(path, to, session)
            return b""

        await self._tape.read("rename", (path, to), fetch)

    async def mkdir(self, path: str) -> None:
        """Make a directory when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.mkdir`.
        """
        session = self._keyed(None)

        async def fetch() -> bytes:
            await self._space().mkdir(path, session)
            return b""

        await self._tape.read("mkdir", (path,), fetch)

    def _keyed(self, key: str | None) -> Session:
        self._stage.change()
        self._stage.calls += 1
        key = key or derived_id("tick", self._agent, self._envelope_id, str(self._stage.calls))
        return self._seen_as().with_key(key)


class _Shelf:
    """The files of a tick as `fs.handle.Ground`."""

    __slots__ = ("_files", "check", "read", "write")

    def __init__(self, files: Files) -> None:
        self._files = files
        self.check, self.read, self.write = files.check, files.read, files.write

    async def stat(self, path: str) -> Stat:
        """A stream is read as it stands, like any other file."""
        return replace(await self._files.stat(path), stream=False)

    async def call(self, path: str, body: bytes) -> bytes:
        """Hand over a record."""
        return await self._files.call(path, body)

    def watch(self, path: str) -> AsyncIterator[Record]:
        """Nothing is watched in a tick."""
        raise Unsupported("A tick does not wait for a stream.")
