"""People with foreign clients talk to an agent by NIP-17, both ways, on our relay with its rules for letters."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relays.key import Key
from tests.conftest import ROOT
from tests.foreign_part import foreign_relay
from tests.market_part import ECHO_FREE, PATIENT, Market, Spec, market, run, until

pytestmark = [pytest.mark.needs("node"), pytest.mark.asyncio(loop_scope="module")]
OWNER = Key.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    folder: Path = tmp_path_factory.mktemp("letters")
    async with foreign_relay("ours", folder / "private") as url, market(folder, {}, mint=False) as opened:
        opened.relay = url
        for name, spec in {
            "seller": Spec(ECHO_FREE),
            "buyer": Spec(replace=PATIENT, owner=OWNER.npub),
        }.items():
            opened.make(name, spec)
            await opened.up(name)
        seller = opened.rings["seller"].node.pubkey

        async def announced() -> bool:
            return any(one.kind == 31990 and one.pubkey == seller for one in await opened.events())

        await until(announced, "the seller's announcement")
        yield opened


@pytest.mark.parametrize("client", ["nostr-tools", "ndk", "applesauce"])
async def test_a_person_asks_by_a_letter_and_reads_the_reply(town: Market, client: str) -> None:
    agent = town.rings["buyer"].agent("agent").pubkey
    text = f"hello from {client}, ünïcode ✓"
    options = {
        "client": client,
        "relay": town.relay,
        "agent": agent,
        "text": f"ask: {text}",
        "expect": text,
        "wait": "40",
    }
    argv = [f"--{name}={value}" for name, value in options.items()]
    env = dict(os.environ) | {"DM_SECRET": OWNER.secret.hex()}
    ran = await run("node", "talk.mjs", *argv, cwd=ROOT / "tests/interop/node", env=env, timeout=60)
    assert ran.out, ran.err
    report = ran.json
    assert report["ok"], (report, ran.err, town.log("buyer")[-2000:])
    assert report["me"] == OWNER.pubkey
    assert report["from"] == agent
    assert report["to"] == [OWNER.pubkey]
