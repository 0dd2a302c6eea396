"""A control plane with files of every kind, and `vendo mount` as a process over it: the kernel's own file system.

The plane runs in a thread, so that tests can use the mount with ordinary programs, and wait for them.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core.error import BudgetExceeded, InvalidInput, Paused
from fs.error import FileExists
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object
from tests.conftest import ROOT
from tests.integration.http.plane_part import TOKEN, Plane

BIG = b"".join(b"%07d\n" % number for number in range(400_000))
SHELLS = ("bash", "dash")


def may_mount() -> bool:
    return (
        os.access("/dev/fuse", os.R_OK | os.W_OK)
        and not subprocess.run(["sh", "-c", "command -v fusermount3"], capture_output=True).returncode
    )


@dataclass
class Desk:
    """What the files of the plane hold, and what came in."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    policy: bytes = b'{"limit": 1}\n'
    note: bytes = b"first\n"
    puts: list[bytes] = field(default_factory=list)
    secret: bytes = b""
    notes: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    ticks: list[str] = field(default_factory=list)

    def service(self) -> Tree:
        return Tree(
            Folder(
                "For tests.",
                {
                    "new": File("jobs", call=self._new, max_bytes=500_000),
                    "ctl": File("anything", read=self._state, call=self._call, max_bytes=2_000_000),
                    "policy": File("an object", read=self._read("policy"), write=self._set_policy),
                    "note": File("a text", read=self._read("note"), write=self._set("note"), max_bytes=8 << 20),
                    "secret": File("a secret", write=self._set("secret")),
                    "big": File("much", pieces=self._big),
                    "locked": File("nothing can be done", watch=None),
                    "ticker": File("words, and an end", watch=self._tick),
                    "notes": self._folder(),
                },
            )
        )

    async def _new(self, body: bytes, session: Session) -> bytes:
        job = json_object(body)
        if type(job.get("kind")) is not int:
            raise InvalidInput("A job has a kind.")
        if job["kind"] == 402:
            raise BudgetExceeded
        if job["kind"] == 503:
            raise Paused
        self.jobs.append(job)
        self.keys.append(session.key)
        return json_bytes({"job_id": len(self.jobs)})

    async def _call(self, body: bytes, session: Session) -> bytes:
        self.calls.append(body)
        return b"called\n"

    async def _state(self, session: Session) -> bytes:
        return b"as it was\n"

    def _read(self, name: str) -> Any:
        async def read(session: Session) -> bytes:
            return bytes(getattr(self, name))

        return read

    def _set(self, name: str) -> Any:
        async def write(body: bytes, session: Session) -> None:
            if b"bad" in body:
                raise InvalidInput("The text has a bad word in it.")
            self.puts.append(body)
            setattr(self, name, body)

        return write

    async def _set_policy(self, body: bytes, session: Session) -> None:
        if type(json_object(body).get("limit")) is not int:
            raise InvalidInput("A policy has a limit.")
        await self._set("policy")(body, session)

    async def _big(self, session: Session) -> AsyncIterator[bytes]:
        for at in range(0, len(BIG), 100_000):
            yield BIG[at : at + 100_000]

    async def _tick(self, session: Session, after: int | None) -> AsyncIterator[Record]:
        for number, word in enumerate(self.ticks, 1):
            if number > (after or 0):
                yield Record(number, word.encode(), "word")

    def _folder(self) -> Folder:
        def file(name: str) -> File:
            async def read(session: Session) -> bytes:
                return self.notes[name]

            async def write(body: bytes, session: Session) -> None:
                self.puts.append(body)
                self.notes[name] = body

            async def remove(session: Session) -> None:
                del self.notes[name]

            is_there = name in self.notes
            return File(
                "a note", read=read if is_there else None, write=write, remove=remove if is_there else None,
                absent=not is_there,
            )  # fmt: skip

        def folder(name: str) -> Folder:
            async def remove(session: Session) -> None:
                self.folders.discard(name)

            return Folder("a folder", remove=remove)

        async def find(name: str, session: Session) -> File | Folder | None:
            if name in self.folders:
                return folder(name)
            return file(name) if name.isalnum() and name != "README" else None

        async def names(session: Session) -> list[str]:
            return sorted(self.notes)

        async def make(name: str, session: Session) -> None:
            self.folders.add(name)

        async def rename(name: str, to: tuple[str, ...], session: Session) -> None:
            if to[-1] in self.notes:
                raise FileExists
            self.notes[to[-1]] = self.notes.pop(name)

        return Folder("notes", {}, names, find, "<name>", "a note", make=make, rename=rename)


