"""The embedded relay as the child process of a node: `python -m relays.embedded.child`.

It has a loop, an interpreter and a file of its own, so that a flood of events takes nothing from the node's loop. It
is told by lines of JSON on standard input and answers on standard output:

in   settings (the first line), {"paid": {key: until}}, {"names": {name: key}}, {"taken": {"id", "until" or "refused"}}
out  {"ready": url}, {"health": {…}} every second, {"pay": {"id", "pubkey", "token"}}

When standard input ends, the relay ends: it never outlives its node, however that goes down.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from core.clock import SystemClock
from core.error import Unavailable, VendoError
from core.identifier import PubKey
from relays.embedded.service import EmbeddedRelay
from relays.embedded.setting import RelaySettings
from relays.embedded.toll import PaymentRefused, Toll

_SWITCH_S = 0.0005  # the usual 5 ms let a busy loop starve the thread that writes
_NICE = 10  # when both want the processor, money goes first
_HEALTH_S = 1.0
_LINE_BYTES = 8 << 20
_PAY_S = 60.0


def say(value: Mapping[str, Any]) -> None:
    """One line to the node."""
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
    sys.stdout.buffer.flush()


class PipeToll:
    """Asks the node to take a payment."""

    def __init__(self, mints: tuple[str, ...]) -> None:
        self.mints = mints
        self._paid: dict[PubKey, int] = {}
        self.paid: Mapping[PubKey, int] = MappingProxyType(self._paid)
        self._asked: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._number = 0

    def learn(self, paid: Mapping[PubKey, int]) -> None:
        """The node says who has paid."""
        self._paid.update(paid)

    def answer(self, taken: Mapping[str, Any]) -> None:
        """The node says what became of a payment."""
        future = self._asked.get(str(taken.get("id")))
        if future is not None and not future.done():
            future.set_result(taken)

    async def pay(self, pubkey: PubKey, token: str) -> int:
        """See `Toll`.

        Raises:
            PaymentRefused: as there.
            Unavailable: the node did not answer in time.
        """
        self._number += 1
        name = str(self._number)
        future = self._asked[name] = asyncio.get_running_loop().create_future()
        try:
            say({"pay": {"id": name, "pubkey": pubkey, "token": token}})
            taken = await asyncio.wait_for(future, _PAY_S)
        except TimeoutError as error:
            raise Unavailable("The payment is still under way.", remedy="Send the same token again.") from error
        finally:
            del self._asked[name]
        if "until" not in taken and taken.get("unsure"):
            raise Unavailable(str(taken.get("refused")), remedy="Send the same token again.")
        if "until" not in taken:
            raise PaymentRefused(str(taken.get("refused")), remedy="")
        self._paid[pubkey] = int(taken["until"])
        return self._paid[pubkey]


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _obey(reader: asyncio.StreamReader, names: dict[str, PubKey], toll: PipeToll, stop: asyncio.Event) -> None:
    """Follow the node's lines until they end."""
    while line := await reader.readline():
        order = orjson.loads(line)
        if "paid" in order:
            toll.learn(order["paid"])
        if "names" in order:
            names.clear()
            names.update(order["names"])
        if "taken" in order:
            toll.answer(order["taken"])
    stop.set()


async def _report(relay: EmbeddedRelay, ready: asyncio.Event) -> None:
    await ready.wait()
    say({"ready": relay.url})
    while True:
        say({"health": relay.health()})
        await asyncio.sleep(_HEALTH_S)


async def _serve() -> None:
    reader = await _lines()
    settings = RelaySettings.of_json(await reader.readline())
    names, pipe = dict(settings.names), PipeToll(settings.mints)
    toll: Toll | None = pipe if "payment" in settings.access.write_by else None
    relay = EmbeddedRelay.of(settings, SystemClock(), names=names, toll=toll)
    ready, stop = asyncio.Event(), asyncio.Event()
    # ^C in a terminal reaches the whole process group: the node decides when its relay ends.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    others = [
        asyncio.create_task(_obey(reader, names, pipe, stop)),
        asyncio.create_task(_report(relay, ready)),
    ]
    for task in others:  # one that fails ends the relay, and its error is raised below
        task.add_done_callback(lambda _: stop.set())
    try:
        await relay.run(ready, stop)
    finally:
        for task in others:
            task.cancel()
        done = await asyncio.gather(*others, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, Exception) and not isinstance(outcome, BrokenPipeError):
            raise outcome


def main() -> int:
    """Run until standard input ends; the exit code is 1 if it could not start, with the reason as a line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="relay: %(message)s")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # strangers' bad HTTP is no news
    sys.setswitchinterval(_SWITCH_S)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    try:
        asyncio.run(_serve())
    except VendoError as error:
        say({"failed": {"code": error.code, "message": str(error)}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
