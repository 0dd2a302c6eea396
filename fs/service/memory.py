"""/memory: what the agent remembers beside its state, as files.

One table holds all of it, the one that a program knows as `ctx.memory`. Its keys are paths: `context/<name>` is the key
`<name>`, and `<folder>/<name>` the key `/<folder>/<name>`; a key that ends in a slash is a directory, which may be
empty. A key that is no path (it has a `%` in it, or a part that is empty) is no file: programs have it, and `export`.

A file holds text. What is JSON is kept as it is, and a program gets the value; every other text is kept as a JSON
string, and a program gets the text. Either way a file reads as it was written.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from core.error import InvalidInput
from fs.again import again
from fs.body import Fact
from fs.error import BadPath, DirectoryInUse, FileExists, NoSuchFile, NotDirectory, Unsupported
from fs.path import join, parts
from fs.protocol import Path, Stat
from fs.session import Session
from fs.tree import README, File, Folder, Tree

CONTEXT = "context"
FOLDERS: Mapping[str, str] = {
    "conversations": "what was said, and what is to be remembered of it",
    "patterns": "what the agent has learnt",
    CONTEXT: "what it works with; `ctx.memory` of a program has the same values under the same names",
}
EXPORT = "export"
MAX_BYTES = 65_536
MAX_DEPTH = 8
MAX_MOVED = 500
_MADE = "null"  # what stands under the key of a directory


class KeptItem(Fact):
    """One line of `export`: the key as `ctx.memory` has it, the file below /memory ("" if it is none), the value."""

    id: str
    path: str
    value: Any


class Memory(Protocol):
    """What the node's memory of one agent answers. In a tick it is as the tick would leave it."""

    async def find(self, key: str, session: Session) -> str | None:
        """The JSON under a key, or None."""

    async def page(
        self, low: str, high: str | None, session: Session, most: int = ...
    ) -> tuple[Sequence[tuple[str, str]], str | None]:
        """Keys from `low` on and below `high`, sorted, with their JSON; and where to go on, None at the end."""

    async def change(self, before: Mapping[str, str | None], after: Mapping[str, str | None], session: Session) -> None:
        """Put one JSON in the place of another under each of these keys; None is none.

        Raises:
            Conflict: what is there is not as `before` says.
            InvalidInput: there are too many, or a key is too long.
            VendoError: the agent keeps too much.
        """


def key_of(path: Path) -> str:
    """The key of a file below /memory."""
    return join(path[1:])[1:] if path[0] == CONTEXT else join(path)


def _below(path: Path) -> str:
    """How all keys in a directory begin."""
    return "" if path == (CONTEXT,) else key_of(path) + "/" if path else "/"


def path_of(key: str) -> Path | None:
    """The file below /memory that a key is, or the directory; None if it is none."""
    text = key.removesuffix("/")
    names = tuple(text[1:].split("/")) if text.startswith("/") else (CONTEXT, *text.split("/"))
    is_file = not key.endswith("/")
    if len(names) < 1 + is_file or len(names) > MAX_DEPTH + is_file or (text.startswith("/") and names[0] == CONTEXT):
        return None
    return names if all(map(_is_name, names)) else None


def _is_name(name: str) -> bool:
    try:
        return parts(f"/{name}") == (name,) and name != README
    except BadPath:
        return False


def value_of(body: bytes) -> str:
    """What is kept of a file's content, as JSON.

    Raises:
        InvalidInput: it is no text, or too long as JSON.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("What an agent remembers is text, in UTF-8.") from error
    try:
        is_text = isinstance(orjson.loads(body), str)  # a string in quotes would read as one without
    except orjson.JSONDecodeError:
        is_text = True
    kept = orjson.dumps(text).decode() if is_text else text
    if len(kept.encode()) > MAX_BYTES:
        raise InvalidInput(f"As JSON it has more than {MAX_BYTES} bytes.")
    return kept


def body_of(kept: str) -> bytes:
    """The file's content again."""
    return str(orjson.loads(kept)).encode() if kept.lstrip()[:1] == '"' else kept.encode()


def after_all(prefix: str) -> str | None:
    """The first text behind all that begin so; the prefix ends in a slash, or is empty."""
    return prefix[:-1] + "0" if prefix else None  # "0" comes after "/"


