"""The parts that move large results, put together: file servers, and the folders where such results lie."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from core.clock import Clock
from dvm.shipping import Shipping
from dvm.unpacking import Fetch, Unpacking
from node.blob import BlobSection
from node.message.blossom import Blossom
from node.message.shelf import Shelf
from relays.blob import TAG_BYTES
from relays.key import Keyring
from relays.local_signer import KeySigner

BOUGHT, SOLD = "bought", "sold"  # folders


class Parcels:
    """Sends and fetches large results; one of the node's parts.

    Args:
        section: the settings.
        folder: where they lie.
        room: bytes of an event that all our relays take.
        fetch: what our relays have stored, verified, within so many seconds.
        keyring: its node key signs uploads.
        clock: time.
        check: raises if nothing is to be written now: the disk is nearly full.
    """

    def __init__(
        self,
        section: BlobSection,
        folder: Path,
        room: Callable[[], int],
        fetch: Fetch,
        keyring: Keyring,
        clock: Clock,
        check: Callable[[], None],
    ) -> None:
        most, quota = section.max_mb << 20, section.results_mb << 20
        self._blossom = Blossom(section.servers, clock, most + TAG_BYTES, KeySigner(keyring.node))
        self.shipping = Shipping(
            self._blossom,
            Shelf(folder / SOLD, quota, check),
            keyring,
            clock,
            room=room,
            inline_bytes=section.inline_kb << 10,
            max_bytes=most,
        )
        self.unpacking = Unpacking(
            self._blossom,
            Shelf(folder / BOUGHT, quota, check),
            clock,
            fetch,
            max_bytes=most,
            server_s=section.server_s,
        )

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Be able to connect until `stop`."""
        await self._blossom.start()
        try:
            ready.set()
            await stop.wait()
        finally:
            await self._blossom.stop()
