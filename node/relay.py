"""The relay inside a node: a child process with a listener of its own, started and stopped with the node.

A process, not a task: a flood on the relay would share the loop and the interpreter's lock with the wallet
(docs/adr/0007). The child ends when its standard input does, so that it never outlives the node.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from core.clock import Clock
from core.error import Unavailable, VendoError
from core.identifier import PubKey
from relays.embedded.setting import RelaySettings
from relays.embedded.toll import Toll

log = logging.getLogger(__name__)

_START_S = 120.0
_STOP_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S, _HEALTHY_S = 0.5, 60.0, 60.0
_LINE_BYTES = 1 << 20


class RelayFailed(Unavailable):
    """The node's own relay could not be started."""

    code = "relay.start"
    remedy = "Look at [relay] in config.toml, and whether its port and its file are free."


class OwnRelay:
    """A service of the node.

    Args:
        settings: how the relay is set up.
        clock: for waiting between restarts.
        toll: takes payments for writing; None if nothing is sold.
    """

    def __init__(self, settings: RelaySettings, clock: Clock, toll: Toll | None = None) -> None:
        self._settings, self._clock, self._toll = settings, clock, toll
        self._process: asyncio.subprocess.Process | None = None
        self._payments: set[asyncio.Task[None]] = set()
        self._names = dict(settings.names)
        self.url = ""
        self.health: Mapping[str, int] = {}
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the child process, while there is one."""
        return self._process.pid if self._process is not None else None

    def set_names(self, names: Mapping[str, PubKey]) -> None:
        """These are the NIP-05 names from now on."""
        self._names = dict(names)
        self._tell({"names": self._names})

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Keep a relay running until `stop`; one that dies is started again, more and more slowly.

        Raises:
            RelayFailed: it could not be started the first time.
        """
        wait = _FIRST_WAIT_S
        while not stop.is_set():
            began = self._clock.monotonic()
            try:
                await self._once(ready, stop)
            except RelayFailed as error:
                if not ready.is_set():
                    raise
                log.warning("the relay does not start: %s", error, extra={"action": "relay_failed"})
            if stop.is_set():
                return
            self.restarts += 1
            wait = _FIRST_WAIT_S if self._clock.monotonic() - began > _HEALTHY_S else min(wait * 2, _LONGEST_WAIT_S)
            log.warning("the relay ended; it is started again in %.1f s", wait, extra={"action": "relay_restart"})
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait)

    async def _once(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "relays.embedded.child",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
                env=_environment(),
            )  # fmt: skip
        except OSError as error:
            raise RelayFailed(f"The relay's process cannot be made ({error.strerror}).") from error
        hearing = asyncio.create_task(self._hear(process, ready))
        stopping = asyncio.create_task(stop.wait())
        try:
            self._write(process, self._settings.to_json())
            self._tell({"names": self._names, "paid": dict(self._toll.paid) if self._toll else {}})
            await asyncio.wait((hearing, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await _end(process)
            await asyncio.gather(hearing, *self._payments, return_exceptions=True)
            self._process, self.health = None, {}
        if hearing.done() and not hearing.cancelled():
            hearing.result()

    async def _hear(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        """Follow the child's lines until they end.

        Raises:
            RelayFailed: it says why it does not start, or says nothing.
        """
        if process.stdout is None:
            raise RelayFailed
        patience: float | None = _START_S
        while True:
            try:
                line = await asyncio.wait_for(process.stdout.readline(), patience)
                said: dict[str, Any] = orjson.loads(line or b"{}")
            except TimeoutError as error:
                raise RelayFailed("The relay did not say within 20 seconds where it listens.") from error
            except ValueError as error:  # no JSON, or a line that is too long: it faces strangers, the node goes on
                raise RelayFailed("The relay's process says what nobody understands.") from error
            if not line:
                return
            if "failed" in said:
                raise RelayFailed(f"The relay does not start. {said['failed']['message']}")
            if "ready" in said:
                self.url, patience = said["ready"], None
                ready.set()
            self.health = said.get("health", self.health)
            if "pay" in said:
                task = asyncio.create_task(self._take(said["pay"]))
                self._payments.add(task)
                task.add_done_callback(self._payments.discard)

    async def _take(self, asked: Mapping[str, str]) -> None:
        """A payment that somebody made at the relay's page."""
        answer: dict[str, Any] = {"id": asked["id"]}
        try:
            if self._toll is None:
                raise Unavailable("Nothing is sold here.")
            answer["until"] = await self._toll.pay(PubKey(asked["pubkey"]), asked["token"])
        except VendoError as error:
            answer["refused"], answer["unsure"] = str(error), error.status >= 500
        # Who has paid is told beside the answer, which the relay may have given up waiting for.
        self._tell({"taken": answer, "paid": {asked["pubkey"]: answer["until"]} if "until" in answer else {}})

    def _tell(self, order: Mapping[str, Any]) -> None:
        if self._process is not None:
            self._write(self._process, orjson.dumps(order))

    @staticmethod
    def _write(process: asyncio.subprocess.Process, line: bytes) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(line + b"\n")


def _environment() -> dict[str, str]:
    """Nothing of ours but where Python finds itself: no passphrase or token reaches a process that serves strangers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VENDO_")}


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