class _Shelf:
    """Files and directories over the keys of one memory."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def is_folder(self, path: Path, session: Session) -> bool:
        """Whether there is such a directory: it was made, or something is in it."""
        if not path or path in {(name,) for name in FOLDERS}:
            return True
        rows, _ = await self._memory.page(_below(path), after_all(_below(path)), session, 1)
        return bool(rows)

    async def find(self, path: Path, session: Session) -> str | None:
        """What is kept in a file."""
        return await self._memory.find(key_of(path), session)

    async def put(self, path: Path, body: bytes, session: Session) -> None:
        """Write a file."""
        key, after = key_of(path), value_of(body)

        async def change() -> None:
            await self._memory.change({key: await self._memory.find(key, session)}, {key: after}, session)

        await again(change, session)

    async def take(self, path: Path, session: Session) -> None:
        """Remove a file."""
        key = key_of(path)

        async def change() -> None:
            before = await self._memory.find(key, session)
            if before is None:
                raise NoSuchFile
            await self._memory.change({key: before}, {key: None}, session)

        await again(change, session)

    async def make(self, path: Path, session: Session) -> None:
        """Make a directory."""
        if len(path) > MAX_DEPTH:
            raise InvalidInput(f"Directories stand at most {MAX_DEPTH} deep.")
        await self._check_free(path, session)
        await self._memory.change({_below(path): None}, {_below(path): _MADE}, session)

    async def _check_free(self, path: Path, session: Session) -> None:
        if not all(map(_is_name, path)):
            raise BadPath(f"{path[-1][:40]!r} is a name that cannot be given.")
        if path == (EXPORT,) or await self.is_folder(path, session):
            raise FileExists
        if len(path) > 1 and await self.find(path, session) is not None:
            raise FileExists

    async def unmake(self, path: Path, session: Session) -> None:
        """Remove a directory that is empty."""
        mark = _below(path)
        rows, _ = await self._memory.page(mark, after_all(mark), session, 2)
        if any(key != mark for key, _ in rows):
            raise DirectoryInUse
        if not rows:
            raise NoSuchFile
        await self._memory.change({mark: rows[0][1]}, {mark: None}, session)

    async def rename(self, path: Path, to: Path, session: Session) -> None:
        """Move a file, or a directory with all that is in it."""
        text = await self.find(path, session) if len(path) > 1 else None
        is_file = text is not None
        if not is_file and not await self.is_folder(path, session):
            raise NoSuchFile
        if to[: len(path)] == path:
            raise InvalidInput("A directory cannot be moved into itself.")
        if (is_file and len(to) < 2) or len(to) > MAX_DEPTH + is_file:
            raise InvalidInput("A file stands in a directory." if is_file else f"At most {MAX_DEPTH} deep.")
        await self._check_free(to, session)
        await self._check_parent(to, session)
        if text is not None:
            key, new = key_of(path), key_of(to)
            await self._memory.change({key: text, new: None}, {key: None, new: text}, session)
        else:
            await self._move(_below(path), to, session)

    async def _check_parent(self, path: Path, session: Session) -> None:
        above = path[:-1]
        if await self.is_folder(above, session):
            return
        is_file = len(above) > 1 and await self.find(above, session) is not None
        raise NotDirectory if is_file else NoSuchFile("There is no such directory to move it to.")

    async def _move(self, old: str, to: Path, session: Session) -> None:
        rows, _ = await self._memory.page(old, after_all(old), session, MAX_MOVED + 1)
        if len(rows) > MAX_MOVED:
            raise InvalidInput(f"A directory with more than {MAX_MOVED} files is not moved at once.")
        moved = {key: _below(to) + key.removeprefix(old) for key, _ in rows}
        if any(path_of(key) is not None and path_of(moved[key]) is None for key in moved):
            raise InvalidInput(f"Directories stand at most {MAX_DEPTH} deep.")
        before = dict[str, str | None](rows) | dict.fromkeys(moved.values())
        after = dict.fromkeys(moved) | {moved[key]: text for key, text in rows}
        await self._memory.change(before, after, session)

    async def entries(self, path: Path, session: Session) -> AsyncIterator[Stat]:
        """What is in a directory, sorted; however much it is, only a page of it is held."""
        prefix = _below(path)
        low: str | None = prefix
        while low is not None:
            rows, low = await self._memory.page(low, after_all(prefix), session)
            for key, text in rows:
                name, slash, _ = key.removeprefix(prefix).partition("/")
                if slash:  # all that is in it is passed over
                    low = f"{prefix}{name}0"
                    if (stat := await self._folder(path, name, session)) is not None:
                        yield stat
                    break
                if path and _is_name(name):
                    yield Stat(name, False, size=len(body_of(text)), readable=True, writable=True, removable=True)

    async def _folder(self, path: Path, name: str, session: Session) -> Stat | None:
        """A directory as it is listed; none for what is no name, or is a file's name too."""
        if not _is_name(name) or len(path) >= MAX_DEPTH or (not path and name in (*FOLDERS, EXPORT)):
            return None
        if path and await self.find((*path, name), session) is not None:
            return None
        return Stat(name, True, removable=True)

    async def export(self, session: Session) -> AsyncIterator[bytes]:
        """All of it, a line of JSON for each."""
        low: str | None = ""
        while low is not None:
            rows, low = await self._memory.page(low, None, session)
            if rows:
                yield b"".join(_line(key, text) for key, text in rows)


