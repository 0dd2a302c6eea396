"""Machine states as JSON text and back, for the `body` columns. Pure.

States are frozen dataclasses of plain values, tuples, string enums, money and other such dataclasses. Reading is
strict in types and lenient in keys: a key that is missing takes the field's default, one that is unknown is dropped,
so that a row written by an older or newer program can still be read.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeAlias, TypeVar

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


Reader: TypeAlias = Callable[[Any], Any]


def _build(kind: Any, value: Any) -> Any:
    return _reader(kind)(value)


@cache
def _reader(kind: Any) -> Reader:
    """How a value of this type is read: worked out once for each type, since a state has some hundred values."""
    if isinstance(kind, typing.NewType):
        return _reader(kind.__supertype__)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (item for item in typing.get_args(kind) if item is not type(None))
        read = _reader(inner)
        return lambda value: None if value is None else read(value)
    if origin is tuple:
        return _tuple_reader(typing.get_args(kind))
    if not isinstance(kind, type):
        raise TypeError(f"no rule for {kind}")
    if issubclass(kind, Msat | MicroUsd):
        return kind
    if dataclasses.is_dataclass(kind):
        return _state_reader(kind)
    if issubclass(kind, Enum):
        return kind

    def plain(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{type(value).__name__} where {kind} was expected")
        return value

    return plain


def _state_reader(kind: Any) -> Reader:
    hints = typing.get_type_hints(kind)
    readers = [(item.name, _reader(hints[item.name])) for item in dataclasses.fields(kind)]

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise TypeError(f"not an object: {kind}")
        return kind(**{name: inner(value[name]) for name, inner in readers if name in value})

    return read


def _tuple_reader(items: tuple[Any, ...]) -> Reader:
    readers = [_reader(item) for item in items if item is not Ellipsis]
    is_long = len(items) == 2 and items[1] is Ellipsis

    def read(value: Any) -> Any:
        if type(value) is not list:
            raise TypeError("not a list")
        if is_long:
            return tuple(map(readers[0], value))
        if len(readers) != len(value):
            raise ValueError("a list of another length")
        return tuple(inner(part) for inner, part in zip(readers, value, strict=True))

    return read
