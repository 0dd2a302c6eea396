"""A state machine agent that uses all that a tick may use, the world around it, and an engine on any database."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import orjson
from pydantic import BaseModel, SecretStr

from core.clock import SystemClock
from core.error import Refused, Unavailable
from core.identifier import PubKey
from core.unit import UnitOfWork
from fs.feed import Feed
from fs.handle import Open
from fs.namespace import Access, Mount, Namespace
from fs.secret import Secret
from fs.session import Session
from fs.tree import File, Folder, Tree, json_object
from node.agent.inbox.row import envelope
from node.agent.program import AnyProgram, Context, Program, Trigger
from node.agent.replay.redactor import Redactor
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits

NAME = "ada"
PUBKEY = PubKey("ab" * 32)
LIMITS = TickLimits(seconds=5, tries=3, back_off_ms=1, quarantine=1_000, per_minute=0)
TOKEN = "correct-horse-battery-staple"


class Order(BaseModel):
    """What the machine is at."""

    phase: Literal["idle", "quoted", "paid"] = "idle"
    price: int = 0
    served: int = 0
    refused: int = 0
    ids: list[str] = []
    heard: dict[str, str] = {}


class Tariff(BaseModel):
    """What it asks for."""

    margin: int = 1
    api_key: SecretStr = SecretStr("")


class Machine(Program[Order, Tariff]):
    """Quotes, is paid, serves. It reads, calls, draws, keeps, marks, sets alarms, and sometimes fails."""

    name = "machine"
    state_type, config_type = Order, Tariff

    async def on_create(self, ctx: Context[Order, Tariff]) -> None:
        ctx.log("created", agent=ctx.agent)
        ctx.watch("money", "payment.received")

    async def on_wake(self, ctx: Context[Order, Tariff]) -> None:
        ctx.state.heard["rate"] = (await ctx.fs.read("/w/rate")).decode()

    async def on_trigger(self, ctx: Context[Order, Tariff], trigger: Trigger) -> None:
        word = str(trigger.payload.get("do", "begin"))
        if await ctx.seen(word):
            ctx.log("again", word=word, phase=ctx.state.phase)
        ctx.mark_seen(word)
        match ctx.state.phase:
            case "idle":
                await self.quote(ctx, word)
            case "quoted":
                await self.be_paid(ctx, word)
            case _:
                await self.serve(ctx, word)

    async def quote(self, ctx: Context[Order, Tariff], word: str) -> None:
        ctx.state.price = int(ctx.state.heard["rate"]) + ctx.config.margin + ctx.random.randrange(100)
        ctx.state.ids = [*ctx.state.ids, ctx.new_id()][-3:]
        ctx.set_alarm("late", after_ms=3_600_000, payload={"price": ctx.state.price})
        ctx.log("quoted", price=ctx.state.price, at=ctx.now_ms)
        ctx.state.phase = "quoted"

    async def be_paid(self, ctx: Context[Order, Tariff], word: str) -> None:
        try:
            await ctx.fs.call("/w/pay", orjson.dumps({"amount": ctx.state.price}))
        except Refused as error:
            ctx.state.refused += 1
            ctx.log("refused", why=error.message)
            return
        ctx.memory.set(f"paid/{ctx.state.ids[-1]}", {"price": ctx.state.price})
        ctx.cancel_alarm("late")
        ctx.state.phase = "paid"

    async def serve(self, ctx: Context[Order, Tariff], word: str) -> None:
        page = await ctx.fs.read("/w/page")
        if page.startswith(b"bad"):
            raise ValueError("a page that is bad")
        ctx.state.heard["page"] = f"{len(page)} {page[:8].decode()}"
        ctx.state.heard["files"] = ",".join(stat.name for stat in await ctx.fs.list("/w"))
        for key in await ctx.memory.list("paid/"):
            ctx.log("kept", key=key, price=(await ctx.memory.get(key))["price"])
            ctx.memory.delete(key)
        async with await ctx.fs.open("/w/note", Open.WRITE) as note:
            await note.write(word.encode())
        await ctx.fs.write("/w/note", b"then: " + word.encode())
        token = (await ctx.fs.read("/w/token")).decode().strip()
        await ctx.fs.call("/w/serve", orjson.dumps({"word": word, "token": token}))
        ctx.state.served, ctx.state.phase = ctx.state.served + 1, "idle"
        if ctx.state.served % 5 == 0:
            ctx.hibernate()


class World:
    """Files whose answers change with every question."""

    def __init__(self) -> None:
        self.asked = 0
        self.served: list[dict[str, Any]] = []

    def _next(self) -> int:
        self.asked += 1
        return self.asked

    def tree(self) -> Tree:
        async def rate(session: Session) -> bytes:
            return b"%d" % (1_000 + self._next())

        async def page(session: Session) -> bytes:
            n = self._next()
            if n % 7 == 0:
                raise Unavailable(f"The page is away, for the {n}th time.", remedy="Ask again.")
            return b"bad %d" % n if n % 5 == 0 else b"page %d " % n * (1 if n % 3 else 400)

        async def token(session: Session) -> bytes:
            return Secret(TOKEN.encode() + b"\n")

        async def pay(body: bytes, session: Session) -> bytes:
            if self._next() % 4 == 0:
                raise Refused(f"There is no room for {json_object(body)['amount']} today.")
            return b'{"status":"staged"}'

        async def serve(body: bytes, session: Session) -> bytes:
            self.served.append(json_object(body))
            return b"served with " + self.served[-1]["token"].encode()

        async def note(body: bytes, session: Session) -> None:
            await session.apply([])

        files = {
            "rate": File("changes", read=rate),
            "page": File("large, bad or away", read=page),
            "token": File("secret", read=token),
            "pay": File("refuses now and then", call=pay),
            "serve": File("takes the token", call=serve),
            "note": File("takes a word", write=note),
        }
        return Tree(Folder("the world", files))


@asynccontextmanager
async def running(
    unit: UnitOfWork,
    world: World,
    program: AnyProgram | None = None,
    redactor: Redactor | None = None,
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[Engine]:
    """An engine with one agent, ended with the block."""
    programs = {"machine": program or Machine()}

    def namespace(agent: str) -> Namespace:
        return Namespace([Mount("/w", world.tree(), Access.WRITE)])

    engine = Engine(unit, SystemClock(), programs, namespace, Feed(), LIMITS, redactor=redactor)
    await engine.create(NAME, "machine", PUBKEY, config)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(engine.run(ready, stop))
    await ready.wait()
    try:
        yield engine
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def tell(unit: UnitOfWork, engine: Engine, payloads: Sequence[Mapping[str, Any]], at: int = 1) -> None:
    """Leave messages, and wait until all were dealt with."""
    for n, payload in enumerate(payloads):
        row = envelope(
            NAME, f"m{at}-{n}", cause="message", source="test", sender=f"s{n % 3}",
            payload=orjson.dumps(payload).decode(), at=at,
        )  # fmt: skip
        await unit.commit([row])
        engine.notify(NAME)
    async with asyncio.timeout(60):
        while await unit.count("inbox", {"agent": NAME, "state": "new"}, limit=1):
            await asyncio.sleep(0.005)
