"""`vendo relay up`: the embedded relay alone, without a node. Also `python -m cli.relay --home D --port P`."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from core.clock import SystemClock
from core.error import VendoError
from relays.embedded.service import EmbeddedRelay

_SWITCH_S = 0.0005  # the usual 5 ms let a busy loop starve the thread that writes


def relay_up(home: Path, host: str = "127.0.0.1", port: int = 7777) -> None:
    """Serve `home/relay.db` until SIGTERM or SIGINT.

    When it listens, one line of JSON with its `url` and `pid` is printed.

    Raises:
        VendoError: the address or the file cannot be had.
    """
    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(_serve(EmbeddedRelay(home / "relay.db", host, port, clock=SystemClock())))


async def _serve(relay: EmbeddedRelay) -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def announce() -> None:
        await ready.wait()
        sys.stdout.write(json.dumps({"url": relay.url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()

    announcing = asyncio.ensure_future(announce())
    try:
        await relay.run(ready, stop)
    finally:
        announcing.cancel()
        await asyncio.wait((announcing,))


def main() -> int:
    """Run it from the command line; the exit code is 1 if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m cli.relay", description="Run the embedded Nostr relay alone.")
    parser.add_argument("--home", type=Path, required=True, help="folder of the event file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=7777, help="port to listen on; 0 takes a free one")
    given = parser.parse_args()
    try:
        relay_up(given.home, given.host, given.port)
    except VendoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
