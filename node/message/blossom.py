"""Files on Blossom servers (BUD-01, BUD-02): uploads to our own, downloads from wherever others say, guarded.

A stranger's address must not reach into our own network: each connection is checked after resolution, and each redirect
is a new one. Our own servers, named by the operator, may be anywhere; but only when they are asked at once, or lead on
to themselves. Wherever else a redirect leads is somebody's word, even if it is a server of ours.
"""

import asyncio
import base64
from collections.abc import Sequence

import aiohttp
from yarl import URL

from core.clock import Clock
from node.message.error import FileRefused, FileUnreachable, NoFileServer
from relays.file_message import upload_draft
from relays.guard import guarded
from relays.signer import Signer

AUTH_S = 300
TIMEOUT_S = 60.0
MAX_REDIRECTS = 3
_PAYMENT_REQUIRED = 402
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 65_536


class Blossom:
    """A client of file servers.

    Args:
        servers: our own, the first one is the one that must take a file.
        clock: time.
        max_bytes: of one file, as it is stored.
        signer: signs what `store` needs.
    """

    def __init__(self, servers: Sequence[str], clock: Clock, max_bytes: int, signer: Signer | None = None) -> None:
        self._signer = signer
        self.servers = tuple(url.rstrip("/") for url in servers)
        self.max_bytes = max_bytes
        self._origins = {URL(url).origin() for url in self.servers}
        self._clock = clock
        self._ours: aiohttp.ClientSession | None = None
        self._guest: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make ready to connect."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=10.0)
        self._ours = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        public = aiohttp.TCPConnector(socket_factory=guarded)
        self._guest = aiohttp.ClientSession(
            connector=public, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def stop(self) -> None:
        """Close every connection."""
        for session in (self._ours, self._guest):
            if session is not None:
                await session.close()

    def addresses(self, x: str) -> tuple[str, ...]:
        """Where a blob will be.

        Raises:
            NoFileServer: we have no server.
        """
        if not self.servers:
            raise NoFileServer
        return tuple(f"{server}/{x}" for server in self.servers)

    async def upload(self, x: str, stored: bytes, signer: Signer) -> int:
        """Store a blob at our servers: at how many. The first of them must take it.

        Raises:
            NoFileServer: we have none.
            FileUnreachable: the first one did not take it.
        """
        self.addresses(x)
        token = await self._token(x, signer)
        taken = 0
        for place, server in enumerate(self.servers):
            try:
                await self._put(server, x, stored, token)
                taken += 1
            except FileUnreachable:
                if place == 0:
                    raise
        return taken

    async def _token(self, x: str, signer: Signer) -> str:
        now = self._clock.now()
        event = await signer.sign(upload_draft(x, now, now + AUTH_S))
        return "Nostr " + base64.b64encode(event.to_json().encode()).decode()

    async def store(self, server: str, x: str, stored: bytes) -> None:
        """Store a blob at one of our servers, in the name that this client was given.

        Raises:
            FileUnreachable: it did not take it, or wants to be paid (BUD-07), which we do not.
        """
        if self._signer is None:
            raise FileUnreachable("This client of file servers has no key to upload with.")
        await self._put(server, x, stored, await self._token(x, self._signer))

    async def has(self, server: str, x: str) -> bool:
        """Whether one of our servers says that it has a blob.

        Raises:
            FileUnreachable: it did not answer.
        """
        if self._ours is None:
            raise FileUnreachable("The client of file servers is not running.")
        try:
            async with self._ours.head(f"{server}/{x}", allow_redirects=False) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise FileUnreachable(f"{server} did not answer ({type(error).__name__}).") from error

    async def fetch(self, url: str, most: int, within_s: float) -> bytes:
        """A blob from one address, within so many seconds in all.

        Raises:
            FileRefused: it is longer than `most` bytes.
            FileUnreachable: the address did not answer, not well, or too slowly.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._get(url, most)
        except TimeoutError as error:
            raise FileUnreachable(f"The file did not come within {within_s:g} s.") from error

    async def _put(self, server: str, x: str, stored: bytes, token: str) -> None:
        if self._ours is None:
            raise FileUnreachable("The client of file servers is not running.")
        headers = {"Authorization": token, "Content-Type": "application/octet-stream", "X-SHA-256": x}
        try:
            async with self._ours.put(
                f"{server}/upload", data=stored, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status not in (200, 201):
                    reason = answer.headers.get("X-Reason", "")[:200]
                    if answer.status == _PAYMENT_REQUIRED:
                        raise FileUnreachable(f"{server} wants to be paid for an upload, which is not done. {reason}")
                    raise FileUnreachable(f"{server} answered {answer.status} to an upload. {reason}".strip())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise FileUnreachable(f"{server} did not take the file ({type(error).__name__}).") from error

    async def download(self, urls: Sequence[str], most: int) -> bytes:
        """A blob from the first address that has it.

        Raises:
            FileRefused: it is longer than `most` bytes.
            FileUnreachable: no address answered.
        """
        failure: FileUnreachable = FileUnreachable("The message names no address.")
        for url in urls:
            try:
                return await self._get(url, min(most, self.max_bytes))
            except FileUnreachable as error:
                failure = error
        raise failure

    async def _get(self, url: str, most: int) -> bytes:
        try:
            target = URL(url)
            first, ours = target.origin(), target.origin() in self._origins
            for _ in range(MAX_REDIRECTS + 1):
                session = self._ours if ours else self._guest
                if session is None:
                    raise FileUnreachable("The client of file servers is not running.")
                async with session.get(target, allow_redirects=False) as answer:
                    if answer.status in _REDIRECTS:
                        target = target.join(URL(answer.headers.get("Location", "")))
                        if target.scheme not in ("http", "https"):
                            raise FileUnreachable("The server points to an address that is no web address.")
                        ours = ours and target.origin() == first
                        continue
                    if answer.status != 200:
                        raise FileUnreachable(f"{target.host} answered {answer.status}.")
                    return await _body(answer, most)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, IndexError) as error:
            raise FileUnreachable(f"The file cannot be fetched ({type(error).__name__}).") from error
        raise FileUnreachable("The server redirects too often.")


async def _body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    if (answer.content_length or 0) > most:
        raise FileRefused(f"The file is longer than {most} bytes.")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > most:
            raise FileRefused(f"The file is longer than {most} bytes.")
    return bytes(body)
