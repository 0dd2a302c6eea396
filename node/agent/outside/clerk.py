"""Does what is asked in a turn on the tick's own context: all of it is committed with the tick, or none. Pure."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import orjson
from pydantic import RootModel

from core.error import InvalidInput
from fs.error import IsDirectory, NoSuchFile, Unsupported
from fs.tree import json_bytes, json_object
from node.agent.context import Context
from node.agent.outside.act import TURN, Act, Reply, object_of
from node.agent.program import Trigger

_STAGED = json_bytes({"status": "staged"})


class Anything(RootModel[dict[str, Any]]):
    """A state of no fixed form: any JSON object."""

    root: dict[str, Any] = {}


Here: TypeAlias = Context[Anything, Any]


def shown(ctx: Here, trigger: Trigger) -> dict[str, Any]:
    """What a turn is about, as JSON."""
    return {
        "agent": ctx.agent,
        "tick_id": ctx.tick_id,
        "now_ms": ctx.now_ms,
        "until_ms": ctx.until_ms,
        "trigger": trigger._asdict(),
        "state": ctx.state.root,
    }


async def perform(ctx: Here, trigger: Trigger, act: Act) -> Reply:
    """Do one act. Nothing of it is there before the tick is committed.

    Args:
        ctx: the tick's.
        trigger: what the turn is about.
        act: not a commit and not an abort.

    Raises:
        VendoError: it cannot be done; the turn goes on.
    """
    if act.path.rstrip("/") == TURN or act.path.startswith(TURN + "/"):
        return await _own(ctx, trigger, act)
    match act.method:
        case "GET":
            return Reply(await _look(ctx, act.path))
        case "PUT":
            await ctx.fs.write(act.path, act.body)
            return Reply(_STAGED, staged=True)
        case "POST":
            return Reply(await ctx.fs.call(act.path, act.body, act.key) or _STAGED, staged=True)
        case "DELETE":
            await ctx.fs.remove(act.path)
            return Reply(_STAGED, staged=True)
        case _:
            raise Unsupported("In a turn there are GET, PUT, POST and DELETE.")


async def _look(ctx: Here, path: str) -> bytes:
    listing = len(path) > 1 and path.endswith("/")
    if not listing:
        try:
            return await ctx.fs.read(path)
        except IsDirectory:
            listing = True
    entries = await ctx.fs.list(path.rstrip("/") or "/")
    return json_bytes([entry.to_dict() for entry in entries])


async def _own(ctx: Here, trigger: Trigger, act: Act) -> Reply:
    """The files of the turn itself."""
    if act.method == "DELETE":
        raise Unsupported("Nothing of a turn is deleted; abort it instead.")
    name, _, rest = act.path.removeprefix(TURN).strip("/").partition("/")
    if name == "memory":
        return await _memory(ctx, act, rest)
    if rest:
        raise NoSuchFile
    if (act.method, name) == ("GET", ""):
        return Reply(json_bytes(shown(ctx, trigger)))
    if (act.method, name) == ("PUT", "state"):
        ctx.state = Anything(json_object(act.body))
        return Reply(_STAGED, staged=True)
    doing = _CALLS.get(name)
    if doing is None:
        raise NoSuchFile
    if act.method != "POST":
        raise Unsupported
    value = json_object(act.body, doing.fields) if act.body.strip() else {}
    answer = await doing.call(ctx, value)
    return Reply(_STAGED, staged=True) if answer is None else Reply(json_bytes(answer))


async def _memory(ctx: Here, act: Act, key: str) -> Reply:
    match act.method:
        case "GET" if not key:
            return Reply(json_bytes(await ctx.memory.list()))
        case "GET":
            value = await ctx.memory.get(key)
            if value is None:
                raise NoSuchFile
            return Reply(json_bytes(value))
        case "PUT" if key:
            try:
                ctx.memory.set(key, orjson.loads(act.body))
            except orjson.JSONDecodeError as error:
                raise InvalidInput("A kept value is JSON.") from error
            return Reply(_STAGED, staged=True)
        case _:
            raise Unsupported


async def _log(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.log(_text(value, "type"), **object_of(value.get("data", {}), "`data`"))


async def _seen(ctx: Here, value: Mapping[str, Any]) -> dict[str, bool]:
    return {"seen": await ctx.seen(_text(value, "id"))}


async def _mark(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.mark_seen(_text(value, "id"))


async def _forget(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.memory.delete(_text(value, "key"))


async def _alarm(ctx: Here, value: Mapping[str, Any]) -> None:
    times = {name: _number(value, name) for name in ("at_ms", "after_ms", "every_ms") if name in value}
    cron = _text(value, "cron") if "cron" in value else None
    ctx.set_alarm(_text(value, "id"), **times, cron=cron, payload=object_of(value.get("payload", {}), "`payload`"))


async def _silence(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.cancel_alarm(_text(value, "id"))


async def _watch(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.watch(_text(value, "id"), _text(value, "event"), object_of(value.get("pattern", {}), "`pattern`"))


async def _unwatch(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.unwatch(_text(value, "id"))


async def _hibernate(ctx: Here, value: Mapping[str, Any]) -> None:
    ctx.hibernate()


class _Call(NamedTuple):
    call: Callable[[Here, Mapping[str, Any]], Awaitable[Any]]
    fields: frozenset[str]


_ID = frozenset({"id"})
_CALLS = {
    "log": _Call(_log, frozenset({"type", "data"})),
    "seen": _Call(_seen, _ID),
    "mark": _Call(_mark, _ID),
    "forget": _Call(_forget, frozenset({"key"})),
    "alarm": _Call(_alarm, frozenset({"id", "at_ms", "after_ms", "every_ms", "cron", "payload"})),
    "silence": _Call(_silence, _ID),
    "watch": _Call(_watch, frozenset({"id", "event", "pattern"})),
    "unwatch": _Call(_unwatch, _ID),
    "hibernate": _Call(_hibernate, frozenset()),
}


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if type(found) is not str:
        raise InvalidInput(f"`{name}` is a text.")
    return found


def _number(value: Mapping[str, Any], name: str) -> int:
    found = value[name]
    if type(found) is not int:
        raise InvalidInput(f"`{name}` is a whole number.")
    return found
