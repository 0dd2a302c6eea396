"""Requests that another process of this node answers: whoever is not the steward hands them to it, byte by byte.

Processes that share a database know each other by a token that derives from the node's seed. A request that was handed
over once is not handed over again.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import aiohttp
from aiohttp import web
from yarl import URL

from core.error import VendoError
from fs.session import Role
from node.error import NoSteward
from node.http.guard import HEADERS, MAX_BODY, body_pieces, read_body
from node.http.token import OPERATOR, Grant, bearer_of

FOR, KEY_HEADER = "X-Vendo-For", "Idempotency-Key"  # for whom a member asks
SHELF = "/members/files/"
_IN = ("Accept", "Content-Type", "Destination", "Last-Event-ID")
_OUT = ("Content-Type", "Allow", "X-File-Type", "X-File-Watch", "WWW-Authenticate", "Retry-After", KEY_HEADER)
_CONNECT_S, _ASK_S, _LOOK_S = 3.0, 5.0, 1.0
_LONGEST = 64 << 20


class Peers(Protocol):
    """The processes that share the database: `node.share.company.Company`."""

    @property
    def leads(self) -> bool:
        """Whether this is the steward."""

    def steward(self) -> Mapping[str, str]:
        """What the steward says of itself: `url` and `host`; empty if there is none."""

    def neighbours(self) -> list[str]:
        """Control planes of the other members on this host."""

    @property
    def host(self) -> str:
        """The name of this host."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of another member: on whose behalf, with which rights."""

    grant: Grant


class Elsewhere:
    """Hands requests to the steward, and answers what members ask each other.

    Args:
        peers: who leads.
        is_ready: whether this process leads and has taken everything up.
        token: by which members know each other.
        http: connects to them.
        shelf: a received file of an agent that lies here, by its hash.
    """

    def __init__(
        self,
        peers: Peers,
        is_ready: Callable[[], bool],
        token: str,
        http: aiohttp.ClientSession,
        shelf: Callable[[str, str], Awaitable[bytes | None]],
    ) -> None:
        self._peers, self._is_ready, self._token, self._http, self._shelf = peers, is_ready, token, http, shelf

    def asked(self, request: web.BaseRequest) -> Asked | None:
        """Whether another member asks; None for everybody else."""
        token = bearer_of(request.headers.get("Authorization"))
        if token is None or not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token.encode()):
            return None
        caller = request.headers.get(FOR, "")
        role = Role.OPERATOR if caller == OPERATOR else Role.AGENT if caller.startswith("agent:") else Role.PUBLIC
        return Asked(Grant(caller, role))

    async def file(self, path: str) -> web.Response:
        """Answer a member that looks for a file of an agent."""
        agent, _, name = path.removeprefix(SHELF).partition("/")
        data = await self._shelf(agent, name)
        if data is None:
            return web.Response(status=404, headers=HEADERS)
        return web.Response(body=data, content_type="application/octet-stream", headers=HEADERS)

    async def find(self, agent: str, name: str) -> bytes | None:
        """Ask the other members on this host for a file that does not lie here."""
        headers = {"Authorization": f"Bearer {self._token}", FOR: f"agent:{agent}"}
        for url in self._peers.neighbours():
            where = f"{url}{SHELF}{PurePosixPath(agent).name}/{PurePosixPath(name).name}"
            try:
                async with self._http.get(
                    where, headers=headers, timeout=aiohttp.ClientTimeout(total=_ASK_S)
                ) as answer:
                    if answer.status == 200 and (answer.content_length or 0) <= _LONGEST:
                        return await answer.read()
            except (aiohttp.ClientError, TimeoutError):
                continue
        return None

    def is_here(self, asked: Asked | None) -> bool:
        """Whether this process answers by itself.

        Raises:
            NoSteward: it was handed to us, and we cannot.
        """
        if self._is_ready():
            return True
        if self._peers.leads:
            raise NoSteward("This process has become the steward and takes up its work.")
        if asked is not None:
            raise NoSteward("This process is not the steward any more.")
        return False

    async def hand_over(
        self,
        request: web.BaseRequest,
        grant: Grant,
        key: str,
        stop: asyncio.Event,
        holds: Callable[[], bool] = lambda: True,
    ) -> web.StreamResponse:
        """Have the steward answer. `stop` ends what streams, and so does `holds` when it is false.

        Raises:
            NoSteward: there is none, or it cannot be reached from here.
            RequestTooLarge, Encoded, BadRequest, TooSlow: the body cannot be read.
        """
        about = self._peers.steward()
        if not about.get("url"):
            raise NoSteward
        if about.get("host") != self._peers.host:
            if grant.role < Role.AGENT:
                raise NoSteward  # where the node's processes run is nobody's business
            raise NoSteward(
                f"The steward runs on {about['host']!r}, whose control plane is for that machine only.",
                remedy=f"Ask there, at {about['url']}.",
            )
        headers = {name: request.headers[name] for name in _IN if name in request.headers}
        if "Destination" in headers:
            headers["Destination"] = _below(headers["Destination"], request.host)
        headers |= {"Authorization": f"Bearer {self._token}", FOR: grant.caller} | ({KEY_HEADER: key} if key else {})
        sent = await Sent.of(request)
        url = URL(about["url"] + request.raw_path, encoded=True)
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S)
        try:
            async with self._http.request(
                request.method, url, headers=headers, data=sent.body, timeout=timeout, allow_redirects=False
            ) as answer:
                return await _handed(request, answer, stop, holds)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            raise NoSteward("The steward does not answer.") from error
        except aiohttp.ClientError as error:
            if sent.fault is not None:
                raise sent.fault from error
            raise NoSteward(
                "The steward was lost while it answered; it may have done what it was asked.",
                remedy="Send the same request with the same idempotency key again.",
            ) from error


