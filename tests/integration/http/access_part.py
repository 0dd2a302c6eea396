"""A control plane with its whole door: tokens that come and go, keys that sign, rates; and requests byte by byte."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from fs.namespace import Access, Mount, Namespace
from fs.service.tokens import tokens_service
from fs.session import Role, Session
from fs.tree import File, Folder, Tree
from node.http.access import Door
from node.http.bind import Listener
from node.http.control import ControlPlane
from node.http.nip98 import Signatures
from node.http.once import Once
from node.http.rate import Rate, Rates
from node.http.token import Grant, Tokens, digest
from node.http.token_file import TokenFile
from relays.event import Event
from relays.key import Key
from tests.integration.agent.inbox_part import StillClock
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN, Plane
from tests.unit.node.http.nip98_part import signed

OPERATOR, AGENT, STRANGER = (Key(bytes([number]) * 32) for number in (21, 22, 23))
NO_RATES = Rates(Rate(), Rate(), Rate(), Rate())


@dataclass
class Guarded(Plane):
    """What a test talks to. Agent `a` has a public `/window`; the operator's tree has `/tokens`."""

    clock: StillClock = field(default_factory=StillClock)
    rates: Rates = NO_RATES
    names: tuple[str, ...] = ()
    behind_proxy: bool = False
    insecure: bool = False
    beside: Sequence[Listener] = ()

    def __post_init__(self) -> None:
        operator, agent = Grant("operator", Role.OPERATOR), Grant("agent:a", Role.AGENT)
        self.given_out = TokenFile(None, self.clock, lambda token_id: hashlib.sha256(token_id.encode()).digest())
        tokens = Tokens([(digest(TOKEN), operator), (digest(AGENT_TOKEN), agent)])
        door = Door(
            tokens,
            self.given_out,
            Signatures({OPERATOR.pubkey: operator, AGENT.pubkey: agent}),
            Once(self.unit, self.clock),
            clock=self.clock,
            rates=self.rates,
            names=self.names,
            behind_proxy=self.behind_proxy,
            insecure=self.insecure,
        )
        self.control = ControlPlane(
            self.namespace, self.agents, tokens, self.unit, checks=self.checks, door=door, beside=self.beside
        )

    def namespace(self, name: str) -> Namespace:
        if name == "node":
            return Namespace([Mount("/tokens", tokens_service(self.given_out, self._is_agent), Access.ADMIN)])
        found = super().namespace(name)
        return Namespace([*found.mounts, Mount("/window", _window(), Access.READ, "for everybody", public=True)])

    async def _is_agent(self, name: str) -> bool:
        return name in ("a", "b")

    @property
    def port(self) -> int:
        return int(self.control.url.rsplit(":", 1)[1])

    def sign(self, key: Key, path: str, method: str = "GET", body: bytes | None = None, **more: Any) -> Event:
        """An event for a request to this listener, now."""
        url = more.pop("url", self.control.url + path)
        return signed(key, url, method, body, **{"at": self.clock.now(), **more})


def _window() -> Tree:
    async def read(session: Session) -> bytes:
        return b"hello\n"

    async def ring(body: bytes, session: Session) -> bytes:
        raise AssertionError("nobody may ring")

    return Tree(Folder("what everybody may see", {"open": File("a greeting", read=read), "bell": File("", call=ring)}))


@asynccontextmanager
async def guarded(**parts: Any) -> AsyncIterator[tuple[Guarded, aiohttp.ClientSession]]:
    """The plane, and a client that says nothing of itself."""
    made = Guarded(**parts)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(made.control.run(ready, stop))
    await ready.wait()
    try:
        async with aiohttp.ClientSession(made.control.url) as http:
            yield made, http
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)
