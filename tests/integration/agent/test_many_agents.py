"""A node with more agents than it keeps the files of at hand."""

from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from core.clock import SystemClock
from core.error import NotFound
from node import app
from node import home as homes
from node.config import load
from node.gate.ledger import ledger_seal
from node.storage.database import open_database

AGENTS = app._NAMESPACES + 40


@pytest.fixture
async def node(tmp_path):
    home = tmp_path / "home"
    homes.create(home, relays=["ws://127.0.0.1:9"], mints=[], port=0, name="many")
    config = home / "config.toml"
    tables = "".join(f'\n[[agent]]\nname = "a{number}"\nprogram = "buyer"\ncontacts = []\n' for number in range(AGENTS))
    config.write_text(config.read_text() + tables)
    keyring = homes.open_keyring(home)
    database = await open_database(home / homes.DATABASE, seal=ledger_seal(keyring.node), clock=SystemClock())
    async with aiohttp.ClientSession() as http:
        with ThreadPoolExecutor(1) as executor:
            made = app.Node(load(home), keyring, database, app.Outside(http, executor), homes.read_token(home))
            await made.prepare()
            yield made
    await database.aclose()


async def test_the_files_of_agents_that_wait_are_not_held_and_are_there_when_they_are_asked_for(node):
    operator, first = node.namespace("node"), node.namespace("a0")
    assert node.namespace("a0") is first, "what is in use is made once"

    for number in range(AGENTS):
        assert node.namespace(f"a{number}") is not None

    assert len(node._namespaces) <= app._NAMESPACES
    assert node.namespace("node") is operator, "the operator's own are always at hand"
    assert node.namespace("a0") is not first, "those of the agent that waited longest were let go"
    last = node.namespace(f"a{AGENTS - 1}")
    assert node.namespace(f"a{AGENTS - 1}") is last
    with pytest.raises(NotFound):
        node.namespace("nobody")
