"""Writes and questions as SQLite's SQL. Texts are made once per shape (table and columns) and kept; values are bound.

Only column names that the schema knows reach a text, so nothing from outside can.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, TypeAlias

import orjson

from core.unit import Among, Append, Condition, Delete, Insert, Update, Value, Within
from node.storage.error import BadWrite
from node.storage.schema import TableFacts, facts

_SHAPES = 2048
_MOST_MARKS = 16_384  # SQLite takes twice as many in one statement
ENTRY_COLUMNS = ("run", "seq", "id", "prev", "type", "effect_id", "raw")


class Step(NamedTuple):
    """One statement of a unit.

    Attributes:
        rows: how many rows it must touch, None for any number.
        single: whether it cannot touch more than one.
    """

    sql: str
    params: tuple[Value, ...]
    rows: int | None
    table: str
    position: int
    single: bool


@dataclass(slots=True)
class Batch:
    """One statement for many rows. `rows`: how many they must touch in all, None for any number."""

    sql: str
    rows: int | None
    params: list[tuple[Value, ...]]


def batches(steps: Iterable[Step]) -> Iterator[Batch]:
    """The same writes, those with one text together. What is written to one table keeps its order.

    Nothing but that order matters: no statement writes to one table and reads another. Only where each statement must
    touch one row, and cannot touch more, does the sum of all tell whether each touched its own.
    """
    tables: dict[str, list[Batch]] = {}
    for sql, params, rows, table, _, single in steps:
        of_table = tables.setdefault(table, [])
        last = of_table[-1] if of_table else None
        alike = last is not None and last.sql == sql and (last.rows is None) == (rows is None)
        if last is None or not alike or not (rows is None or (single and rows == 1)):
            of_table.append(Batch(sql, rows, [params]))
            continue
        last.params.append(params)
        if last.rows is not None and rows is not None:
            last.rows += rows
    return chain.from_iterable(tables.values())


Unit: TypeAlias = tuple[Step | Append, ...]


@lru_cache(_SHAPES)
def insert_sql(table: str, columns: tuple[str, ...], or_ignore: bool) -> tuple[str, tuple[Value, ...]]:
    """The text, and the defaults to bind after the given columns."""
    about = facts(table)
    absent = [column for column in about.defaults if column not in columns]
    names = ", ".join(f'"{column}"' for column in (*columns, *absent))
    marks = ", ".join("?" * (len(columns) + len(absent)))
    # not INSERT OR IGNORE, which would also swallow nulls where none may be
    ignore = " ON CONFLICT DO NOTHING" if or_ignore else ""
    return f'INSERT INTO "{table}" ({names}) VALUES ({marks}){ignore}', tuple(about.defaults[name] for name in absent)  # noqa: S608


Shape: TypeAlias = tuple[str, ...]
"""The texts of all conditions of a `where`, in its order. There are few: values are bound, words come from a few."""


def _where(about: TableFacts, where: Mapping[str, Condition]) -> tuple[Shape, tuple[Value, ...]]:
    """The conditions' texts and what is bound to them. They were checked."""
    shape: list[str] = []
    params: list[Value] = []
    for column, wanted in where.items():
        if isinstance(wanted, Among):
            shape.append(_among(about, column, wanted, params))
        elif isinstance(wanted, Within):
            shape.append(_within(column, wanted, params))
        elif wanted is None:
            shape.append(f'"{column}" IS NULL')
        elif column in about.literal and isinstance(wanted, str):
            shape.append(f"\"{column}\" = '{str.__str__(wanted)}'")
        else:
            shape.append(f'"{column}" = ?')
            params.append(wanted)
    return tuple(shape), tuple(params)


def _among(about: TableFacts, column: str, wanted: Among, params: list[Value]) -> str:
    given = [value for value in wanted.values if value is not None]
    if column in about.literal:
        words = sorted({str.__str__(value) for value in given if isinstance(value, str)})
        # an index over some of the rows is found by = and not by IN
        text = f"\"{column}\" = '{words[0]}'" if len(words) == 1 else f'"{column}" IN ({_quoted(words)})'
    elif any(isinstance(value, bytes) or (isinstance(value, str) and "\0" in value) for value in given):
        # JSON has no bytes, and SQLite's ends a text at a NUL; repeated, so that there are few texts
        marks = 1 << (len(given) - 1).bit_length()
        if marks > _MOST_MARKS:
            raise BadWrite("These are too many values to look up at once.")
        params += given + given[-1:] * (marks - len(given))
        text = f'"{column}" IN ({", ".join("?" * marks)})'
    else:
        try:  # one text for any number of values
            params.append(orjson.dumps(given).decode())
        except TypeError as error:
            raise BadWrite("A text is not valid Unicode.") from error
        text = f'"{column}" IN (SELECT value FROM json_each(?))'  # noqa: S608
    return f'({text} OR "{column}" IS NULL)' if None in wanted.values else text


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _within(column: str, wanted: Within, params: list[Value]) -> str:
    sides = [(f'"{column}" >= ?', wanted.low), (f'"{column}" < ?', wanted.high)]
    given = [(text, value) for text, value in sides if value is not None]
    params += [value for _, value in given]
    return " AND ".join(text for text, _ in given) or f'"{column}" IS NOT NULL'


