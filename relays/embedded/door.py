"""Who may connect: networks, counts for each address, and sockets that have not become websockets yet.

The listener asks before it reads a byte. A socket that dawdles over its request is closed by aiohttp's own timer
(`Limits.handshake_s`); here it is counted meanwhile, so that idle sockets of one address cannot use up the process's
file descriptors.
"""

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Sequence

from aiohttp import web
from multidict import MultiMapping

from relays.embedded.access import Access
from relays.embedded.rate import is_in, network

_MOST_SOCKETS = 64  # of one address, not yet websockets
_MOST_IN_ALL = 512
_SILENT = logging.Logger("relays.embedded.door", logging.CRITICAL)  # who connects is not written down


class Door:
    """Counts sockets between accept and the end of the websocket handshake.

    Args:
        access: who may connect, and which proxies are ours.
        exempt: networks that may open as many as they like, as for rates.
    """

    def __init__(self, access: Access, exempt: Sequence[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(one) for one in access.addresses]
        self._denied = [ipaddress.ip_network(one) for one in access.denied_addresses]
        self._proxies = [ipaddress.ip_network(one) for one in access.proxies]
        self._exempt = [*self._proxies, *(ipaddress.ip_network(one) for one in exempt)]
        self._waiting: Counter[str] = Counter()
        self._total = 0

    @property
    def waiting(self) -> int:
        """Sockets that are not websockets yet."""
        return self._total

    def enter(self, address: str) -> bool:
        """A socket was accepted. False: close it without a word."""
        group = network(address)
        if not is_in(address, self._exempt) and (self._waiting[group] >= _MOST_SOCKETS or self._total >= _MOST_IN_ALL):
            return False
        self._waiting[group] += 1
        self._total += 1
        return True

    def leave(self, address: str) -> None:
        """It became a websocket, or is closed."""
        group = network(address)
        self._total -= 1
        self._waiting[group] -= 1
        if self._waiting[group] <= 0:
            del self._waiting[group]

    def is_proxy(self, address: str) -> bool:
        """Whether this is one of the operator's own reverse proxies."""
        return is_in(address, self._proxies)

    def refuse(self, address: str) -> bool:
        """Whether the operator keeps this address out."""
        if is_in(address, self._denied):
            return True
        return bool(self._allowed) and not is_in(address, self._allowed)

    def address(self, peer: str, headers: MultiMapping[str]) -> str:
        """Who the client is: the peer, or what a proxy of ours says (the last entry that is not a proxy itself)."""
        if not self.is_proxy(peer):
            return peer
        # Some proxies write a header of their own behind the client's. What stands left of junk may be the client's.
        for entry in reversed(",".join(headers.getall("X-Forwarded-For", ())).split(",")):
            named = _address(entry.strip())
            if not named:
                return peer
            if not self.is_proxy(named):
                return named
        return peer


def _address(text: str) -> str:
    """The address in an entry, which may have a port behind it; empty if there is none."""
    bare = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    host = bare.partition(":")[0] if bare.count(":") == 1 else bare
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


class Handler(web.RequestHandler):
    """aiohttp's protocol for one socket, behind the door."""

    __slots__ = ("_door", "_peer", "_state")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, door: Door, idle_s: float) -> None:
        super().__init__(server, loop=loop, access_log=_SILENT, keepalive_timeout=idle_s)
        self._door, self._peer, self._state = door, "", "new"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        if not self._door.enter(self._peer):
            self._state = "refused"
            if isinstance(transport, asyncio.Transport):
                transport.abort()
            return
        self._state = "waiting"
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is closed."""
        if self._state == "refused":
            return
        self.seated()
        super().connection_lost(exc)

    def seated(self) -> None:
        """It is a websocket now, or gone: it is counted elsewhere, or not at all."""
        if self._state == "waiting":
            self._state = "seated"
            self._door.leave(self._peer)
