"""nostr-sdk's LocalRelay as a process of its own: local_relay.py --port P [--auth].

In memory. Its own limits that can be lifted are lifted; those that cannot (500 results, 64 KiB an event, 6,000 frames
without a second's rest) stay, since clients meet them.
"""

import argparse
import asyncio
import os
import signal

from nostr_sdk import LocalRelayBuilder, LocalRelayBuilderNip42, LocalRelayBuilderNip42Mode, RateLimit
from nostr_sdk import uniffi_set_event_loop as set_event_loop


async def serve(port: int, auth: bool) -> None:
    loop = asyncio.get_running_loop()
    set_event_loop(loop)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    builder = LocalRelayBuilder().addr("127.0.0.1").port(port)
    builder = builder.rate_limit(RateLimit(max_reqs=500, notes_per_minute=100_000_000)).max_connections(4096)
    if auth:
        builder = builder.nip42(LocalRelayBuilderNip42(mode=LocalRelayBuilderNip42Mode.BOTH)).auth_dm(True)
    relay = builder.build()  # the name keeps it: a collected relay stops
    await relay.run()
    await stop.wait()
    relay.shutdown()
    os._exit(0)  # the library may crash in the interpreter's own end


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--auth", action="store_true")
given = parser.parse_args()
asyncio.run(serve(given.port, given.auth))
