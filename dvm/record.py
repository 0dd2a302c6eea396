"""Machine states as JSON text and back, for the `body` columns. Pure.

States are frozen dataclasses of plain values, tuples, string enums, money and other such dataclasses. Reading is
strict in types and lenient in keys: a key that is missing takes the field's default, one that is unknown is dropped,
so that a row written by an older or newer program can still be read.
"""

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import orjson

from core.error import VendoError
from core.money import MicroUsd, Msat

T = TypeVar("T")


class Unreadable(VendoError):
    """A stored state is not of the expected form."""

    code = "dvm.unreadable"
    remedy = "The row was changed by something else; restore it from a backup."


def encode(state: Any) -> str:
    """A dataclass as JSON text."""
    return orjson.dumps(state, default=_number).decode()


def _number(value: Any) -> int:
    if isinstance(value, Msat | MicroUsd):
        return value.value
    raise TypeError(f"{type(value).__name__} has no place in a stored state")


def decode(kind: type[T], text: str) -> T:
    """The dataclass that `encode` wrote.

    Raises:
        Unreadable: the text is not JSON, or a value has the wrong type.
    """
    try:
        value: T = _build(kind, orjson.loads(text))
    except (orjson.JSONDecodeError, TypeError, ValueError, KeyError) as error:
        raise Unreadable(f"A stored {kind.__name__} cannot be read.") from error
    return value


@cache
def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((item.name, hints[item.name]) for item in dataclasses.fields(kind))


def _build(kind: Any, value: Any) -> Any:
    if isinstance(kind, typing.NewType):
        kind = kind.__supertype__
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (item for item in typing.get_args(kind) if item is not type(None))
        return _build(kind, value)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value)
    if not isinstance(kind, type):
        raise TypeError(f"no rule for {kind}")
    if issubclass(kind, Msat | MicroUsd):
        return kind(value)
    if dataclasses.is_dataclass(kind):
        if type(value) is not dict:
            raise TypeError(f"not an object: {kind}")
        return kind(**{name: _build(hint, value[name]) for name, hint in _fields(kind) if name in value})
    if issubclass(kind, Enum):
        return kind(value)
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind} was expected")
    return value


def _tuple(items: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if type(value) is not list:
        raise TypeError("not a list")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_build(items[0], item) for item in value)
    if len(items) != len(value):
        raise ValueError("a list of another length")
    return tuple(_build(item, part) for item, part in zip(items, value, strict=True))
