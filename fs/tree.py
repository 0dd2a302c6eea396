"""A file service put together from a table of files: most services are one. Every directory has a README by itself.

A `File` says what it can do by the functions it has. A `Folder` has named entries, or finds them by name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from core.error import InvalidInput
from fs.error import BodyTooLarge, IsDirectory, NoSuchFile, NotDirectory, Unsupported
from fs.protocol import Path, Record, Stat
from fs.session import Session

README = "README"
SMALL_BODY = 65_536

Read: TypeAlias = Callable[[Session], Awaitable[bytes]]
WriteBody: TypeAlias = Callable[[bytes, Session], Awaitable[None]]
Call: TypeAlias = Callable[[bytes, Session], Awaitable[bytes]]
Watch: TypeAlias = Callable[[Session, int | None], AsyncIterator[Record]]


@dataclass(frozen=True, slots=True)
class File:
    """One file. `about` is its line in the README; bodies longer than `max_bytes` are refused."""

    about: str
    read: Read | None = None
    write: WriteBody | None = None
    call: Call | None = None
    watch: Watch | None = None
    max_bytes: int = SMALL_BODY


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory: fixed entries, and perhaps more that are found by name.

    `names` lists those, `find` gives the one with a name or None, and `pattern` stands for them in the README.
    With `read` it can also be read, as all of its entries in one.
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
        return Stat(name, True, node.about, readable=node.read is not None, callable=node.call is not None)
    return Stat(
        name,
        False,
        node.about,
        readable=node.read is not None,
        writable=node.write is not None,
        callable=node.call is not None,
        watchable=node.watch is not None,
    )


def _verbs(stat: Stat) -> str:
    verbs = [
        verb
        for verb, can in (
            ("read", stat.readable),
            ("write", stat.writable),
            ("call", stat.callable),
            ("watch", stat.watchable),
        )
        if can
    ]
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
        return _stat(path[-1] if path else "", await self._node(path, session))

    async def list(self, path: Path, session: Session) -> list[Stat]:
        """See `FileService`."""
        node = await self._node(path, session)
        if isinstance(node, File):
            raise NotDirectory
        entries = [_stat(README, _readme_file(node))]
        entries += [_stat(name, child) for name, child in node.files.items()]
        if node.names is not None:
            found = node.found_are_folders
            entries += [Stat(name, found, readable=not found) for name in await node.names(session)]
        return entries

    async def read(self, path: Path, session: Session) -> bytes:
        """See `FileService`."""
        node = await self._node(path, session)
        if node.read is not None:
            return await node.read(session)
        if isinstance(node, Folder):
            raise IsDirectory
        raise Unsupported("This file cannot be read.")

    async def write(self, path: Path, body: bytes, session: Session) -> None:
        """See `FileService`."""
        node = await self._node(path, session)
        if isinstance(node, Folder):
            raise IsDirectory
        if node.write is None:
            raise Unsupported("This file cannot be written.")
        _bounded(body, node.max_bytes)
        await node.write(body, session)

    async def call(self, path: Path, body: bytes, session: Session) -> bytes:
        """See `FileService`."""
        node = await self._node(path, session)
        if node.call is None:
            raise Unsupported("This file cannot be called.")
        _bounded(body, node.max_bytes)
        return await node.call(body, session)

    async def watch(self, path: Path, session: Session, after: int | None) -> AsyncIterator[Record]:
        """See `FileService`."""
        node = await self._node(path, session)
        if isinstance(node, Folder) or node.watch is None:
            raise Unsupported("This file cannot be watched.")
        async for record in node.watch(session, after):
            yield record


def _bounded(body: bytes, most: int) -> None:
    if len(body) > most:
        raise BodyTooLarge(f"The body is longer than {most} bytes.")


def _readme_file(folder: Folder) -> File:
    async def read(session: Session) -> bytes:
        return readme(folder)

    return File("what is in this directory", read=read)
