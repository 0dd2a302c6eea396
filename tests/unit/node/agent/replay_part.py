"""Programs that do as a script says, and single ticks of them without an engine: recorded, and changed."""

from collections.abc import Sequence
from typing import Any

import orjson
from hypothesis import strategies as st
from pydantic import BaseModel

from core.error import Unavailable
from fs.namespace import Access, Mount, Namespace
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.agent.context import Context, Files, Stage
from node.agent.program import Nothing, Program, Trigger
from node.agent.replay.notation import decode, encode
from node.agent.replay.recording import End, Recording
from node.agent.replay.tape import LiveTape
from node.agent.state import configured, kept, loaded
from node.agent.tick.lap import trigger
from node.agent.tick.play import play
from tests.unit.node.agent.recording_part import start_of

Act = tuple[str, str, Any]
Script = tuple[Act, ...]


class Book(BaseModel):
    """Whatever the script wrote down."""

    total: int = 0
    notes: dict[str, Any] = {}


class Scripted(Program[Book, Nothing]):
    """Does what its script says; what it hears goes into its state."""

    name = "scripted"
    state_type, config_type = Book, Nothing

    def __init__(self, script: Sequence[Act], digest: str = "ab" * 32) -> None:
        self.script = script
        self.digest = digest

    async def on_trigger(self, ctx: Context[Book, Nothing], trigger: Trigger) -> None:
        for n, (act, name, value) in enumerate(self.script):
            heard = await _act(ctx, act, name, value)
            if heard is not None:
                ctx.state.notes[f"{n}"] = heard


async def _act(ctx: Context[Any, Any], act: str, name: str, value: Any) -> Any:
    match act:
        case "read" | "list" | "call" | "write":
            return await _file(ctx, act, name, value)
        case "log":
            ctx.log(name, value=value)
        case "random":
            return ctx.random.randrange(10**9)
        case "id":
            return ctx.new_id()
        case "now":
            return [ctx.now, ctx.now_ms, ctx.until_ms, ctx.tick_id, ctx.agent]
        case "mark":
            ctx.mark_seen(name)
        case "seen":
            return await ctx.seen(name)
        case "get":
            return await ctx.memory.get(name)
        case "keys":
            return await ctx.memory.list()
        case "set":
            ctx.memory.set(name, value)
        case "delete":
            ctx.memory.delete(name)
        case "alarm":
            ctx.set_alarm(name, after_ms=1_000 + value, payload={"n": value})
        case "cancel":
            ctx.cancel_alarm(name)
        case "watch":
            ctx.watch(name, "payment.received", {"data.amount": value})
        case "unwatch":
            ctx.unwatch(name)
        case "hibernate":
            ctx.hibernate()
        case "add":
            ctx.state.total += value
        case "refuse":
            raise Unavailable(f"{name} does not answer")
        case "break":
            raise KeyError(name)
    return None


async def _file(ctx: Context[Any, Any], act: str, name: str, value: Any) -> Any:
    try:
        if act == "read":
            return (await ctx.fs.read(f"/w/{name}")).decode()
        if act == "list":
            return [stat.name for stat in await ctx.fs.list("/w")]
        if act == "call":
            return (await ctx.fs.call("/w/new", orjson.dumps({name: value}))).decode()
        return await ctx.fs.write(f"/w/{name}", f"{value}".encode())
    except Unavailable as error:
        return f"{error.code}: {error.message}"


def world() -> Namespace:
    """Files that a script may ask for; one of them is large and one does not answer."""

    async def small(session: Session) -> bytes:
        return b"a small file"

    async def large(session: Session) -> bytes:
        return b"a large file. " * 500

    async def broken(session: Session) -> bytes:
        raise Unavailable("The file is not there at the moment.")

    async def new(body: bytes, session: Session) -> bytes:
        return b"staged " + (session.key or "").encode() + b" " + body

    async def keep(body: bytes, session: Session) -> None:
        await session.apply([])

    files = {
        "a": File("small", read=small, write=keep),
        "b": File("large", read=large, write=keep),
        "c": File("broken", read=broken, write=keep),
        "new": File("staged", call=new),
    }
    return Namespace([Mount("/w", Tree(Folder("the world", files)), Access.WRITE)])


class Rows:
    """What the agent has kept before."""

    async def marked(self, mark: str) -> bool:
        return mark == "b"

    async def item(self, key: str) -> str | None:
        return '{"kept":[1,2]}' if key == "a" else None

    async def items(self, prefix: str) -> list[str]:
        return ["a"]


async def recorded(program: Program[Any, Any], tape: LiveTape | None = None, **start_changes: Any) -> Recording:
    """One tick of a program in the world, as its recording comes back from the database, large bodies and all."""
    own = {"program": program.name, "code": program.digest, "state_version": program.version, "state": "{}"}
    start = start_of(**(own | start_changes))
    tape, stage = tape or LiveTape(), Stage()
    files = Files(lambda agent: world(), start.agent, start.envelope["envelope_id"], tape, stage)
    state = loaded(program, start.state_version, str(start.state))
    config = configured(program, str(start.config))
    ctx = Context(
        start.agent, start.tick_id, start.now_ms, start.until_ms, state, config, tape, stage, Rows(), files
    )  # fmt: skip
    try:
        await play(program, ctx, trigger(dict(start.envelope)), tape, first="first" in start.flags)
        end = End(program.version, kept(program, ctx.state, 1 << 20)[0])
    except Unavailable as error:
        end = End.failed(error.code, error.message)
    except KeyError:
        end = End.failed("agent.failed", "The program raised KeyError.")
    body, blobs = encode(Recording(start, tuple(tape.steps), end, tape.cut), tape.redactor)
    return decode(body).filled(blobs)


_names = st.sampled_from(["a", "b", "c"])
_numbers = st.integers(0, 9)
_acts = st.sampled_from(
    ["read", "list", "call", "write", "log", "random", "id", "now", "mark", "seen", "get", "keys", "set", "delete",
     "alarm", "cancel", "watch", "unwatch", "hibernate", "add"]
)  # fmt: skip
acts = st.tuples(_acts, _names, _numbers)
last_acts = st.one_of(acts, st.tuples(st.sampled_from(["refuse", "break"]), _names, _numbers))
scripts = st.tuples(st.lists(acts, max_size=10), last_acts).map(lambda parts: (*parts[0], parts[1]))
