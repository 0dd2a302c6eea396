"""Identities over a database in memory, with the real gate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from node.identity.registry import Identities
from relays.bunker import Wire
from relays.key import Keyring
from tests.gate_part import SetClock

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
RING = Keyring(WORDS)


@asynccontextmanager
async def wire(clock, gate=None) -> AsyncIterator[Wire]:
    async with aiohttp.ClientSession() as http:
        check = gate.check if gate is not None else lambda permit: None
        permit = (lambda: gate.standing("identity.remote")) if gate is not None else object
        yield Wire(http, clock, check, permit)


async def identities(unit, clock: SetClock, wire: Wire, *names: str, days: int = 30) -> Identities:
    made = Identities(unit, clock, RING, wire, days)
    await made.load(names)
    return made
