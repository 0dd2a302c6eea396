"""A seller's large results on their way to its file servers: encrypted, kept in a file, uploaded, and then announced.

The encrypted bytes are in a file before the sale says that it is storing them, so a crash uploads the same bytes again;
a server that has them already is not sent them twice.
"""

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256

from core.clock import Clock
from core.error import VendoError
from core.guard import attempted
from dvm.error import NotStored
from dvm.parcel import INLINE_BYTES, MAX_BYTES, Files, Packed, Servers, keys_of, pointer_to
from relays.blob import Pointer, hash_of
from relays.event import MAX_EVENT_BYTES
from relays.file_message import encrypt_file
from relays.key import Keyring

log = logging.getLogger(__name__)

AT_ONCE = 4  # results that are encrypted or uploaded at once
COPIES = 2  # servers that are wanted
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
_ROUNDS = 8


class Shipping:
    """Puts large results on our file servers.

    Args:
        servers: ours.
        files: where what is on its way lies.
        keyring: the keys of results follow from its seed.
        clock: time.
        room: bytes of an event that all our relays take.
        inline_bytes: a result up to this stands in its event.
        max_bytes: of a result.
    """

    def __init__(
        self,
        servers: Servers,
        files: Files,
        keyring: Keyring,
        clock: Clock,
        *,
        room: Callable[[], int] = lambda: MAX_EVENT_BYTES,
        inline_bytes: int = INLINE_BYTES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._servers, self._files, self._keyring, self._clock = servers, files, keyring, clock
        self._room, self._inline_bytes, self._max_bytes = room, inline_bytes, max_bytes
        self._places = asyncio.Semaphore(AT_ONCE)
        self._since = clock.now()

    def takes(self, size: int, blob_bytes: int) -> bool:
        """Whether a result of so many bytes can go this way to a customer that fetches up to `blob_bytes`."""
        return bool(self._servers.servers) and size <= min(self._max_bytes, blob_bytes)

    def is_large(self, size: int, signed: str | None) -> bool:
        """Whether it has no place in an event, whose JSON is `signed` (None if none could be made)."""
        return size > self._inline_bytes or signed is None or len(signed) > min(self._room(), MAX_EVENT_BYTES)

    async def pack(self, request_id: str, text: str, mime: str) -> Packed:
        """Encrypt a result, and keep it until it is uploaded.

        Raises:
            VendoError: the disk does not take it.
        """
        async with self._places:
            packed, stored = await asyncio.to_thread(self._encrypted, request_id, text, mime)
            await self._files.hold(packed.x, stored)
        return packed

    def _encrypted(self, request_id: str, text: str, mime: str) -> tuple[Packed, bytes]:
        data = text.encode()
        ox = sha256(data).hexdigest()
        stored = encrypt_file(data, *keys_of(self._keyring, request_id, ox))
        return Packed(hash_of(stored), ox, len(stored), mime), stored

    async def ship(self, request_id: str, packed: Packed, within_s: float) -> Pointer:
        """Have our servers take it: two of them, or after several tries one. Where it is, with its key.

        Raises:
            NotStored: no server took it in time, or the file is gone.
        """
        end = self._clock.monotonic() + within_s
        taken: set[str] = set()
        reasons: dict[str, str] = {}
        wait = _FIRST_WAIT_S
        for tried in range(_ROUNDS):
            left = [server for server in self._servers.servers if server not in taken]
            async with self._places:
                for server, reason in await self._offer(packed, left, end - self._clock.monotonic()):
                    taken |= set() if reason else {server}
                    reasons[server] = reason
            enough = min(COPIES, len(self._servers.servers))
            if len(taken) >= enough or (taken and tried):
                break
            if self._clock.monotonic() + wait >= end:
                break
            await self._clock.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)
        for server in (one for one, reason in reasons.items() if reason):
            log.warning("A file server did not take a result: %s", reasons[server], extra={"action": "not_stored"})
        if not taken:
            why = next(iter(reasons.values()), "there is none")
            raise NotStored(f"The result is too long for one event, and no file server took it: {why}"[:200])
        order = [server for server in self._servers.servers if server in taken]
        return pointer_to(packed, order, self._keyring, request_id)

    async def _offer(self, packed: Packed, servers: list[str], left_s: float) -> list[tuple[str, str]]:
        """Upload to each at once; each with its reason if it did not take it."""
        stored = await self._files.held(packed.x)

        async def one(server: str) -> tuple[str, str]:
            _, error = await attempted(asyncio.wait_for(self._put(server, packed.x, stored), max(left_s, 1.0)))
            if error is None:
                return server, ""
            return server, error.message if isinstance(error, VendoError) else type(error).__name__

        return list(await asyncio.gather(*map(one, servers)))

    async def _put(self, server: str, x: str, stored: bytes | None) -> bool:
        if await self._servers.has(server, x):
            return True
        if stored is None:
            raise NotStored("The result that was to be uploaded is gone.")
        await self._servers.store(server, x, stored)
        return True

    async def done(self, packed: Packed) -> None:
        """It is announced, or never will be."""
        await self._files.release(packed.x)

    async def sweep(self, wanted: set[str]) -> None:
        """At the start: let go what no open sale waits for."""
        await self._files.sweep(wanted, self._since)
