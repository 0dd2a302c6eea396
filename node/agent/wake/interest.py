"""Which events an agent wants to be told of: a type or its beginning, and what the fields of the event must be. Pure.

An interest in `payment.received` hears that type, one in `payment.*` every type that begins so, one in `*` all.
Its pattern names fields and what each must be: a value, one of several, a text that begins so, a number within bounds:

    {"subject": {"prefix": "/goals/"}, "data.amount": {"min": 1000}, "data.unit": ["sat", "msat"]}

Fields are `type`, `source`, `subject` and `data.<name>`, further names after more dots. There are no regular
expressions: what an agent asks for is compared in a time that its length bounds.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from core.error import InvalidInput
from core.unit import Delete, Insert, Row, Write
from node.agent.wake.alarm import check_id

TABLE = "interest"
MAX_INTERESTS = 200
MAX_PATTERN = 4_096
MAX_EVENT = 100
RESERVED = ("payment", "job", "file", "nostr", "identity")
_MAX_FIELDS = 16
_MAX_VALUES = 64
_MAX_STEPS = 8
_ALL = "*"
_WORD = r"[a-z0-9_-]+"
_TYPE = re.compile(rf"{_WORD}(\.{_WORD})*")
_WANTED = re.compile(rf"(\*|{_WORD}(\.{_WORD})*(\.\*)?)")
_TOP = ("type", "source", "subject")
_BOUNDS = frozenset({"min", "max"})
_MISSING = object()

Fields = Mapping[str, Any]


def check_type(event: str) -> str:
    """The type of an event.

    Raises:
        InvalidInput: it is not words of a-z, 0-9, `_` and `-` with dots between them, at most 100 characters.
    """
    if len(event) > MAX_EVENT or _TYPE.fullmatch(event) is None:
        raise InvalidInput("An event's type is words of a-z, 0-9, _ and - with dots between them.")
    return event


def check_hook_event(event: str) -> str:
    """The type of what a hook tells: not one that only the node itself may say.

    Raises:
        InvalidInput: it is no type, or begins as the node's own events do.
    """
    if check_type(event).partition(".")[0] in RESERVED:
        named = ", ".join(f"{word}." for word in RESERVED)
        raise InvalidInput(f"Events that begin with {named} are the node's own, and no hook tells them.")
    return event


def names_for(event: str) -> tuple[str, ...]:
    """What interests may name to hear an event of this type: itself, each beginning with `.*`, and `*`."""
    words = event.split(".")
    return (event, *(".".join([*words[:count], _ALL]) for count in range(len(words) - 1, 0, -1)), _ALL)


def watch(agent: str, interest: str, now: int, event: str, pattern: str = "{}") -> tuple[Write, ...]:
    """Writes that set an interest; one of this id is replaced. Ask `node.agent.wake.alarm.afford` first.

    Args:
        agent: who is to be told.
        interest: its id.
        now: Unix seconds.
        event: a type, the beginning of one with `.*`, or `*`.
        pattern: what the event's fields must be, as JSON.

    Raises:
        InvalidInput: one of them is not valid.
    """
    check_id(interest)
    if len(event) > MAX_EVENT or _WANTED.fullmatch(event) is None:
        raise InvalidInput("An interest names an event's type, the beginning of one with `.*`, or `*`.")
    read_pattern(pattern)
    row: Row = {"agent": agent, "id": interest, "event": event, "pattern": pattern, "created_at": now}
    return (*unwatch(agent, interest), Insert(TABLE, row))


def unwatch(agent: str, interest: str) -> tuple[Write, ...]:
    """Writes that take an interest away; none is fine too."""
    return (Delete(TABLE, {"agent": agent, "id": interest}),)


@lru_cache(1_024)
def read_pattern(text: str) -> "Pattern":
    """A pattern from its JSON.

    Raises:
        InvalidInput: it is too long, or not a pattern.
    """
    if len(text.encode()) > MAX_PATTERN:
        raise InvalidInput(f"A pattern has at most {MAX_PATTERN} bytes.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("A pattern is JSON.") from error
    if type(value) is not dict or len(value) > _MAX_FIELDS:
        raise InvalidInput(f"A pattern is an object of at most {_MAX_FIELDS} fields.")
    return Pattern({_path(name): _wish(name, wish) for name, wish in value.items()})


def _path(name: str) -> tuple[str, ...]:
    steps = tuple(name.split("."))
    if (len(steps) == 1 and name in _TOP) or (steps[0] == "data" and 2 <= len(steps) <= _MAX_STEPS and all(steps)):
        return steps
    raise InvalidInput(f"A pattern's fields are {', '.join(_TOP)} and data.<name>, not {name[:60]!r}.")


def _wish(name: str, wish: object) -> object:
    if isinstance(wish, list):
        if not 0 < len(wish) <= _MAX_VALUES or not all(_is_plain(one) for one in wish):
            raise InvalidInput(f"{name[:60]}: a list has 1 to {_MAX_VALUES} texts, numbers, true, false or null.")
        return wish
    if not isinstance(wish, dict):
        return wish
    if set(wish) == {"prefix"} and isinstance(wish["prefix"], str):
        return wish
    if wish and set(wish) <= _BOUNDS and all(_is_number(one) for one in wish.values()):
        return wish
    raise InvalidInput(f'{name[:60]}: what a field must be is a value, a list, {{"prefix"}}, or {{"min", "max"}}.')


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Pattern:
    """What the fields of an event must be; all of them."""

    __slots__ = ("_wishes",)

    def __init__(self, wishes: Mapping[tuple[str, ...], object]) -> None:
        self._wishes = wishes

    def matches(self, fields: Fields) -> bool:
        """Whether an event is such a one. `fields` are its type, source, subject and data."""
        return all(_meets(_at(fields, path), wish) for path, wish in self._wishes.items())


def _at(fields: Fields, path: tuple[str, ...]) -> object:
    found: object = fields
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return _MISSING
        found = found[step]
    return found


def _meets(value: object, wish: object) -> bool:
    if isinstance(wish, list):
        return any(_same(value, one) for one in wish)
    if not isinstance(wish, dict):
        return _same(value, wish)
    if "prefix" in wish:
        return isinstance(value, str) and value.startswith(wish["prefix"])
    if not _is_number(value):
        return False
    assert isinstance(value, int | float)
    return bool(wish.get("min", value) <= value <= wish.get("max", value))


def _same(value: object, wanted: object) -> bool:
    """Equal as JSON has it: a number is no truth value."""
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted
