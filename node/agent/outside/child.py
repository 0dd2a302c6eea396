"""A command run for an agent: its pipes, bounds on what it says, and its end.

`node/agent/outside/warden.py` stands in between, so that nothing of it stays behind: not what it has started, and not
when the node is killed.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.agent.outside.error import CommandFailed

MAX_SAID = 8 << 20
MAX_LINE = 1 << 20
MAX_LINES = 100
_LINE_SHOWN = 2_000
_TAIL = 8_192
_CHUNK = 65_536
_GRACE_S, _KILLED_S = 2.0, 10.0
_WARDEN = Path(__file__).with_name("warden.py")


@dataclass(slots=True)
class Said:
    """Standard output. Lines are handed on as they come, the first hundred of them; but the last is kept."""

    hear: Callable[[str], None]
    count: int = 0
    last: bytes = b""
    _open: bytearray = field(default_factory=bytearray)

    def feed(self, chunk: bytes) -> None:
        """Some more bytes of it.

        Raises:
            CommandFailed: a line is too long.
        """
        self._open += chunk
        if b"\n" in chunk:
            whole, _, rest = bytes(self._open).rpartition(b"\n")
            self._open = bytearray(rest)
            *lines, others = [*whole.split(b"\n", MAX_LINES), b""][: MAX_LINES + 1]
            for line in lines:
                self._line(line)
            self._pass_over(others)
        if len(self._open) > MAX_LINE:
            raise CommandFailed(f"The command wrote a line of more than {MAX_LINE >> 10} KiB.")

    def end(self) -> None:
        """There is no more of it."""
        self._line(bytes(self._open))
        self._open.clear()

    def flush(self) -> None:
        """Hand the last line on as well: it was nothing else. And say how many more there were than were handed on."""
        self._hand_on()
        if self.count > MAX_LINES:
            self.hear(f"({self.count - MAX_LINES} more lines)")

    def _line(self, raw: bytes) -> None:
        if raw := raw.strip():
            self._hand_on()
            self.last = raw

    def _pass_over(self, lines: bytes) -> None:
        """Many lines, of which only the last matters: a loop over millions would hold up the node."""
        if lines := lines.rstrip():
            self._hand_on()
            self.count += lines.count(b"\n")
            self.last = lines.rpartition(b"\n")[2].strip()

    def _hand_on(self) -> None:
        if self.last:
            self.count += 1
            if self.count <= MAX_LINES:
                self.hear(self.last[:_LINE_SHOWN].decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `code` as a shell counts; `complained` is the end of standard error."""

    code: int
    said: Said
    complained: str

    @property
    def last(self) -> bytes:
        """The last line of standard output."""
        return self.said.last


class Child:
    """One command, running. Whoever has started it ends it."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline: int) -> None:
        self._process, self._lifeline = process, lifeline

    @classmethod
    async def start(cls, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> "Child":
        """Run a command.

        Args:
            argv: the program and its arguments; no shell looks at them.
            folder: where it runs.
            environment: all of it; nothing of the node's own is added.

        Raises:
            CommandFailed: the machine has no process to give, or the folder is not there.
        """
        theirs, ours = os.pipe()
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_WARDEN), str(theirs), *argv,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                cwd=folder, env=dict(environment), pass_fds=(theirs,), start_new_session=True, umask=0o077,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise CommandFailed(f"The command cannot be started: {error}.") from error
        finally:
            os.close(theirs)
            if process is None:
                os.close(ours)  # so that what was started all the same ends
        return cls(process, ours)

    async def talk(self, words: bytes, hear: Callable[[str], None]) -> Ended:
        """Give it standard input, and take what it says until it has ended.

        Args:
            words: for its standard input.
            hear: is given its lines, all but the last.

        Raises:
            CommandFailed: it says more than is taken; it still runs.
        """
        said, tail = Said(hear), bytearray()
        hearing = [asyncio.create_task(one) for one in (self._listen(said), self._keep(tail))]
        feeding = asyncio.create_task(self._feed(words))
        try:
            await asyncio.gather(*hearing)
        finally:
            for task in (*hearing, feeding):
                task.cancel()
            await asyncio.wait((*hearing, feeding))
        code = await self._process.wait()
        return Ended(code, said, tail.decode("utf-8", "replace"))

    async def _feed(self, words: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(ConnectionError):  # it need not read
            pipe.write(words)
            await pipe.drain()
            pipe.close()
            await pipe.wait_closed()

    async def _listen(self, said: Said) -> None:
        pipe, count = self._process.stdout, 0
        assert pipe is not None
        while chunk := await pipe.read(_CHUNK):
            count += len(chunk)
            if count > MAX_SAID:
                raise CommandFailed(f"The command wrote more than {MAX_SAID >> 20} MiB.")
            said.feed(chunk)
        said.end()

    async def _keep(self, tail: bytearray) -> None:
        pipe, count = self._process.stderr, 0
        assert pipe is not None
        while chunk := await pipe.read(_CHUNK):
            count += len(chunk)
            if count > MAX_SAID:
                raise CommandFailed(f"The command complained at more length than {MAX_SAID >> 20} MiB.")
            tail += chunk
            del tail[:-_TAIL]

    async def end(self, grace_s: float = _GRACE_S) -> None:
        """End it if it still runs: SIGTERM to its group, SIGKILL to all that it has started after `grace_s` seconds."""
        ending = asyncio.gather(self._process.wait(), _drain(self._process.stdout), _drain(self._process.stderr))
        try:
            if self._process.returncode is None and grace_s > 0:
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._lifeline, b"t")
                await asyncio.wait([ending], timeout=grace_s)
        finally:
            os.close(self._lifeline)
            await asyncio.wait([ending], timeout=_KILLED_S)
            if not ending.done():
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await asyncio.wait([ending], timeout=_KILLED_S)
                ending.cancel()


async def _drain(pipe: asyncio.StreamReader | None) -> None:
    """Read to the end and forget: asyncio counts a process as ended when its pipes are."""
    assert pipe is not None
    while await pipe.read(_CHUNK):
        pass
