"""The bench's children: each says one JSON line when it is ready, is bounded in time, and is ended by its own pid."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

MAX_CHILDREN = 16
START_S, STOP_S = 40.0, 12.0


class ChildFailed(RuntimeError):
    """A child did not start, or ended by itself."""


@dataclass(slots=True)
class Child:
    """One process of the bench."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def cpu_s(self) -> float:
        """User and system time so far, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory now, in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def check(self) -> None:
        """Raises ChildFailed if it has ended."""
        if self.process.returncode is not None:
            raise ChildFailed(f"{self.name} ended with {self.process.returncode}: {self.tail()}")

    def tail(self) -> str:
        """The end of what it logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:]

    async def stop(self) -> int | None:
        """SIGTERM, then SIGKILL for one that does not listen; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        return self.process.returncode


class Children:
    """All processes of one bench; all are gone when the block is left, however it is left."""

    def __init__(self, folder: Path, most: int = MAX_CHILDREN) -> None:
        self._folder, self._most = folder, most
        self._all: list[Child] = []

    async def __aenter__(self) -> "Children":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(child.stop() for child in reversed(self._all)))

    async def start(self, name: str, *argv: str, start_s: float = START_S) -> Child:
        """Run `python -m argv` and wait for its line.

        Raises:
            ChildFailed: too many children, no line in time, or not JSON.
        """
        if len(self._all) >= self._most:
            raise ChildFailed(f"more than {self._most} children")
        log = self._folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VENDO_")}
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=stderr, env=environment | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        child = Child(name, process, log)
        self._all.append(child)
        assert process.stdout is not None
        try:
            child.said = json.loads(await asyncio.wait_for(process.stdout.readline(), start_s))
        except (TimeoutError, json.JSONDecodeError) as error:
            raise ChildFailed(f"{name} did not start: {child.tail()}") from error
        return child
