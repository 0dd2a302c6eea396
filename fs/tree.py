"""A file service put together from a table of files: most services are one. Every directory has a README by itself.

A `File` says what it can do by the functions it has. A `Folder` has named entries, or finds them by name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson
from pydantic import BaseModel

from core.error import InvalidInput
from fs.batch import Later
from fs.error import BodyTooLarge, FileExists, IsDirectory, IsStream, NoSuchFile, NotDirectory, Unsupported
from fs.protocol import Content, Path, Pieces, Record, Stat, let_go
from fs.session import Session

README = "README"
SMALL_BODY = 65_536

Read: TypeAlias = Callable[[Session], Awaitable[bytes]]
WriteBody: TypeAlias = Callable[[bytes, Session], Awaitable[None]]
Call: TypeAlias = Callable[[bytes, Session], Awaitable[bytes]]
Watch: TypeAlias = Callable[[Session, int | None], AsyncIterator[Record]]
ReadPieces: TypeAlias = Callable[[Session], Pieces]
Store: TypeAlias = Callable[[Pieces, Session], Awaitable[None]]
Remove: TypeAlias = Callable[[Session], Awaitable[None]]
Schema: TypeAlias = type[BaseModel] | Mapping[str, Any] | None
"""What a body looks like: a model, or a JSON Schema; None is text or bytes."""


@dataclass(slots=True, unsafe_hash=True)  # one for each file that is found: frozen, each field would cost a call
class File:
    """One file: it can do what it has functions for.

    Attributes:
        about: its line in the README.
        max_bytes: longer bodies are refused; what `store` takes is bounded by nobody else.
        stream: a log without an end, which is watched rather than read.
        pieces: the content in pieces, in place of `read`, where it may be long.
        store: takes a long body in pieces, in place of `write`; nothing has changed if they end in an error.
        takes: what a body looks like that is written or called.
        gives: what is read looks like, or what a call answers.
        absent: it is not there yet; written, it is.
    """

    about: str
    read: Read | None = None
    write: WriteBody | None = None
    call: Call | None = None
    watch: Watch | None = None
    max_bytes: int = SMALL_BODY
    stream: bool = False
    remove: Remove | None = None
    pieces: ReadPieces | None = None
    store: Store | None = None
    takes: Schema = None
    gives: Schema = None
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory: fixed entries, and perhaps more that are found by name.

    Attributes:
        about: what is in it, in a line.
        files: the fixed entries.
        names: lists those that are found by name.
        find: gives the one with a name, or None.
        pattern: stands for them in the README.
        pattern_about: what they are.
        found_are_folders: whether they are directories.
        read: it can also be read, as all of its entries in one.
        call: it can also be called.
        max_bytes: longer bodies are refused.
        entries: lists those that are found by name one after the other, in place of `names`, where they may be many.
        remove: takes the directory away.
        make: makes a directory of a name in it.
        rename: gives the entry of a name another path below the service.
        takes: what a body looks like that is called.
        gives: what is read or answered looks like.
        sample: makes one of those that are found by name, for the reference pages; nobody reads or calls it.
    """

    about: str
    files: Mapping[str, "Node"] = field(default_factory=dict)
    names: Callable[[Session], Awaitable[Sequence[str]]] | None = None
    find: Callable[[str, Session], Awaitable["Node | None"]] | None = None
    pattern: str = ""
    pattern_about: str = ""
    found_are_folders: bool = False
    read: Read | None = None
    call: Call | None = None
    max_bytes: int = SMALL_BODY
    entries: Callable[[Session], AsyncIterator[Stat]] | None = None
    remove: Remove | None = None
    make: Callable[[str, Session], Awaitable[None]] | None = None
    rename: Callable[[str, Path, Session], Awaitable[None]] | None = None
    takes: Schema = None
    gives: Schema = None
    sample: Callable[[], "Node"] | None = None


Node: TypeAlias = File | Folder


