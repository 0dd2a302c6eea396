"""The exit line: a person's DM, the agent's tick, the reply, across two relays, one of which dies in the middle."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relays.error import NotForUs
from relays.event import Draft, Event, parse
from relays.key import Key
from relays.kind import DM, DM_RELAYS, GIFT_WRAP
from relays.nip17 import Rumor, unwrap, wrap
from tests.contract.wire_part import Wire, connected
from tests.foreign_part import Foreign, foreign_process
from tests.market_part import ECHO_FREE, Market, Spec, market, until

pytestmark = pytest.mark.needs("relays")
OWNER = Key.generate()
REQUEST = 5050


@dataclass
class Stage:
    """Two nodes on two relays: the agent's, and one that sells."""

    town: Market
    relays: dict[str, Foreign]
    agent: str


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with (
        foreign_process("ours", folder / "one") as one,
        foreign_process("khatru", folder / "two") as two,
        market(folder, {}, mint=False) as town,
    ):
        urls = [one.url, two.url]
        town.relay = one.url  # where the market's own helpers look for announcements
        for name, spec in {
            "seller": Spec(ECHO_FREE, relays=urls),
            "buyer": Spec(owner=OWNER.npub, relays=urls),
        }.items():
            town.make(name, spec)
        await asyncio.gather(town.up("seller"), town.up("buyer"))
        seller = town.rings["seller"].node.pubkey
        async with connected(one.url) as first, connected(two.url) as second:
            for wire in (first, second):
                wanted = {"kinds": [31990], "authors": [seller]}
                await until(lambda wire=wire, wanted=wanted: wire.ids(wanted), "the seller's announcement")
        yield Stage(town, {"ours": one, "khatru": two}, town.rings["buyer"].agent("agent").pubkey)


def addresses(urls: list[str]) -> Event:
    """Where the person reads (NIP-17)."""
    return OWNER.sign(Draft(DM_RELAYS, "", tuple(("relay", url) for url in urls), int(time.time())))


def dm(agent: str, text: str) -> list[Event]:
    draft = Draft(DM, text, (("p", agent),), int(time.time()))
    return [wrap(OWNER, receiver, draft) for receiver in (agent, OWNER.pubkey)]


async def prove(wire: Wire, relay: Foreign) -> None:
    """Ours hands letters to their receivers alone; khatru as it is here never asks."""
    if relay.name == "ours":
        await wire.auth(OWNER)


async def replies(wire: Wire, agent: str) -> dict[str, Rumor]:
    """What the agent has written to the person, as one relay has it, by rumor id."""
    found = {}
    for body in await wire.ask({"kinds": [GIFT_WRAP], "#p": [OWNER.pubkey]}):
        try:
            rumor = unwrap(OWNER, parse(body))
        except NotForUs:
            continue
        if rumor.sender == agent and rumor.kind == DM:
            found[rumor.id] = rumor
    return found


async def asked(wire: Wire, author: str) -> list[dict[str, Any]]:
    return await wire.ask({"kinds": [REQUEST], "authors": [author]})


@pytest.mark.timeout(240)
@pytest.mark.parametrize("dies", ["ours", "khatru"])
async def test_a_dm_is_answered_though_one_of_two_relays_dies_in_the_middle(tmp_path: Path, dies: str) -> None:
    async with stage(tmp_path) as on:
        dying = on.relays[dies]
        (living,) = (relay for name, relay in on.relays.items() if name != dies)
        buyer, seller = on.town.rings["buyer"].node.pubkey, on.town.nodes["seller"].process.pid
        async with connected(living.url) as wire:
            await prove(wire, living)
            os.kill(seller, signal.SIGSTOP)  # the middle lasts until we say so
            try:
                async with connected(dying.url) as lost:
                    for one in (lost, wire):
                        await one.put(addresses([dying.url, living.url]))
                    await lost.put(*dm(on.agent, "ask: across two relays"))  # it is only where death will come
                    await until(lambda: asked(wire, buyer), "the tick and its job")
                await dying.kill()
            finally:
                os.kill(seller, signal.SIGCONT)
            found = await until(lambda: replies(wire, on.agent), "the reply on the relay that lives", timeout=60)
            (reply,) = found.values()
            assert reply.content.startswith("across two relays")
            assert reply.values("p") == [OWNER.pubkey]
            first = {one["id"] for one in await asked(wire, buyer)}
            assert len(first) == 1, "one DM, one tick, one job"
            await dying.start()
            async with connected(dying.url) as back:
                await prove(back, dying)
                again = await until(lambda: replies(back, on.agent), "the reply where the DM came from", timeout=60)
            assert set(again) == set(found), "the same message, not another one"
            await asyncio.sleep(1)
            assert set(await replies(wire, on.agent)) == set(found), "the DM was read again, and not answered again"
            assert {one["id"] for one in await asked(wire, buyer)} <= first, "it may have expired by now"


@pytest.mark.timeout(240)
async def test_a_dm_that_was_sent_while_no_relay_lived_is_answered_when_one_is_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        ours, khatru = on.relays["ours"], on.relays["khatru"]
        buyer = on.town.nodes["buyer"].process.pid
        async with connected(khatru.url) as wire:
            await wire.put(addresses([khatru.url]))
            os.kill(buyer, signal.SIGSTOP)  # the DM is stored, and both relays die before the node hears of it
            await wire.put(*dm(on.agent, "ask: after the storm"))
        await khatru.kill()
        await ours.kill()
        os.kill(buyer, signal.SIGCONT)
        await asyncio.sleep(1)
        await khatru.start()
        async with connected(khatru.url) as wire:
            found = await until(lambda: replies(wire, on.agent), "the reply", timeout=90)
            (reply,) = found.values()
            assert reply.content.startswith("after the storm")
