"""Asks a domain whom it knows by a name (NIP-05). A name comes from strangers: only public addresses are reached."""

import asyncio
import logging

import aiohttp
from yarl import URL

from core.identifier import PubKey
from relays.guard import guarded
from relays.nip05 import MAX_DOCUMENT_BYTES, Named, parse_address, read_document

log = logging.getLogger(__name__)

TIMEOUT_S = 8.0


def guarded_session() -> aiohttp.ClientSession:
    """A session that connects to public addresses alone, checked after the name was resolved."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=guarded), auto_decompress=False)


async def look_up(text: str, session: aiohttp.ClientSession, timeout_s: float = TIMEOUT_S) -> Named | None:
    """Whom `name@domain` names now; None if nobody, or if the domain does not say so in time.

    No redirect is followed (NIP-05 forbids it), and nothing compressed is unpacked.

    Raises:
        InvalidInput: it is no such address.
    """
    address = parse_address(text)
    try:
        async with asyncio.timeout(timeout_s):
            raw = await _document(address.url, session)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        log.debug("no names from %s: %s", address.domain, type(error).__name__)
        return None
    return None if raw is None else read_document(raw, address.name)


async def is_named(text: str, pubkey: PubKey, session: aiohttp.ClientSession, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the domain names this key by this name, now.

    Raises:
        InvalidInput: it is no such address.
    """
    found = await look_up(text, session, timeout_s)
    return found is not None and found.pubkey == pubkey


async def _document(url: str, session: aiohttp.ClientSession) -> bytes | None:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
        if answer.status != 200:
            return None
        body = bytearray()
        while chunk := await answer.content.read(MAX_DOCUMENT_BYTES):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                return None
    return bytes(body)