def json_bytes(value: Any) -> bytes:
    """JSON for people and programs: indented, ending in a newline."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def text_bytes(value: str) -> bytes:
    """One small fact as a line of text."""
    return (value + "\n").encode()


def json_object(body: bytes, allowed: frozenset[str] | None = None) -> dict[str, Any]:
    """The object in a JSON body.

    Raises:
        InvalidInput: it is not JSON, not an object, or has a field that is not known.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The body is not JSON.") from error
    if type(value) is not dict:
        raise InvalidInput("The body is not a JSON object.")
    unknown = sorted(set(value) - allowed) if allowed is not None else []
    if unknown:
        raise InvalidInput(f"The body has a field that is not known: {unknown[0][:40]!r}.")
    return value


def json_reader(make: Callable[[], Awaitable[Any]]) -> Read:
    """A reader of JSON that is made when it is read."""

    async def read(session: Session) -> bytes:
        return json_bytes(await make())

    return read


def text_reader(make: Callable[[], Awaitable[str]]) -> Read:
    """A reader of one fact that is looked up when it is read."""

    async def read(session: Session) -> bytes:
        return text_bytes(await make())

    return read


def _stat(name: str, node: Node) -> Stat:
    if isinstance(node, Folder):
        return Stat(
            name,
            True,
            node.about,
            readable=node.read is not None,
            callable=node.call is not None,
            removable=node.remove is not None,
            max_bytes=node.max_bytes if node.call is not None else 0,
        )
    takes = node.write is not None or node.call is not None
    return Stat(
        name,
        False,
        node.about,
        readable=node.read is not None or node.pieces is not None,
        writable=node.write is not None or node.store is not None,
        callable=node.call is not None,
        watchable=node.watch is not None,
        stream=node.stream or _only_watched(node),
        removable=node.remove is not None,
        max_bytes=None if node.store is not None else node.max_bytes if takes else 0,
    )


def _only_watched(node: File) -> bool:
    return node.watch is not None and node.read is None and node.pieces is None


def verbs_of(stat: Stat) -> list[str]:
    """What can be done with a file, in words."""
    can = {
        "read": stat.readable,
        "write": stat.writable,
        "call": stat.callable,
        "watch": stat.watchable,
        "remove": stat.removable,
    }
    return [verb for verb, may in can.items() if may]


def _verbs(stat: Stat) -> str:
    verbs = verbs_of(stat)
    return f" ({', '.join(verbs)})" if verbs else ""


def readme(folder: Folder) -> bytes:
    """The README of a directory, from what its entries say about themselves."""
    lines = [folder.about, ""]
    if verbs := _verbs(_stat("", folder)):
        lines.append(f"./{verbs}: the directory itself")
    for name, node in folder.files.items():
        slash = "/" if isinstance(node, Folder) else ""
        lines.append(f"{name}{slash}{_verbs(_stat(name, node))}: {node.about}")
    if folder.pattern:
        lines.append(f"{folder.pattern}: {folder.pattern_about}")
    return ("\n".join(lines) + "\n").encode()