def _line(key: str, text: str) -> bytes:
    """One item. Its value stands as it is kept: a line break in JSON is white space, and may be another one."""
    path = path_of(key)
    below = "" if path is None else "/".join(path) + ("/" if key.endswith("/") else "")
    value = text.replace("\n", " ").replace("\r", " ").encode()
    return b'{"id":%b,"path":%b,"value":%b}\n' % (orjson.dumps(key), orjson.dumps(below), value)


class _Memories(Tree):
    """The tree; where any name can be a file's, one that is none yet holds no directories."""

    async def mkdir(self, path: Path, session: Session) -> None:
        """See `FileService`."""
        if len(path) > 1:
            await self._present(path[:-1], session)
        await super().mkdir(path, session)


def memory_service(memory: Memory) -> Tree:
    """The service at `/memory`."""
    shelf = _Shelf(memory)

    def folder(path: Path, about: str, *, fixed: bool = False) -> Folder:
        async def find(name: str, session: Session) -> File | Folder | None:
            if not _is_name(name):
                return None
            here = (*path, name)
            text = await shelf.find(here, session) if path else None
            if text is None and len(here) <= MAX_DEPTH and await shelf.is_folder(here, session):
                return folder(here, "what is remembered")
            return _file(shelf, here, text) if path else None

        async def make(name: str, session: Session) -> None:
            await shelf.make((*path, name), session)

        async def rename(name: str, to: Path, session: Session) -> None:
            if not path and name in (*FOLDERS, EXPORT):
                raise Unsupported("This is always there, under this name.")
            await shelf.rename((*path, name), to, session)

        async def remove(session: Session) -> None:
            await shelf.unmake(path, session)

        def sample() -> File | Folder:
            return _file(shelf, (*path, "name"), "") if path else folder(("name",), "what is remembered")

        files: dict[str, File | Folder] = {}
        if not path:
            files = {name: folder((name,), words, fixed=True) for name, words in FOLDERS.items()}
            everything = "all of it: a line of JSON for each, with its key, its path and its value"
            files[EXPORT] = File(everything, pieces=shelf.export, gives=KeptItem)
        pattern = "<name>" if path else "<directory>/"
        meaning = "text or JSON, up to 64 KiB (read, write, remove); or a directory" if path else "another directory"
        return Folder(
            about, files, find=find, pattern=pattern, pattern_about=meaning,
            entries=lambda session: shelf.entries(path, session), make=make, rename=rename,
            remove=None if fixed or not path else remove, sample=sample,
        )  # fmt: skip

    return _Memories(folder((), "What the agent remembers beside its state, as files in directories."))


def _file(shelf: _Shelf, path: Path, text: str | None) -> File:
    async def read(session: Session) -> bytes:
        return body_of(text or '""')

    async def write(body: bytes, session: Session) -> None:
        await shelf.put(path, body, session)

    async def remove(session: Session) -> None:
        await shelf.take(path, session)

    about = "something to be remembered"
    return File(about, read=read, write=write, remove=remove, absent=text is None)
