"""A process that is made to be killed: an engine on a database, and a stream of messages to its agents.

`python -m tests.integration.agent.kill_part URL FIRST COUNT` sends messages FIRST, FIRST+1 … to agents in turn while it
runs them. It says on standard output what it knows to be durable: `sent N`, once the message's commit has returned.
With COUNT 0 it only deals with what waits, and says `idle` when nothing does.
"""

import asyncio
import sys
from pathlib import Path

import orjson
from pydantic import BaseModel

from core.clock import SystemClock
from core.identifier import PubKey
from core.unit import Append, Insert
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.agent.inbox.row import envelope
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.gate.ledger import ledger_seal
from node.storage.database import Store, open_database
from relays.key import Key

AGENTS = 8
RUN = "kill"
NODE = Key(bytes([9]) * 32)
PUBKEY = PubKey("ab" * 32)
LIMITS = TickLimits(per_minute=0, compute_s=0)


class Count(BaseModel):
    """How many messages were dealt with, and the last of each sender's."""

    done: int = 0
    last: dict[str, int] = {}


class Counter(Program[Count, Nothing]):
    """Counts, and asks for an effect with each message."""

    name = "counter"
    state_type, config_type = Count, Nothing

    async def on_trigger(self, ctx: Context[Count, Nothing], trigger: Trigger) -> None:
        if trigger.cause != "message":
            return
        number = int(trigger.payload["number"])
        assert number > ctx.state.last.get(trigger.sender, -1), "out of order, or twice"
        ctx.state.last[trigger.sender] = number
        ctx.state.done += 1
        ctx.mark_seen(trigger.envelope_id)
        await ctx.fs.call("/out/new", str(number).encode())


async def _new(body: bytes, session: Session) -> bytes:
    """What a tick that publishes leaves behind: a row on its way to a relay, and a signed entry."""
    name = body.decode()
    row = {"event_id": f"event-{name}", "relay": "ws://r", "raw": "{}", "effect_id": name}
    await session.apply([Insert("outbox", row), Append(RUN, "begin", name, "{}")])
    return b"{}"


def files(_agent: str) -> Namespace:
    return Namespace([Mount("/out", Tree(Folder("Effects.", {"new": File("one", call=_new)})), Access.BUDGETED)])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def _send(unit: Store, engine: Engine, lane: int, first: int, count: int) -> None:
    for number in range(first, first + count):
        agent = f"a{number % AGENTS}"
        payload = orjson.dumps({"number": number}).decode()
        row = envelope(
            agent, f"m{number}", cause="message", source="test", sender=f"lane {lane}", payload=payload, at=1
        )
        await unit.commit([row])
        _say(f"sent {number}")
        engine.notify(agent)


async def _main(url: str, first: int, count: int) -> None:
    where: str | Path = url if "://" in url else Path(url)
    unit = await open_database(where, seal=ledger_seal(NODE), clock=SystemClock())
    engine = Engine(unit, SystemClock(), {"counter": Counter()}, files, Feed(), LIMITS)
    for number in range(AGENTS):
        await engine.create(f"a{number}", "counter", PUBKEY)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(engine.run(ready, stop))
    await ready.wait()
    _say("ready")
    await asyncio.gather(*(_send(unit, engine, lane, first + lane * count, count) for lane in range(4)))
    while await unit.count("inbox", {"state": "new"}, limit=1):
        await asyncio.sleep(0.02)
    _say("idle")
    stop.set()
    await running
    await unit.aclose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
