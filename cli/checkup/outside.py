"""Relays and mints: whether they answer, what they ask for, and which time it is there."""

import asyncio
import json
import os
import ssl
import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from cli.checkup.finding import Check, State, fail, ok, warn
from relays.error import MalformedEvent
from relays.nip11 import MAX_DOCUMENT_BYTES, MEDIA_TYPE, Information, parse_information

_LEAST_MESSAGE = 65_536  # a private message of some pages, encrypted twice
_MAX_BODY = 1 << 20
_HALF_S = 0.5  # a Date header has whole seconds
_CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)
_FAULTS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found of a server, and by how many seconds our clock is ahead of its own; None if it did not say."""

    check: Check
    offset: float | None = None

    @property
    def is_away(self) -> bool:
        """It could not be reached at all."""
        return self.check.state is State.FAIL


async def relay(http: aiohttp.ClientSession, url: str, patience_s: float) -> Answer:
    """Open a websocket and ask for one event: a relay answers EVENT, EOSE, CLOSED or AUTH. And read its NIP-11."""
    name, page = f"relay {url}", "http" + url.removeprefix("ws")
    fix = f"Run: curl -sS -H 'Accept: {MEDIA_TYPE}' {page}; or use another relay in config.toml"
    try:
        async with (
            asyncio.timeout(patience_s),
            http.ws_connect(url, max_msg_size=_MAX_BODY, timeout=_CLOSING) as socket,
        ):
            information, offset = await _document(http, page)
            begun = time.monotonic()
            await socket.send_str('["REQ","doctor",{"kinds":[0],"limit":1}]')
            message = await socket.receive()
            took = (time.monotonic() - begun) * 1000
    except _FAULTS as error:
        return Answer(_outside(fail(name, f"It cannot be reached: {_why(error, patience_s)}.", fix)))
    if message.type is not aiohttp.WSMsgType.TEXT:
        return Answer(_outside(fail(name, "It closes the connection.", fix)), offset)
    asks = demands(information)
    said = f"It answers in {took:.0f} ms" + (f", but {'; '.join(asks)}." if asks else ".")
    return Answer(_outside(warn(name, said, fix) if asks else ok(name, said)), offset)


async def _document(http: aiohttp.ClientSession, page: str) -> tuple[Information, float | None]:
    """A websocket handshake carries no date; the relay's information document (NIP-11) usually does."""
    offset, raw = None, b""
    try:
        begun = time.time()
        async with http.get(page, headers={"Accept": MEDIA_TYPE, "Cache-Control": "no-cache"}) as answer:
            offset = _offset(answer, begun)
            async for piece in answer.content.iter_chunked(MAX_DOCUMENT_BYTES):
                raw += piece
                if len(raw) > MAX_DOCUMENT_BYTES:
                    break
        return parse_information(raw), offset
    except (MalformedEvent, *_FAULTS):
        return Information(), offset


def demands(information: Information) -> list[str]:
    """What keeps a node's events off a relay, by the relay's own word."""
    found = []
    if information.payment_required:
        found.append(f"it wants to be paid first{f' ({information.payments_url})' if information.payments_url else ''}")
    if bits := information.min_pow_difficulty:
        found.append(f"it wants {bits} bits of proof of work in every event, which a node does not do")
    if (most := information.max_message_length) is not None and most < _LEAST_MESSAGE:
        found.append(f"it takes messages of {most} bytes only")
    if (most := information.max_content_length) is not None and most < _LEAST_MESSAGE // 2:
        found.append(f"it takes contents of {most} characters only")
    return found


async def mint(http: aiohttp.ClientSession, url: str, patience_s: float) -> Answer:
    """NUT-06: who a mint is and what it can; NUT-02: whether it has keys for satoshi."""
    name, fix = f"mint {url}", f"Run: curl -sS {url}/v1/info. Money at this mint cannot be moved until it answers"
    try:
        async with asyncio.timeout(patience_s):
            begun = time.time()
            async with http.get(f"{url}/v1/info", headers={"Cache-Control": "no-cache"}) as answer:
                offset, status = _offset(answer, begun), answer.status
                body = await answer.json(content_type=None)
            async with http.get(f"{url}/v1/keysets") as answer:
                keysets = await answer.json(content_type=None)
    except _FAULTS as error:
        return Answer(_outside(fail(name, f"It cannot be reached: {_why(error, patience_s)}.", fix)))
    if status != 200 or not isinstance(body, dict) or "nuts" not in body:
        return Answer(_outside(fail(name, f"It answers, but not as a Cashu mint (HTTP {status}).", fix)), offset)
    return Answer(_outside(_able(name, url, body, keysets)), offset)


def _able(name: str, url: str, body: dict[str, Any], keysets: Any) -> Check:
    missing = [nut for nut in ("7", "9", "11", "12") if not _supports(body["nuts"], nut)]
    if missing:
        detail = f"It lacks NUT-{', NUT-'.join(f'{int(nut):02d}' for nut in missing)}, which locked payments need."
        return fail(name, detail, "Use another mint in config.toml")
    listed = keysets.get("keysets") if isinstance(keysets, dict) else None
    rows = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    active = [one for one in rows if one.get("unit") == "sat" and one.get("active") is True]
    if not active:
        return fail(name, "It has no active keys for sat.", f"Run: curl -sS {url}/v1/keysets; or use another mint")
    fee = active[0].get("input_fee_ppk", 0)
    return ok(name, f"{body.get('version', 'a mint')}, {len(active)} active keyset of sat, {fee} ppk per input.")


def _supports(nuts: Any, nut: str) -> bool:
    found = nuts.get(nut) if isinstance(nuts, dict) else None
    return isinstance(found, dict) and bool(found.get("supported"))


def _outside(check: Check) -> Check:
    return replace(check, outside=True)


def _why(error: Exception, patience_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {patience_s:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return "its certificate is not valid (a wrong clock has the same effect)"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno).lower() if error.errno else "no connection"
    if isinstance(error, json.JSONDecodeError):
        return "what it says is not JSON"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"no websocket there (HTTP {error.status})"
    return f"{type(error).__name__}"


def _offset(answer: aiohttp.ClientResponse, begun: float) -> float | None:
    """How many seconds our clock is ahead of the server's, give or take half the time that the answer took.

    What a cache hands out was dated when it was made (RFC 9111, section 5.1).
    """
    try:
        dated = parsedate_to_datetime(answer.headers["Date"]).timestamp() + max(0, int(answer.headers.get("Age", 0)))
    except (KeyError, ValueError, TypeError):
        return None
    return (begun + time.time()) / 2 - (dated + _HALF_S)
