"""Writes as PostgreSQL's SQL. Pure. Texts are made once per shape and kept; values are bound.

A `Form` is what all writes of one shape have in common. It stands in a statement for one write (`lone`, with the values
as parameters) or for many at once (`many`, with an array for each parameter, one element a write). Only column names
and words that the schema knows reach a text, so nothing from outside can.
"""
# ruff: noqa: S608 - names and words that the schema knows; values are bound

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from core.unit import Among, Append, Condition, Delete, Insert, Update, Value
from node.storage.postgres_condition import (
    TYPES,
    Shape,
    after_where,
    all_bound,
    by_key_alone,
    conditions_of,
    finder_of,
    shape_of,
)
from node.storage.postgres_text import array, bound
from node.storage.schema import TableFacts, facts

_SHAPES = 2048
INSERT, CHOSEN, UPDATE, DELETE = "insert", "chosen", "update", "delete"


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """One shape of write.

    Attributes:
        table: whose rows.
        sort: insert, chosen (an insert that names its own number), update or delete.
        types: of the parameters.
        text: the statement, `{0}`… standing for the parameters, `{from_}` for where they come from if that is an array.
        condition: what a row of the table must be like to be touched, in the same form; for inserts: what it must not
            be like.
        finder: which unique key names the row; None if it may be any rows.
        rows: how many of them it must touch; None for any number.
        proposed: an insert that gives way to a row that is there.
        counter: which parameter is the number that the row has chosen.
        numbered: whether rows of the table get numbers.
    """

    table: str
    sort: str
    types: tuple[str, ...]
    text: str
    condition: str
    finder: int | None = None
    rows: int | None = None
    proposed: bool = False
    counter: int | None = None
    numbered: bool = False

    def lone(self, base: int) -> str:
        """For one write, with parameters from number `base` + 1 on."""
        slots = [f"${base + k}::{kind}" for k, kind in enumerate(self.types, 1)]
        return self.text.format(*slots, from_="")

    def many(self, base: int) -> str:
        """For any number of writes at once, with as many arrays."""
        link = " USING " if self.sort == DELETE else " FROM "
        return self.text.format(*self.slots, from_=f"{link}{self.source(base)}")

    @property
    def is_insert(self) -> bool:
        """Whether it brings a row."""
        return self.sort in (INSERT, CHOSEN)

    @property
    def by_key(self) -> bool:
        """Whether it says by key which row it touches."""
        return self.finder is not None or self.is_insert

    @property
    def slots(self) -> list[str]:
        """The parameters' names in `source`."""
        return [f"r.p{k}" for k in range(len(self.types))]

    def source(self, base: int, *, numbered: bool = False) -> str:
        """The arrays as rows; `numbered` from 1 on in column `i`."""
        arrays = ", ".join(array(kind, base + k) for k, kind in enumerate(self.types, 1))
        names = ", ".join([f"p{k}" for k in range(len(self.types))] + ["i"] * numbered)
        return f"unnest({arrays}){' WITH ORDINALITY' * numbered} AS r({names})"


class Op(NamedTuple):
    """One write of a unit, the one at `position`. `keys`: the rows that it touches, as (which unique key, values…)."""

    form: Form
    params: tuple[Any, ...]
    keys: tuple[tuple[Any, ...], ...]
    position: int


Unit: TypeAlias = tuple[Op | Append, ...]


# --- inserts


@lru_cache(_SHAPES)
def _insert_form(table: str, given: tuple[str, ...], or_ignore: bool, chosen: bool) -> Form:
    """What is not given stands in the text, as the table's default."""
    about = facts(table)
    values = {column: _literal(about.defaults.get(column)) for column in about.kinds if column != about.counter}
    values |= {column: f"{{{place}}}" for place, column in enumerate(given)}
    names = ", ".join(f'"{column}"' for column in values)
    keys = [key for key in about.unique if all(column in values for column in key)]
    taken = [" AND ".join(f't."{column}" = {values[column]}' for column in key) for key in keys]
    return Form(
        table=table,
        sort=CHOSEN if chosen else INSERT,
        types=tuple(TYPES[about.kinds[column]] for column in given),
        text=f'INSERT INTO "{table}" ({names}) SELECT {", ".join(values.values())}{{from_}}'
        + " ON CONFLICT DO NOTHING" * or_ignore,
        condition=" OR ".join(f'EXISTS (SELECT FROM "{table}" AS t WHERE {one})' for one in taken) or "false",
        proposed=or_ignore,
        counter=given.index(about.counter or "") if chosen else None,
        numbered=about.counter is not None,
    )


