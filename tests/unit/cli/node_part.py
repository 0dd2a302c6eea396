"""A control plane as a node has it, over a small tree of files, and a way to run the command against it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.main import run
from core.unit import UnitOfWork
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes
from node.home import CONTROL, TOKEN
from node.http.control import ControlPlane
from node.http.token import Tokens

SECRET = "a-token-of-the-operator"


@dataclass
class Steps:
    """Answers in turn; the last one stays."""

    answers: list[Any]

    def next(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass
class Node:
    """Paths and what they answer; what was asked is kept as (path, body, key)."""

    answers: dict[str, Any]
    home: Path
    asked: list[tuple[str, Any, str | None]] = field(default_factory=list)

    def _answer(self, path: str) -> bytes:
        answer = self.answers[path]
        answer = answer.next() if isinstance(answer, Steps) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer.encode() if isinstance(answer, str) else json_bytes(answer)

    def _file(self, path: str) -> File:
        async def read(session: Session) -> bytes:
            return self._answer(path)

        async def call(body: bytes, session: Session) -> bytes:
            self.asked.append((path, json.loads(body) if body[:1] == b"{" else body.decode(), session.key))
            return self._answer(path)

        async def write(body: bytes, session: Session) -> None:
            self.asked.append((path, body.decode(), None))

        async def watch(session: Session, after: int | None) -> AsyncIterator[Record]:
            for number in (1, 2):
                yield Record(number, b'{"n":%d}' % number, "tick")

        return File(f"the file {path}", read=read, call=call, write=write, watch=watch)

    def tree(self) -> Tree:
        root: dict[str, Any] = {}
        for path in self.answers:
            *folders, name = path.split("/")
            entries = root
            for folder in folders:
                entries = entries.setdefault(folder, {})
            entries[name] = self._file(path)
        return Tree(_folder(root))

    async def vendo(self, *words: str) -> int:
        """Run the command as another thread would see it; its exit code."""
        return await asyncio.to_thread(run, [*words, "--home", str(self.home)])


def _folder(entries: dict[str, Any]) -> Folder:
    files = {name: _folder(entry) if isinstance(entry, dict) else entry for name, entry in entries.items()}
    return Folder("a folder of this test", files)


def write_home(home: Path, url: str, *, pid: int | None = None) -> None:
    home.mkdir(exist_ok=True)
    (home / CONTROL).write_text(json.dumps({"url": url, "pid": pid or os.getpid()}))
    (home / TOKEN).write_text(SECRET + "\n")


@asynccontextmanager
async def running(home: Path, answers: dict[str, Any], names: Sequence[str] = ()) -> AsyncIterator[Node]:
    """A node's control plane that answers for every agent from one table."""
    node = Node(answers, home)
    async with serving(home, node.tree(), names):
        yield node


@asynccontextmanager
async def serving(home: Path, tree: Tree, names: Sequence[str] = ()) -> AsyncIterator[None]:
    """A control plane over one tree for every agent, in a home where the command finds it."""
    spaces = Namespace([Mount("/", tree, Access.WRITE, "everything")])

    async def agents() -> AsyncIterator[Mapping[str, Any]]:
        for name in names:
            yield {"name": name, "status": "active"}

    unit: UnitOfWork = None  # no file of this tree commits
    plane = ControlPlane(lambda _: spaces, agents, Tokens.for_operator(SECRET), unit)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(plane.run(ready, stop))
    await ready.wait()
    write_home(home, plane.url)
    try:
        yield
    finally:
        stop.set()
        await task
