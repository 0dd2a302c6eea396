"""Thousands of agents on one node: few subscriptions, no task each, and a message that is there at once."""

import asyncio
import os
import random

from core.clock import SystemClock
from relays.event import Draft
from relays.key import Key
from relays.kind import DM
from relays.nip17 import wrap
from tests.integration.agent.node_part import NODE_PERMIT, OWNER, Town, town

AGENTS = int(os.environ.get("TEST_AGENTS", "1500"))
MESSAGES, OTHERS_PER_S = 40, 100
CLOCK = SystemClock()


async def test_a_message_to_any_of_many_agents_is_in_its_inbox_at_once(relay: str) -> None:
    keys = {f"a{number}": Key((number + 1_000).to_bytes(32, "big")) for number in range(AGENTS)}
    async with town(relay, agents=keys) as here:
        assert len(asyncio.all_tasks()) < 100, "no task belongs to an agent"
        await here.until(lambda: _listens(here), 60)
        (health,) = here.pool.health()
        assert health.requests <= 12, health
        assert health.sockets <= 2, health
        noise = asyncio.create_task(_noise(here))
        waits = []
        for name in random.Random(7).sample(sorted(keys), MESSAGES):
            draft = Draft(DM, "hello", (("p", keys[name].pubkey),), CLOCK.now())
            event = wrap(OWNER, keys[name].pubkey, draft)
            sent = CLOCK.monotonic()
            await here.people.send(relay, event, NODE_PERMIT)
            await here.until(lambda name=name: _has(here, name))
            waits.append(CLOCK.monotonic() - sent)
        noise.cancel()
        waits.sort()
        print(f"{AGENTS} agents: p50 {waits[len(waits) // 2] * 1000:.1f} ms, worst {waits[-1] * 1000:.1f} ms")  # noqa: T201
        assert waits[len(waits) // 2] < 2, waits  # a poll, or a subscription for each, would take longer


def _listens(here: Town) -> bool:
    (health,) = here.pool.health()
    return health.requests > 0 and health.authenticated > AGENTS


async def _has(here: Town, name: str) -> bool:
    return bool(await here.rows("inbox", agent=name, cause="message"))


async def _noise(here: Town) -> None:
    """Other people's events on the same relay."""
    someone = Key.generate()
    number = 0
    while True:
        number += 1
        await here.people.send(here.relay, someone.sign(Draft(1, f"noise {number}", (), CLOCK.now())), NODE_PERMIT)
        await asyncio.sleep(1 / OTHERS_PER_S)