def _after_where(shape: Iterable[str]) -> str:
    conditions = " AND ".join(shape)
    return f" WHERE {conditions}" if conditions else ""


@lru_cache(_SHAPES)
def _update_sql(
    table: str,
    where: Shape,
    replaced: tuple[str, ...],
    added: tuple[str, ...],
    ceiling: tuple[tuple[str, ...], str] | None,
) -> tuple[str, tuple[str, ...]]:
    """The text, and which changed columns are bound once more for the ceiling."""
    changes = [f'"{column}" = ?' for column in replaced] + [f'"{column}" = "{column}" + ?' for column in added]
    if not changes:  # only a condition: touch the row without changing it
        first = next(iter(facts(table).kinds))
        changes = [f'"{first}" = "{first}"']
    conditions, again = [*where], []
    if ceiling is not None:
        parts, most = ceiling

        def after(column: str) -> str:
            if column in replaced:
                again.append(column)
                return "?"
            if column in added:
                again.append(column)
                return f'"{column}" + ?'
            return f'"{column}"'

        bound = after(most)
        conditions.append(f"({bound} IS NULL OR {' + '.join(after(part) for part in parts)} <= {after(most)})")
    text = f'UPDATE "{table}" SET {", ".join(changes)}'  # noqa: S608
    return text + _after_where(conditions), tuple(again)


@lru_cache(_SHAPES)
def _delete_sql(table: str, where: Shape) -> str:
    return f'DELETE FROM "{table}"{_after_where(where)}'  # noqa: S608


def step(write: Insert | Update | Delete, position: int) -> Step:
    """The statement for one write.

    Raises:
        BadWrite: it does not fit the schema.
    """
    about = facts(write.table)
    if isinstance(write, Insert):
        about.check_insert(write.row)
        sql, defaults = insert_sql(write.table, tuple(write.row), write.or_ignore)
        params = (*write.row.values(), *defaults)
        return Step(sql, params, None if write.or_ignore else 1, write.table, position, True)
    if isinstance(write, Update):
        about.check_update(write)
        shape, given = _where(about, write.where)
        sql, again = _update_sql(write.table, shape, tuple(write.set), tuple(write.add), write.ceiling)
        changed = {**write.set, **write.add}
        params = (*changed.values(), *given, *(changed[column] for column in again))
        return Step(sql, params, write.rows, write.table, position, about.finds_one(write.where))
    about.check_where(write.where)
    shape, given = _where(about, write.where)
    return Step(_delete_sql(write.table, shape), given, write.rows, write.table, position, about.finds_one(write.where))


ENTRY_SQL, _ = insert_sql("entry", ENTRY_COLUMNS, False)


@lru_cache(_SHAPES)
def _select_sql(
    table: str, columns: tuple[str, ...], distinct: bool, shape: Shape, order: tuple[str, ...], limited: bool
) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    text = f'SELECT {"DISTINCT " if distinct else ""}{names} FROM "{table}"{_after_where(shape)}'  # noqa: S608
    if order:
        keys = (f'"{name[1:]}" DESC' if name.startswith("-") else f'"{name}"' for name in order)
        text += f" ORDER BY {', '.join(keys)}"
    return text + (" LIMIT ?" if limited else "")


class Question(NamedTuple):
    """A text, the values for it, and the columns that its rows have."""

    sql: str
    params: tuple[Value, ...]
    columns: tuple[str, ...]


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
    wanted = tuple(columns) or tuple(about.kinds)
    shape, params = _where(about, where)
    if limit is not None:
        params = (*params, max(0, limit))
    return Question(_select_sql(table, wanted, distinct, shape, tuple(order), limit is not None), params, wanted)


def count_question(table: str, where: Mapping[str, Condition], limit: int | None) -> Question:
    """The question for `count`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    about = facts(table)
    about.check_where(where)
    shape, params = _where(about, where)
    if limit is None:
        return Question(f'SELECT count(*) FROM "{table}"{_after_where(shape)}', params, ("count",))  # noqa: S608
    text = f'SELECT count(*) FROM (SELECT 1 FROM "{table}"{_after_where(shape)} LIMIT ?)'  # noqa: S608
    return Question(text, (*params, max(0, limit)), ("count",))


def is_unique_clash(error: sqlite3.IntegrityError) -> bool:
    """Whether a key was taken, as opposed to a null where none may be."""
    return error.sqlite_errorcode in (
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    )
