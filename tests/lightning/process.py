"""A child process of the tests: it can be killed, held still and started again, and does not outlive them.

`setpriv --pdeathsig=KILL` ends it with whoever started it, also when that one is killed.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HANGS_S = 60.0  # nothing here takes long: what takes longer hangs
_START_S = 120.0  # an interpreter that loads a mint takes 2 s of a core, of which others may want their part
_STOP_S = 10.0
_TAIL = 3000


class DidNotStart(RuntimeError):
    """The process ended, or was never ready; the message has the end of its log."""


async def until(ask: Callable[[], Awaitable[T]], what: str, limit_s: float = HANGS_S) -> T:
    """Ask again and again until the answer is true, and give it."""
    loop = asyncio.get_running_loop()
    end, is_over = loop.time() + limit_s, False
    while not is_over:
        is_over = loop.time() >= end  # who stood still meanwhile asks once more
        if answer := await ask():
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {limit_s:g} s for {what}")


class Process:
    """One program, run in a folder of its own; all that it writes is in `log`."""

    def __init__(self, name: str, folder: Path, log: Path) -> None:
        self.name, self.folder, self.log = name, folder, log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Run it. Whether it is ready is its own matter."""
        assert not self.runs
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "setpriv", "--pdeathsig=KILL", *argv, cwd=self.folder, env=dict(env),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def ready(self, ask: Callable[[], Awaitable[T]], limit_s: float = _START_S) -> T:
        """Wait until the answer is true, and give it.

        Raises:
            DidNotStart: it has ended, or is not ready within the limit.
        """
        try:
            return await until(lambda: self._ask(ask), f"{self.name} to be ready", limit_s)
        except AssertionError as error:
            raise DidNotStart(f"{error}. {self.tail()}") from None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        if not self.runs:
            code = self._process.returncode if self._process else None
            raise DidNotStart(f"{self.name} ended with {code}. {self.tail()}")
        return await ask()

    def tail(self) -> str:
        """What it wrote last."""
        said = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return f"{self.name} last said:\n{said[-_TAIL:]}"

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and say nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self.runs:
            self._signal(signal.SIGKILL)
            assert self._process is not None
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if not self.runs:
            return
        assert self._process is not None
        self.thaw()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