class Hill(Plane):
    """The plane of other tests, with a desk; agent b has very many files."""

    def __post_init__(self) -> None:
        self.desk = Desk()
        self.many = 0
        super().__post_init__()

    def namespace(self, name: str) -> Namespace:
        mounts = list(super().namespace("a" if name == "node" else name).mounts)
        mounts.append(Mount("/desk", self.desk.service(), Access.WRITE, "for tests"))
        if name == "b":
            mounts.append(Mount("/many", Tree(Folder("many", names=self._many)), Access.READ, "many files"))
        return Namespace(mounts)

    async def _many(self, session: Session) -> list[str]:
        return [f"file{number:06d}" for number in range(self.many)]


class Ground:
    """What a test stands on: the plane, the mount and its process, and programs that use it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.scratch = folder / "home", folder / "scratch"
        self.home.mkdir()
        self.scratch.mkdir()
        self.place = Path(tempfile.mkdtemp(prefix="vendo-test-")) / "mnt"  # where another user would get through
        self.place.mkdir()
        self.place.parent.chmod(0o755)
        (self.home / "token").write_text(TOKEN)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.agent = self.place / "agents" / "a"
        self.desk_path = self.agent / "desk"

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the plane's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    @property
    def desk(self) -> Desk:
        return self.plane.desk

    def up(self, plane: Hill | None = None) -> None:
        async def start() -> None:
            self.plane = plane or Hill()
            self._stop, ready = asyncio.Event(), asyncio.Event()
            self._running = asyncio.create_task(self.plane.control.run(ready, self._stop))
            await ready.wait()

        self.wait(start())
        told = {"url": self.plane.control.url, "pid": os.getpid()}
        (self.home / "control.json").write_text(json.dumps(told))

    def down(self) -> None:
        async def stop() -> None:
            self._stop.set()
            await asyncio.wait_for(self._running, 60)

        (self.home / "control.json").unlink(missing_ok=True)
        self.wait(stop())

    def log(self, word: str) -> None:
        self.wait(self.plane.log(word))

    @contextmanager
    def mounted(self, place: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        argv = [sys.executable, "-m", "cli.main", "mount", str(place), "--home", str(self.home), "--json", *options]
        with (self.scratch / "stderr").open("ab") as errors:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (self.scratch / "stderr").read_text()
            assert json.loads(line).get("mounted") == str(place), line
            yield process
            subprocess.run(["fusermount3", "-u", str(place)], capture_output=True)
            assert process.wait(10) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
                subprocess.run(["fusermount3", "-u", "-z", str(place)], capture_output=True)
            process.communicate()

    def run(self, *argv: str, timeout: float = 20, **more: Any) -> "Ran":
        env = {**os.environ, "LC_ALL": "C", "M": str(self.place), "D": str(self.desk_path), "S": str(self.scratch)}
        ran = subprocess.run(argv, capture_output=True, timeout=timeout, env=env, cwd=self.scratch, **more)
        return Ran(ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace"))

    def sh(self, script: str, shell: str = "dash", **more: Any) -> "Ran":
        return self.run(shell, "-c", script, **more)

    def until(self, good: Callable[[], Any], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < end, what
            time.sleep(0.02)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)
