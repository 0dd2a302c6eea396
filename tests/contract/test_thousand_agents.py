"""A thousand agents of one node on relays that hand letters to their receivers alone (NIP-42), of each sort.

Ours takes one AUTH and a signed list for all of them; LocalRelay and khatru know one key per connection, so there the
agents take turns on a few sockets, and nothing that was sent while a key was not there is missed. A turn lasts seconds,
so that a round of a thousand takes a quarter of an hour: the node's clock runs ten times as fast here, and the usual
run has fewer agents there (`make torture` has all).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

from core.clock import SystemClock
from node.storage.memory import MemoryDatabase
from relays.credential import Credentials
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DM, GIFT_WRAP
from relays.local_signer import KeySigner
from relays.nip17 import unwrap, wrap
from relays.pool import Pool
from tests.contract.wire_part import Wire, connected
from tests.foreign_part import foreign_relay

NODE = Key(b"\x07" * 32)
AGENTS = 1_000
TORTURE = settings.default is not None and settings.default.max_examples > 1_000
IN_TURN = AGENTS if TORTURE else 40
HURRY = 10
MOST_SOCKETS = 9  # one, and eight that the keys use in turn
PERMIT: Any = SimpleNamespace(effect_id="test")


def agents(count: int) -> list[Key]:
    return [Key((1_000_000 + number).to_bytes(32, "big")) for number in range(count)]


class Hurried(SystemClock):
    """Seconds that pass ten times as fast for what waits and counts; the date is everybody's."""

    def monotonic(self) -> float:
        return HURRY * super().monotonic()

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / HURRY)


class Heard:
    """Letters as the pool handed them over, by the key they are for."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.times = 0

    async def __call__(self, event: Event, _: str) -> None:
        self.times += 1
        self.events.setdefault(str(event.value("p")), []).append(event)

    async def until(self, wanted: set[str], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not wanted <= set(self.events):
            missing = wanted - set(self.events)
            assert time.monotonic() < end, f"{len(missing)} of {len(wanted)} letters are missing after {seconds} s"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def listening(url: str, keys: list[Key], heard: Heard, clock: SystemClock) -> AsyncIterator[Pool]:
    signers = [KeySigner(key) for key in keys]
    auth = Credentials(KeySigner(NODE), lambda: signers, lambda *_: True, clock)
    pool = Pool([url], unit=MemoryDatabase(), clock=clock, check=lambda _: None, auth=auth)
    audience = pool.audience("letters", frozenset({GIFT_WRAP}), "p", heard, backdated=True)
    for key in keys:
        audience.add(key.pubkey)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(pool.run(ready, stop))
    try:
        await ready.wait()
        yield pool
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


def letter(sender: Key, receiver: Key, text: str) -> Event:
    return wrap(sender, receiver.pubkey, Draft(DM, text, (("p", receiver.pubkey),), int(time.time())))


async def send(wire: Wire, sender: Key, receivers: list[Key]) -> set[str]:
    for receiver in receivers:
        await wire.put(letter(sender, receiver, f"to {receiver.pubkey}"))
    return {str(receiver.pubkey) for receiver in receivers}


def check(heard: Heard, receivers: list[Key], sender: Key) -> None:
    for receiver in receivers:
        (event,) = heard.events[receiver.pubkey]
        rumor = unwrap(receiver, event)
        assert (rumor.sender, rumor.content) == (sender.pubkey, f"to {receiver.pubkey}")


@pytest.mark.timeout(1_200 if TORTURE else 120)
@pytest.mark.needs("relays")
@pytest.mark.parametrize(
    ("sort", "count", "patience"),
    [("ours", AGENTS, 15), ("localrelay", IN_TURN, 30 + IN_TURN / 2), ("khatru", IN_TURN, 30 + IN_TURN / 2)],
)
async def test_stored_and_live_letters_reach_a_thousand_agents(
    tmp_path: Path, sort: str, count: int, patience: float
) -> None:
    keys, sender, heard = agents(count), Key.generate(), Heard()
    chosen = Random(7).sample(keys, 30)
    before, after = chosen[:15], chosen[15:]
    clock = SystemClock() if sort == "ours" else Hurried()
    async with foreign_relay(sort, tmp_path, auth=True) as url, connected(url) as wire:
        await wire.auth(sender)
        stored = await send(wire, sender, before)
        async with listening(url, keys, heard, clock) as pool:
            await heard.until(stored, patience)
            await heard.until(stored | await send(wire, sender, after), patience)
            sockets = sum(one.sockets for one in pool.health())
        check(heard, chosen, sender)
        assert heard.times == len(chosen), "a letter came twice"
        assert sockets <= (1 if sort == "ours" else MOST_SOCKETS)


async def test_ours_needs_one_socket_and_few_requests_for_all_of_them(tmp_path: Path) -> None:
    keys, sender, heard = agents(AGENTS), Key.generate(), Heard()
    async with foreign_relay("ours", tmp_path) as url, connected(url) as wire:
        async with listening(url, keys, heard, SystemClock()) as pool:
            assert await pool.caught_up("letters", 10)
            (health,) = pool.health()
            assert health.up
            times = []
            for receiver in Random(8).sample(keys, 30):
                begun = time.monotonic()
                await wire.put(letter(sender, receiver, "quickly"))
                await heard.until({str(receiver.pubkey)}, 5)
                times.append(time.monotonic() - begun)
        assert sorted(times)[len(times) // 2] < 0.5