@dataclass(slots=True)
class Sent:
    """A request's body on its way to the steward: whole if it is short, else in pieces as they come.

    Attributes:
        body: what aiohttp is to send.
        fault: why it broke off, if it did; the steward then has a body that does not end, and does nothing.
    """

    body: bytes | AsyncIterator[bytes] | None = None
    fault: VendoError | None = None

    @classmethod
    async def of(cls, request: web.BaseRequest) -> "Sent":
        """What is to be sent on. How long the body of a PUT may be is for the file to say: nothing of it is held here.

        Raises:
            RequestTooLarge, Encoded, BadRequest, TooSlow: a body that is read here cannot be.
        """
        if request.method in ("GET", "HEAD"):
            return cls()
        if request.method != "PUT" or (request.content_length or MAX_BODY + 1) <= MAX_BODY:
            return cls(await read_body(request))
        sent = cls()
        sent.body = sent.passed(body_pieces(request, None))
        return sent

    async def passed(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces, and why they end if that is too early."""
        try:
            async for piece in pieces:
                yield piece
        except VendoError as error:
            self.fault = error
            raise


def _below(destination: str, host: str) -> str:
    """Where MOVE leads, without our own host before it: the steward has another one."""
    for scheme in ("http://", "https://"):
        if destination.lower().startswith(f"{scheme}{host.lower()}/"):
            return destination[len(scheme) + len(host) :]
    return destination


async def _handed(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, stop: asyncio.Event, holds: Callable[[], bool]
) -> web.StreamResponse:
    kept = {name: answer.headers[name] for name in _OUT if name in answer.headers}
    headers = {**HEADERS, **kept}
    is_short = answer.content_length is not None and answer.content_length <= MAX_BODY
    if is_short and "text/event-stream" not in answer.headers.get("Content-Type", ""):
        return web.Response(status=answer.status, body=await answer.read(), headers=headers)
    stream = web.StreamResponse(status=answer.status, headers=headers)
    await stream.prepare(request)
    try:
        async for chunk in _chunks(request, answer, stop, holds):
            await stream.write(chunk)
        await stream.write_eof()
    except (ConnectionResetError, TimeoutError, aiohttp.ClientError):
        if request.transport is not None:
            request.transport.abort()  # a stream that was cut is no stream that ended
    return stream


async def _chunks(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, stop: asyncio.Event, holds: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """What the steward sends, until it ends, this process does, or the one who asked has gone.

    Raises:
        ConnectionResetError: it did not end by itself.
    """
    stopping = asyncio.create_task(stop.wait())
    reading: asyncio.Task[bytes] | None = None
    try:
        while not stopping.done() and request.transport is not None and not request.transport.is_closing():
            reading = reading or asyncio.create_task(answer.content.readany())
            await asyncio.wait({reading, stopping}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if not holds():
                break
            if reading.done():
                chunk, reading = reading.result(), None
                if not chunk:
                    return
                yield chunk
        raise ConnectionResetError
    finally:
        stopping.cancel()
        if reading is not None:
            reading.cancel()
