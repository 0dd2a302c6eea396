"""What a check of `vendo doctor` found, and how long one may take."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar, cast

from core.guard import caught

T = TypeVar("T")
PATIENCE_S = 6.0
"""Seconds for one check; all of them run at once."""


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what it is, and if that is not well, what to do. `outside` is a relay or mint, not this machine."""

    name: str
    state: State
    detail: str
    fix: str = ""
    outside: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"name": self.name, "state": self.state.value, "detail": self.detail, "fix": self.fix}


def ok(name: str, detail: str, fix: str = "") -> Check:
    """Nothing is wrong; `fix` is then advice."""
    return Check(name, State.OK, detail, fix)


def warn(name: str, detail: str, fix: str) -> Check:
    """The node works, for now or in part."""
    return Check(name, State.WARN, detail, fix)


def fail(name: str, detail: str, fix: str) -> Check:
    """The node does not work, or loses something."""
    return Check(name, State.FAIL, detail, fix)


async def bounded(name: str, work: Awaitable[list[Check]], fix: str, patience_s: float = PATIENCE_S) -> list[Check]:
    """What a check finds, or that it took too long, or may not look."""
    try:
        return await asyncio.wait_for(work, patience_s)
    except TimeoutError:
        return [fail(name, f"There was no answer within {patience_s:g} s.", fix)]
    except OSError as error:
        return [fail(name, f"It cannot be looked at: {error.filename or ''} {error.strerror or error}.", fix)]


async def detached(work: Callable[[], T]) -> T:
    """Run what may block in a thread that nobody waits for, not even at the end of the process.

    A file system or a name server that does not answer then costs a check its time and no more.
    """
    done: Future[T] = Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # it cannot be cancelled from here on
        result, error = caught(work)
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    threading.Thread(target=run, daemon=True, name="checkup").start()
    return await asyncio.wrap_future(done)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that asks for names in the same way: asyncio's own would wait for the name server at its end."""

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As `socket.getaddrinfo`."""
        return await detached(partial(socket.getaddrinfo, host, port, family, type, proto, flags))
