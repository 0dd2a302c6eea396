"""The first difference between two runs of a tick, so that a person sees it at once. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from node.agent.replay.tape import Step

NOTHING = "(nothing)"
_SHOWN = 300
_NOUN = {
    "read": ("path",),
    "list": ("path",),
    "remove": ("path",),
    "rename": ("path", "to"),
    "mkdir": ("path",),
    "write": ("path", "body"),
    "call": ("path", "key", "body"),
    "log": ("type", "data"),
    "item.set": ("key", "value"),
    "alarm.set": ("id", "alarm"),
    "watch": ("id", "event", "pattern"),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`where` it is, and what stands there in the recording and in the replay."""

    where: str
    expected: str
    found: str


def shown(value: Any) -> str:
    """A value on one line, and not too long for it."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values that hold no others are the same; 1 and 1.0 are, 1 and true are not."""
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def pointer(expected: Any, found: Any) -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ, as a JSON pointer (RFC 6901), and what each has there; `...` is nothing."""
    left: list[tuple[str, Any, Any]] = [("", expected, found)]
    while left:
        path, one, other = left.pop()
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names = [*one, *(name for name in other if name not in one)]
            parts = [(_name(name), one.get(name, ...), other.get(name, ...)) for name in names]
        elif isinstance(one, list) and isinstance(other, list):
            length = max(len(one), len(other))
            parts = [(str(n), _at(one, n), _at(other, n)) for n in range(length)]
        elif _same(one, other):
            continue
        else:
            return path, one, other
        left.extend((f"{path}/{name}", first, second) for name, first, second in reversed(parts))
    return None


def _name(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _at(values: Sequence[Any], n: int) -> Any:
    return values[n] if n < len(values) else ...


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return ...


def in_text(where: str, expected: str, found: str) -> Difference | None:
    """The first difference of two texts; of two JSON texts, within them."""
    if expected == found:
        return None
    one, other = _parsed(expected), _parsed(found)
    if isinstance(one, dict | list) and isinstance(other, dict | list):
        inner = pointer(one, other)
        if inner is None:
            return None
        path, first, second = inner
        return Difference(
            f"{where} {path}".rstrip(),
            NOTHING if first is ... else shown(first),
            NOTHING if second is ... else shown(second),
        )
    return Difference(where, shown(expected), shown(found))


def line(step: Step | None) -> str:
    """A step as one line."""
    if step is None:
        return NOTHING
    return shown(" ".join([step.op, *(arg if isinstance(arg, str) else "(bytes)" for arg in step.args)]))


def in_step(position: int, expected: Step | None, found: Step | None) -> Difference:
    """The difference of two steps that are not the same."""
    where = f"step {position + 1}"
    if expected is None or found is None or expected.op != found.op or len(expected.args) != len(found.args):
        return Difference(where, line(expected), line(found))
    nouns = _NOUN.get(expected.op, ())
    for n, (one, other) in enumerate(zip(expected.args, found.args, strict=True)):
        if one == other:
            continue
        noun = nouns[n] if n < len(nouns) else ""
        if noun == "path" or not (isinstance(one, str) and isinstance(other, str)):
            break
        subject = f" {expected.args[0]!r}" if n and isinstance(expected.args[0], str) else ""
        inner = in_text(f"{where}, {expected.op}{subject}: {noun}".rstrip(": "), one, other)
        return inner or Difference(where, shown(one), shown(other))
    return Difference(where, line(expected), line(found))
