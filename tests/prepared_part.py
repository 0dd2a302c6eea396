"""A node as `vendo up` builds it from a home, on its real database, with all of its services; nothing of it runs."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from node import home as homes
from node.app import Node, Outside
from node.config import load
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from relays.key import Keyring


@asynccontextmanager
async def prepared(home: Path, ring: Keyring) -> AsyncIterator[Node]:
    """The node of a home directory."""
    config = load(home)
    where = homes.database_of(home, config.storage)
    database = await open_database(where, seal=ledger_seal(ring.node), clock=SystemClock())
    try:
        with ThreadPoolExecutor(1) as executor:
            async with aiohttp.ClientSession() as http:
                outside = Outside(http, executor, (), home / "files", home)
                node = Node(config, ring, database, outside, homes.read_token(home))
                await node.prepare()
                yield node
    finally:
        await database.aclose()
