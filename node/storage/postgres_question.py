"""Questions as PostgreSQL's SQL. Pure. Many questions of one shape can be asked as one."""
# ruff: noqa: S608 - names and words that the schema knows; values are bound

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from core.unit import Condition, Row, Value
from node.storage.postgres_condition import (
    Shape,
    after_where,
    all_bound,
    by_key_alone,
    conditions_of,
    finder_of,
    shape_of,
)
from node.storage.postgres_text import array, is_plain, listed, picked, read
from node.storage.schema import TableFacts, facts

_SHAPES = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """All questions of one shape.

    Attributes:
        lone: the text for one of them.
        many: the text for any number of them, with arrays; its rows end with the question's number. Empty if they
            cannot be asked together.
        columns: of the answer's rows.
        types: of the parameters.
        texts: takes the texts out of a row; None if one may be null.
    """

    lone: str
    many: str
    columns: tuple[str, ...]
    types: tuple[str, ...] = ()
    texts: Callable[[Any], tuple[str, ...]] | None = None

    def together(self, params: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The parameters of `many` for these questions."""
        columns = zip(*params, strict=True)
        return [listed(kind, column) for kind, column in zip(self.types, columns, strict=True)]

    def rows(self, answer: Sequence[Sequence[Any]]) -> list[Row]:
        """The answer's rows, as they were before they were written."""
        columns, texts = self.columns, self.texts
        if texts is not None and is_plain(["".join(texts(row)) for row in answer]):
            return [dict(zip(columns, row, strict=False)) for row in answer]  # what is behind them orders them
        return [{column: read(value) for column, value in zip(columns, row, strict=False)} for row in answer]


class Question(NamedTuple):
    """One question."""

    ask: Ask
    params: tuple[Any, ...]


@lru_cache(_SHAPES)
def _select(
    table: str, shape: Shape, order: tuple[str, ...], limited: bool, columns: tuple[str, ...], distinct: bool
) -> Ask:
    about = facts(table)
    conditions, types = conditions_of(shape, about, 0)
    conditions = by_key_alone(about, shape, finder_of(about, shape), conditions)
    types += ["bigint"] * limited
    wanted = columns or tuple(about.kinds)
    beside = [name for name in dict.fromkeys(key.removeprefix("-") for key in order) if name not in wanted]
    names = ", ".join(f't."{column}"' for column in (*wanted, *beside))
    loose = _loose(about, shape)
    text = f'SELECT {"DISTINCT " * distinct}{names} FROM "{table}" AS t{after_where(conditions)}'
    text += _order(loose, order, "t") + f" LIMIT {{{len(types) - 1}}}" * limited
    lone = text.format(*(f"${k}::{kind}" for k, kind in enumerate(types, 1)))
    many = ""
    if types and not any(sort == "any" for _, sort, _, _ in shape):
        arrays = ", ".join(array(kind, k) for k, kind in enumerate(types, 1))
        slots = [f"p{k}" for k in range(len(types))]
        inner = text.format(*(f"r.{slot}" for slot in slots))
        many = (
            f"SELECT a.*, r.i FROM unnest({arrays}) WITH ORDINALITY AS r({', '.join(slots)}, i) "
            f"CROSS JOIN LATERAL ({inner}) AS a{_order(loose, order, 'a', before='r.i')}"
        )
    texts = [at for at, column in enumerate(wanted) if about.kinds[column] is str]
    whole = not about.nullable.intersection(wanted[at] for at in texts)
    return Ask(lone, many, wanted, tuple(types), picked(texts) if whole else None)


def _loose(about: TableFacts, shape: Shape) -> set[str]:
    """The columns in which a row that is found may have null."""
    compared = {column for column, sort, _, null in shape if sort != "null" and not null}
    return {*about.nullable} - {about.counter} - compared


def _order(loose: set[str], order: Sequence[str], alias: str, before: str = "") -> str:
    keys = [before] if before else []
    for name in order:
        column = name.removeprefix("-")
        # null comes before everything else, as in SQLite; said only where one may be found, since indexes differ
        nulls = column in loose
        key = f'{alias}."{column}"'
        keys.append(f"{key} DESC{' NULLS LAST' * nulls}" if name != column else f"{key}{' NULLS FIRST' * nulls}")
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def question(
    table: str,
    where: Mapping[str, Condition],
    order: Sequence[str] = (),
    limit: int | None = None,
    columns: Sequence[str] = (),
    distinct: bool = False,
) -> Question:
    """The question for `select`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    about = facts(table)
    about.check_where(where)
    about.check_question(order, columns, distinct)
    params: list[Value] = []
    shape = shape_of(about, where, params)
    if limit is not None:
        params.append(max(0, limit))
    return Question(_select(table, shape, tuple(order), limit is not None, tuple(columns), distinct), all_bound(params))


@lru_cache(_SHAPES)
def _count(table: str, shape: Shape, limited: bool) -> Ask:
    conditions, types = conditions_of(shape, facts(table), 0)
    types += ["bigint"] * limited
    rows = f'FROM "{table}" AS t{after_where(conditions)}'
    text = (
        f"SELECT count(*) FROM (SELECT {rows} LIMIT {{{len(types) - 1}}}) AS a"
        if limited
        else f"SELECT count(*) {rows}"
    )
    return Ask(text.format(*(f"${k}::{kind}" for k, kind in enumerate(types, 1))), "", ("count",))


def count_question(table: str, where: Mapping[str, Condition], limit: int | None) -> Question:
    """The question for `count`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    about = facts(table)
    about.check_where(where)
    params: list[Value] = []
    shape = shape_of(about, where, params)
    if limit is not None:
        params.append(max(0, limit))
    return Question(_count(table, shape, limit is not None), all_bound(params))