def _literal(value: Value) -> str:
    """A default of ours in the text of a form."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("{", "{{").replace("}", "}}") + "'"
    return "NULL" if value is None else str(value)


def given_columns(about: TableFacts, row: Mapping[str, Value]) -> tuple[str, ...]:
    """What is bound of a new row, in the order of the table: all that it names but a number that it leaves open."""
    return tuple(
        column for column in about.kinds if column in row and (column != about.counter or row[column] is not None)
    )


def _insert(write: Insert, position: int) -> Op:
    about, row = facts(write.table), write.row
    about.check_insert(row)
    given = given_columns(about, row)
    form = _insert_form(write.table, given, write.or_ignore, about.counter in given)
    keys = []
    for number, key in enumerate(about.unique):
        values = [bound(row.get(column, about.defaults.get(column))) for column in key]
        if None not in values:  # a null is equal to nothing
            keys.append((number, *values))
    return Op(form, tuple([bound(row[column]) for column in given]), tuple(keys), position)


# --- updates and deletes


@lru_cache(_SHAPES)
def _update_form(
    table: str,
    shape: Shape,
    replaced: tuple[str, ...],
    added: tuple[str, ...],
    ceiling: tuple[tuple[str, ...], str] | None,
    rows: int | None,
) -> Form:
    about = facts(table)
    changed = {column: f"{{{k}}}" for k, column in enumerate((*replaced, *added))}
    types = [TYPES[about.kinds[column]] for column in changed]
    changes = [f'"{column}" = {changed[column]}' for column in replaced]
    changes += [f'"{column}" = t."{column}" + {changed[column]}' for column in added]
    if not changes:  # only a condition: touch the row without changing it
        first = next(iter(about.kinds))
        changes = [f'"{first}" = t."{first}"']
    conditions, more = conditions_of(shape, about, len(types))
    if ceiling is not None:
        parts, most = ceiling

        def after(column: str) -> str:  # as numeric: sums near the largest number are compared, not refused
            own = f't."{column}"::numeric'
            if column in replaced:
                return f"{changed[column]}::numeric"
            return f"{own} + {changed[column]}" if column in added else own

        conditions.append(f"({after(most)} IS NULL OR {' + '.join(map(after, parts))} <= {after(most)})")
    finder = _one_row(about, shape, changed, rows)
    conditions = by_key_alone(about, shape, finder, conditions)
    return Form(
        table=table,
        sort=UPDATE,
        types=(*types, *more),
        text=f'UPDATE "{table}" AS t SET {", ".join(changes)}{{from_}}{after_where(conditions)}',
        condition=" AND ".join(conditions) or "true",
        finder=finder,
        rows=rows,
    )


@lru_cache(_SHAPES)
def _delete_form(table: str, shape: Shape, rows: int | None) -> Form:
    about = facts(table)
    conditions, types = conditions_of(shape, about, 0)
    finder = _one_row(about, shape, (), rows)
    conditions = by_key_alone(about, shape, finder, conditions)
    return Form(
        table=table,
        sort=DELETE,
        types=tuple(types),
        text=f'DELETE FROM "{table}" AS t{{from_}}{after_where(conditions)}',
        condition=" AND ".join(conditions) or "true",
        finder=finder,
        rows=rows,
    )


def _one_row(about: TableFacts, shape: Shape, changed: Iterable[str], rows: int | None) -> int | None:
    """The unique key by which this finds its one row, if it leaves all unique keys as they are."""
    if rows not in (1, None) or any(sort == "any" for _, sort, _, _ in shape):
        return None
    if {column for key in about.unique for column in key}.intersection(changed):
        return None
    return finder_of(about, shape)


def _keys(about: TableFacts, form: Form, where: Mapping[str, Condition]) -> tuple[tuple[Any, ...], ...]:
    if form.finder is None:
        return ()
    found = [where[column] for column in about.unique[form.finder]]
    values = [one.values[0] if isinstance(one, Among) else one for one in found]
    return ((form.finder, *(bound(value) for value in values)),)  # type: ignore[arg-type]  # values: they are equal to it


def op(write: Insert | Update | Delete, position: int) -> Op:
    """The statement for one write.

    Raises:
        BadWrite: it does not fit the schema.
    """
    if isinstance(write, Insert):
        return _insert(write, position)
    about = facts(write.table)
    params: list[Value] = []
    if isinstance(write, Update):
        about.check_update(write)
        params += [*write.set.values(), *write.add.values()]
        shape = shape_of(about, write.where, params)
        form = _update_form(write.table, shape, tuple(write.set), tuple(write.add), write.ceiling, write.rows)
    else:
        about.check_where(write.where)
        shape = shape_of(about, write.where, params)
        form = _delete_form(write.table, shape, write.rows)
    return Op(form, all_bound(params), _keys(about, form, write.where), position)