class Tree:
    """A `FileService` over one root, usually a `Folder`."""

    def __init__(self, root: Node) -> None:
        self._root = root

    @property
    def root(self) -> Node:
        """The table itself, for the reference pages."""
        return self._root

    async def _node(self, path: Path, session: Session) -> Node:
        node = self._root
        for depth, name in enumerate(path):
            if isinstance(node, File):
                raise NoSuchFile
            child = node.files.get(name)
            if child is None and node.find is not None:
                child = await node.find(name, session)
            if child is None:
                if name == README and depth == len(path) - 1:
                    return _readme_file(node)
                raise NoSuchFile
            node = child
        return node

    async def stat(self, path: Path, session: Session) -> Stat:
        """See `FileService`."""
        return _stat(path[-1] if path else "", await self._present(path, session))

    async def _present(self, path: Path, session: Session) -> Node:
        node = await self._node(path, session)
        if isinstance(node, File) and node.absent:
            raise NoSuchFile
        return node

    async def list(self, path: Path, session: Session) -> AsyncIterator[Stat]:
        """See `FileService`. Fixed entries come first, then those that are found by name, in their own order."""
        node = await self._present(path, session)
        if isinstance(node, File):
            raise NotDirectory
        yield _stat(README, _readme_file(node))
        for name, child in node.files.items():
            yield _stat(name, child)
        if node.entries is not None:
            async for stat in node.entries(session):
                yield stat
        elif node.names is not None:
            found = node.found_are_folders
            for name in await node.names(session):
                yield Stat(name, found, readable=not found)

    async def read(self, path: Path, session: Session, *, plain: bool = False) -> Content:
        """See `FileService`."""
        node = await self._present(path, session)
        if plain and isinstance(node, File) and (node.stream or _only_watched(node)):
            raise IsStream
        if node.read is not None:
            return await node.read(session)
        if isinstance(node, Folder):
            raise IsDirectory
        if node.pieces is not None:
            return node.pieces(session)
        raise Unsupported("This file cannot be read.")

    async def write(self, path: Path, body: Content, session: Session) -> None:
        """See `FileService`."""
        node = await self._node(path, session)
        if isinstance(node, Folder):
            raise IsDirectory
        if node.store is not None:
            await node.store(once(body) if isinstance(body, bytes) else body, session)
            return
        if node.write is None:
            raise Unsupported("This file cannot be written.")
        await node.write(await whole(body, node.max_bytes), session)

    async def call(self, path: Path, body: bytes, session: Session) -> bytes:
        """See `FileService`."""
        node = await self._present(path, session)
        if node.call is None:
            raise Unsupported("This file cannot be called.")
        _bounded(body, node.max_bytes)
        return await node.call(body, session)

    def watch(self, path: Path, session: Session, after: int | None) -> AsyncIterator[Record]:
        """See `FileService`."""

        async def begin() -> AsyncIterator[Record]:
            node = await self._present(path, session)
            if isinstance(node, Folder) or node.watch is None:
                raise Unsupported("This file cannot be watched.")
            return node.watch(session, after)

        return Later(begin)

    async def remove(self, path: Path, session: Session) -> None:
        """See `FileService`."""
        node = await self._present(path, session)
        if node.remove is None:
            raise Unsupported("This cannot be removed.")
        await node.remove(session)

    async def rename(self, path: Path, to: Path, session: Session) -> None:
        """See `FileService`."""
        await self._present(path, session)
        parent = await self._node(path[:-1], session) if path else None
        if not isinstance(parent, Folder) or parent.rename is None or not to:
            raise Unsupported("This cannot be renamed.")
        await parent.rename(path[-1], to, session)

    async def mkdir(self, path: Path, session: Session) -> None:
        """See `FileService`."""
        parent = await self._node(path[:-1], session) if path else None
        if isinstance(parent, File):
            raise NotDirectory
        if await self._is_there(path, session):
            raise FileExists
        if parent is None or parent.make is None:
            raise Unsupported("No directory can be made here.")
        await parent.make(path[-1], session)

    async def _is_there(self, path: Path, session: Session) -> bool:
        try:
            await self._present(path, session)
        except NoSuchFile:
            return False
        return True


async def once(body: bytes) -> Pieces:
    """A whole body as pieces."""
    yield body


async def whole(body: Content, most: int) -> bytes:
    """A body in one, at most `most` bytes.

    Raises:
        BodyTooLarge: it is longer; the rest was not taken.
    """
    if isinstance(body, bytes):
        _bounded(body, most)
        return body
    gathered = bytearray()
    async for piece in body:
        gathered += piece
        _bounded(gathered, most)
    return bytes(gathered)


async def short(body: Pieces) -> Content:
    """A body in one if it is short, else in pieces as before."""
    gathered = bytearray()
    async for piece in body:
        gathered += piece
        if len(gathered) > SMALL_BODY:
            return joined(bytes(gathered), body)
    return bytes(gathered)


async def joined(first: bytes, rest: Pieces) -> Pieces:
    """A piece that was taken already, and those that follow it; who leaves them ends them."""
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await let_go(rest)


def _bounded(body: bytes | bytearray, most: int) -> None:
    if len(body) > most:
        raise BodyTooLarge(f"The body is longer than {most} bytes.")


def _readme_file(folder: Folder) -> File:
    async def read(session: Session) -> bytes:
        return readme(folder)

    return File("what is in this directory", read=read)
