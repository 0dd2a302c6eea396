"""A tree whose files can be made, moved and removed: what stands for a service that allows all of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fs.error import FileExists, NoSuchFile
from fs.protocol import Path, Pieces, Stat
from fs.session import Session
from fs.tree import File, Folder, Node, Tree


@dataclass
class Shelf:
    """Files by their path below `/shelf`, and directories; the longest piece that was held at once."""

    files: dict[Path, bytes] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)
    keys: list[str | None] = field(default_factory=list)
    entries: int = 0
    longest: int = 0

    def tree(self) -> Tree:
        many = Folder("very many", entries=self._many, find=self._none)
        return Tree(Folder("a root", {"shelf": self._folder(()), "many": many}))

    async def _many(self, session: Session) -> AsyncIterator[Stat]:
        for number in range(self.entries):
            yield Stat(f"entry-{number:06}", False, readable=True)

    async def _none(self, name: str, session: Session) -> Node | None:
        return None

    def _folder(self, path: Path) -> Folder:
        async def entries(session: Session) -> AsyncIterator[Stat]:
            for one in sorted({*self.files, *self.folders}):
                if one[:-1] == path:
                    is_file = one in self.files
                    yield Stat(one[-1], not is_file, readable=is_file, writable=is_file, removable=True)

        async def find(name: str, session: Session) -> Node | None:
            inner = (*path, name)
            return self._folder(inner) if inner in self.folders else self._file(inner)

        async def make(name: str, session: Session) -> None:
            self.keys.append(session.key)
            self.folders.add((*path, name))

        async def rename(name: str, to: Path, session: Session) -> None:
            self.keys.append(session.key)
            if to[1:] in self.files:
                raise FileExists
            self.files[to[1:]] = self.files.pop((*path, name))

        async def remove(session: Session) -> None:
            self.keys.append(session.key)
            self.folders.discard(path)

        return Folder(
            "a folder", {}, None, find, "<name>", "whatever is put there", entries=entries, make=make, rename=rename,
            remove=remove if path else None,
        )  # fmt: skip

    def _file(self, path: Path) -> File:
        async def pieces(session: Session) -> Pieces:
            if path not in self.files:
                raise NoSuchFile
            for at in range(0, len(self.files[path]), 65_536):
                yield self.files[path][at : at + 65_536]

        async def store(body: Pieces, session: Session) -> None:
            found = bytearray()
            async for piece in body:
                self.longest = max(self.longest, len(piece))
                found += piece
            self.keys.append(session.key)
            self.files[path] = bytes(found)

        async def remove(session: Session) -> None:
            self.keys.append(session.key)
            del self.files[path]

        return File("a file", pieces=pieces, store=store, remove=remove, absent=path not in self.files)
