"""Conditions of writes and questions as PostgreSQL's SQL. Pure. Values are bound, words stand in the text."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from core.unit import Among, Condition, Value, Within
from node.storage.postgres_text import bound
from node.storage.schema import TableFacts

TYPES = {int: "bigint", str: "text", bytes: "bytea"}
_FEW = 8  # so many values are compared one by one, more of them as an array

Shape: TypeAlias = tuple[tuple[str, str, int, bool], ...]
"""Of each condition: its column, how it compares (or the words that it compares with), with how many values, and
whether null will do as well."""


def shape_of(about: TableFacts, where: Mapping[str, Condition], params: list[Value]) -> Shape:
    """The conditions' shape; their values are put behind `params`. They were checked."""
    shape = []
    for column, wanted in where.items():
        if isinstance(wanted, Among):
            shape.append(_among(about, column, wanted, params))
        elif isinstance(wanted, Within):
            sides = [(sign, value) for sign, value in ((">=", wanted.low), ("<", wanted.high)) if value is not None]
            params += [value for _, value in sides]
            shape.append((column, "within " + " ".join(sign for sign, _ in sides), len(sides), False))
        elif wanted is None:
            shape.append((column, "null", 0, False))
        elif column in about.literal:
            shape.append((column, f"word {str.__str__(wanted)}", 0, False))
        else:
            params.append(wanted)
            shape.append((column, "=", 1, False))
    return tuple(shape)


def _among(about: TableFacts, column: str, wanted: Among, params: list[Value]) -> tuple[str, str, int, bool]:
    given = [value for value in dict.fromkeys(wanted.values) if value is not None]
    null = None in wanted.values
    if column in about.literal:
        return column, " ".join(["word", *sorted(str.__str__(value) for value in given)]), 0, null
    if len(given) <= _FEW:
        count = 1 << (len(given) - 1).bit_length() if given else 0  # few texts: the last value is repeated
        params += given + given[-1:] * (count - len(given))
        return column, "in", count, null
    params.append(tuple(given))  # type: ignore[arg-type]  # an array, which only a lone statement takes
    return column, "any", 1, null


def conditions_of(shape: Shape, about: TableFacts, first: int) -> tuple[list[str], list[str]]:
    """The texts, their parameters numbered from `first` on, and the parameters' types."""
    texts: list[str] = []
    types: list[str] = []
    for column, sort, count, null in shape:
        name, kind = f't."{column}"', TYPES[about.kinds[column]]
        slots = [f"{{{first + len(types) + k}}}" for k in range(count)]
        types += [f"{kind}[]" if sort == "any" else kind] * count
        how, _, words = sort.partition(" ")
        if how == "null":
            text = f"{name} IS NULL"
        elif how == "word":
            text = _equal(name, [f"'{word}'" for word in words.split()])
        elif how == "within":
            signs = zip(words.split(), slots, strict=True)
            text = " AND ".join(f"{name} {sign} {slot}" for sign, slot in signs) or f"{name} IS NOT NULL"
        elif how == "any":
            text = f"{name} = ANY({slots[0]})"
        else:
            text = _equal(name, slots)
        texts.append(f"({text} OR {name} IS NULL)" if null else text)
    return texts, types


def _equal(name: str, values: list[str]) -> str:
    if len(values) == 1:
        return f"{name} = {values[0]}"
    return f"{name} IN ({', '.join(values)})" if values else "false"


def finder_of(about: TableFacts, shape: Shape) -> int | None:
    """The unique key whose columns are all compared for equality."""
    equal = {column for column, sort, count, null in shape if sort in ("=", "in") and count == 1 and not null}
    return next((number for number, key in enumerate(about.unique) if equal.issuperset(key)), None)


def by_key_alone(about: TableFacts, shape: Shape, finder: int | None, conditions: list[str]) -> list[str]:
    """The same conditions, with only those of the key in a form for which an index may be taken.

    A plan that was made on a small table would else read all of an index over some of the rows for one of them.
    """
    if finder is None:
        return conditions
    names = [column for column, *_ in shape]
    ours = [text for column, text in zip(names, conditions, strict=False) if column in about.unique[finder]]
    rest = [text for text in conditions if text not in ours]
    return [*ours, f"COALESCE({' AND '.join(rest)}, false)"] if rest else ours


def after_where(conditions: Iterable[str]) -> str:
    """All of these, as a statement's end."""
    text = " AND ".join(conditions)
    return f" WHERE {text}" if text else ""


def all_bound(params: Iterable[Value | tuple[Value, ...]]) -> tuple[Any, ...]:
    """Values as the driver takes them.

    Raises:
        BadWrite: a text is not valid Unicode.
    """
    return tuple([[bound(one) for one in value] if isinstance(value, tuple) else bound(value) for value in params])
