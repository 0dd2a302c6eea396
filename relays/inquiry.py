"""Asks a relay for its own description (NIP-11): one small HTTP request, which may as well be left unanswered."""

import asyncio
import logging

import aiohttp
from yarl import URL

from relays.address import canonical
from relays.error import MalformedEvent
from relays.nip11 import MAX_DOCUMENT_BYTES, MEDIA_TYPE, Information, parse_information

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0


async def information_of(url: str, session: aiohttp.ClientSession, timeout_s: float = TIMEOUT_S) -> Information | None:
    """The document of the relay at `url` (ws:// or wss://), or None if it gives none that can be read in time.

    `session` decides which addresses may be reached; no redirect is followed, and nothing compressed is unpacked.

    Raises:
        InvalidInput: `url` is no relay's address.
    """
    address = canonical(url)
    address = "http" + address.removeprefix("ws")
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(address, session)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        log.debug("No document from %s: %s", url, type(error).__name__)
        return None


async def _ask(address: str, session: aiohttp.ClientSession) -> Information | None:
    headers = {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"}
    async with session.get(URL(address), headers=headers, allow_redirects=False, auto_decompress=False) as answer:
        if answer.status != 200:
            return None
        body = bytearray()
        while chunk := await answer.content.read(MAX_DOCUMENT_BYTES):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                return None
    try:
        return parse_information(bytes(body))
    except MalformedEvent:
        return None
