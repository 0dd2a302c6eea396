"""`vendo relay up`: the embedded relay alone, without a node. Also `python -m cli.relay --home D --port P`."""

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from core.clock import SystemClock
from core.error import VendoError
from node.config import FILE, load
from node.error import ConfigInvalid
from node.hosting import RelaySection, settings_of
from relays.embedded.service import EmbeddedRelay
from relays.embedded.setting import RelaySettings

_SWITCH_S = 0.0005  # the usual 5 ms let a busy loop starve the thread that writes
PRIVACY = ("parties", "everybody")


def settings_in(
    home: Path, host: str | None = None, port: int | None = None, private_messages: str | None = None
) -> RelaySettings:
    """What a relay of this home is told: `[relay]` of its config.toml if it has one, and what is given here.

    Raises:
        ConfigInvalid: the configuration is wrong, or wants payments, which need a node's wallet.
    """
    section = load(home).relay if (home / FILE).exists() else RelaySection()
    if "payment" in section.write_by:
        raise ConfigInvalid('[relay] write_by "payment" needs the wallet of a node: set enabled and run `vendo up`.')
    settings = settings_of(section, home, version=version("vendo"))
    private = section.private_messages if private_messages is None else private_messages
    return replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        access=replace(settings.access, private=private == "parties"),
    )


def relay_up(settings: RelaySettings) -> None:
    """Serve until SIGTERM or SIGINT.

    When it listens, one line of JSON with its `url` and `pid` is printed.

    Raises:
        VendoError: the address or the file cannot be had.
    """
    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(_serve(EmbeddedRelay.of(settings, SystemClock())))


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
    parser.add_argument("--home", type=Path, required=True, help="folder of the event file, and of config.toml if any")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    parser.add_argument("--private-messages", choices=PRIVACY, help="who gets kinds 4, 1059 and 21059")
    given = parser.parse_args()
    try:
        relay_up(settings_in(given.home, given.host, given.port, given.private_messages))
    except VendoError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
