"""nostr-sdk's LocalRelay in a process of its own: in memory, limits as high as they go. `python -m bench.local_relay`."""

import asyncio
import json
import os
import signal

import nostr_sdk


async def serve() -> None:
    """Listen on a free port until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    nostr_sdk.uniffi_set_event_loop(asyncio.get_running_loop())
    limit = nostr_sdk.RateLimit(max_reqs=500, notes_per_minute=100_000_000)
    relay = nostr_sdk.LocalRelayBuilder().addr("127.0.0.1").rate_limit(limit).build()
    await relay.run()
    print(json.dumps({"url": str(await relay.url()), "pid": os.getpid()}), flush=True)
    await stop.wait()
    relay.shutdown()
    await asyncio.sleep(0.1)
    os._exit(0)  # its threads can outlive the interpreter, which then crashes


if __name__ == "__main__":
    asyncio.run(serve())
