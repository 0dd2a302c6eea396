"""Writes and questions as SQLite's SQL. Texts are made once per shape (table and columns) and kept; values are bound.

Only column names that the schema knows reach a text, so nothing from outside can.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import orjson

from core.unit import Among, Append, Condition, Delete, Insert, Update, Value, Within, Write
from node.storage.error import BadWrite
from node.storage.schema import facts

_SHAPES = 2048
ENTRY_COLUMNS = ("run", "seq", "id", "prev", "type", "effect_id", "raw")


class Step(NamedTuple):
    """One statement of a unit. `rows` is how many rows it must touch, None for any number."""

    sql: str
    params: tuple[Value, ...]
    rows: int | None
    table: str
    position: int


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


def _equal(column: str, null: bool) -> str:
    return f'"{column}" IS NULL' if null else f'"{column}" = ?'


@lru_cache(_SHAPES)
def _update_sql(
    table: str,
    where: tuple[tuple[str, bool], ...],
    replaced: tuple[str, ...],
    added: tuple[str, ...],
    ceiling: tuple[tuple[str, ...], str] | None,
) -> tuple[str, tuple[str, ...]]:
    """The text, and which changed columns are bound once more for the ceiling."""
    changes = [f'"{column}" = ?' for column in replaced] + [f'"{column}" = "{column}" + ?' for column in added]
    if not changes:  # only a condition: touch the row without changing it
        first = next(iter(facts(table).kinds))
        changes = [f'"{first}" = "{first}"']
    conditions, again = [_equal(column, null) for column, null in where], []
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
    return text + (f" WHERE {' AND '.join(conditions)}" if conditions else ""), tuple(again)


@lru_cache(_SHAPES)
def _delete_sql(table: str, where: tuple[tuple[str, bool], ...]) -> str:
    text = f'DELETE FROM "{table}"'  # noqa: S608
    return text + (f" WHERE {' AND '.join(_equal(column, null) for column, null in where)}" if where else "")


def _nulls(where: Mapping[str, Value]) -> tuple[tuple[str, bool], ...]:
    return tuple((column, value is None) for column, value in where.items())


def _given(where: Mapping[str, Value]) -> tuple[Value, ...]:
    return tuple(value for value in where.values() if value is not None)


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
        return Step(sql, params, None if write.or_ignore else 1, write.table, position)
    if isinstance(write, Update):
        about.check_update(write)
        sql, again = _update_sql(write.table, _nulls(write.where), tuple(write.set), tuple(write.add), write.ceiling)
        changed = {**write.set, **write.add}
        params = (*changed.values(), *_given(write.where), *(changed[column] for column in again))
        return Step(sql, params, write.rows, write.table, position)
    about.check_where(write.where)
    return Step(_delete_sql(write.table, _nulls(write.where)), _given(write.where), write.rows, write.table, position)


def compiled(writes: Iterable[Write]) -> Unit:
    """A unit, ready for the writer. Ledger entries stay as they are: their place is known only there.

    Raises:
        BadWrite: a write does not fit the schema.
    """
    return tuple(write if isinstance(write, Append) else step(write, position) for position, write in enumerate(writes))


ENTRY_SQL, _ = insert_sql("entry", ENTRY_COLUMNS, False)


@lru_cache(_SHAPES)
def _select_sql(table: str, shape: tuple[str, ...], order: tuple[str, ...], limited: bool) -> str:
    columns = ", ".join(f'"{column}"' for column in facts(table).kinds)
    text = f'SELECT {columns} FROM "{table}"'  # noqa: S608
    if shape:
        text += f" WHERE {' AND '.join(shape)}"
    if order:
        keys = (f'"{name[1:]}" DESC' if name.startswith("-") else f'"{name}"' for name in order)
        text += f" ORDER BY {', '.join(keys)}"
    return text + (" LIMIT ?" if limited else "")


def _condition(column: str, wanted: Condition) -> tuple[str, tuple[Value, ...]]:
    if isinstance(wanted, Among):
        try:  # one text for any number of values
            listed = orjson.dumps([value for value in wanted.values if value is not None]).decode()
        except TypeError as error:
            raise BadWrite("Bytes and broken text cannot be looked up.") from error
        or_null = f' OR "{column}" IS NULL' if None in wanted.values else ""
        return f'("{column}" IN (SELECT value FROM json_each(?)){or_null})', (listed,)  # noqa: S608
    if isinstance(wanted, Within):
        sides = [(f'"{column}" >= ?', wanted.low), (f'"{column}" < ?', wanted.high)]
        given = [(text, value) for text, value in sides if value is not None]
        if not given:
            return f'"{column}" IS NOT NULL', ()
        return " AND ".join(text for text, _ in given), tuple(value for _, value in given)
    return _equal(column, wanted is None), () if wanted is None else (wanted,)


def question(
    table: str, where: Mapping[str, Condition], order: Sequence[str], limit: int | None
) -> tuple[str, tuple[Value, ...]]:
    """The text and the values for `select`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    about = facts(table)
    about.check_where(where)
    about.known(name.removeprefix("-") for name in order)
    shape: list[str] = []
    params: list[Value] = []
    for column, wanted in where.items():
        text, values = _condition(column, wanted)
        shape.append(text)
        params += values
    if limit is not None:
        params.append(max(0, limit))
    return _select_sql(table, tuple(shape), tuple(order), limit is not None), tuple(params)


def is_unique_clash(error: sqlite3.IntegrityError) -> bool:
    """Whether a key was taken, as opposed to a null where none may be."""
    return error.sqlite_errorcode in (
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    )
