"""What the tables say about themselves, in the form that the writers need: columns, defaults, unique keys. Pure.

Both databases fill defaults and check values here, so that they refuse the same things with the same words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, TypeDecorator, UniqueConstraint
from sqlmodel import SQLModel

from core.unit import Among, Condition, Update, Value, Within
from node.storage import table as tables
from node.storage.error import BadWrite

LEAST, MOST = -(1 << 63), (1 << 63) - 1
MOST_ADDED = 1 << 61  # two of them still fit, so that a sum never turns into a float inside SQLite
_WORD = re.compile(r"[a-z_]{1,24}")


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table.

    Attributes:
        kinds: column name → int, str or bytes, in the order of the table.
        nullable: columns that may be null.
        defaults: what an `Insert` gets for columns that it leaves out.
        required: columns that an `Insert` must name.
        unique: the primary key, then every other set of columns that no two rows share.
        indexed: columns by which rows are found quickly.
        counter: the key that counts up by itself, if the table has one.
        literal: columns of words that stand in the text of a statement where they are compared for equality.
    """

    name: str
    kinds: Mapping[str, type]
    nullable: frozenset[str]
    defaults: Mapping[str, Value]
    required: frozenset[str]
    unique: tuple[tuple[str, ...], ...]
    indexed: frozenset[str]
    counter: str | None
    literal: frozenset[str]

    def known(self, columns: Iterable[str]) -> None:
        """Check names.

        Raises:
            BadWrite: the table has no such column.
        """
        for column in columns:
            if column not in self.kinds:
                raise BadWrite(f"The table {self.name} has no column {column!r}.")

    def check(self, column: str, value: Value) -> Value:
        """The value, if the column can hold it.

        Raises:
            BadWrite: no such column, or a value of the wrong type or size.
        """
        kind = self.kinds.get(column)
        if kind is None:
            raise BadWrite(f"The table {self.name} has no column {column!r}.")
        if value is None:
            if column not in self.nullable:
                raise BadWrite(f"{self.name}.{column} cannot be null.")
        elif not isinstance(value, kind):
            raise BadWrite(f"{self.name}.{column} holds {kind.__name__}, not {type(value).__name__}.")
        elif kind is int and not LEAST <= value <= MOST:  # type: ignore[operator]  # `kind` says that it is an int
            raise BadWrite(f"The number for {self.name}.{column} is too large.")
        elif column in self.literal and not _WORD.fullmatch(value):  # type: ignore[arg-type]  # `kind` says that it is a str
            raise BadWrite(f"{self.name}.{column} holds a word of a to z and _.")
        return value

    def check_insert(self, row: Mapping[str, Value]) -> None:
        """Check a new row.

        Raises:
            BadWrite: a column is unknown, missing, or of the wrong type.
        """
        for column, value in row.items():
            self.check(column, value)
        if not row.keys() >= self.required:
            raise BadWrite(f"A row for {self.name} lacks {', '.join(sorted(self.required - row.keys()))}.")

    def check_where(self, where: Mapping[str, Condition]) -> None:
        """Check what rows are looked up by.

        Raises:
            BadWrite: a column is unknown, or a value is of the wrong type.
        """
        for column, wanted in where.items():
            if isinstance(wanted, Among):
                values: tuple[Value, ...] = wanted.values
            elif isinstance(wanted, Within):
                if self.kinds.get(column) is bytes:
                    raise BadWrite(f"{self.name}.{column} has no order.")
                values = (wanted.low, wanted.high)
            else:
                values = (wanted,)
            self.known((column,))
            for value in values:
                if value is not None:
                    self.check(column, value)

    def finds_one(self, where: Mapping[str, Condition]) -> bool:
        """Whether no two rows can meet these conditions, since they give a unique key whole."""
        given = {column for column, value in where.items() if not isinstance(value, Among | Within | None)}
        return any(given.issuperset(key) for key in self.unique)

    def check_question(self, order: Sequence[str], columns: Sequence[str], distinct: bool) -> None:
        """Check what is asked for.

        Raises:
            BadWrite: a column is unknown or named twice, or an order among distinct rows is not in them.
        """
        self.known(columns)
        keys = [name.removeprefix("-") for name in order]
        self.known(keys)
        if len(set(columns)) != len(columns):
            raise BadWrite("A column is asked for twice.")
        if distinct and columns and not set(keys) <= set(columns):
            raise BadWrite("Distinct rows are ordered by columns that are in them.")

    def check_update(self, write: Update) -> None:
        """Check a change.

        Raises:
            BadWrite: a column is unknown, of the wrong type, or changed twice.
        """
        for column, value in write.set.items():
            self.check(column, value)
        for column, value in write.add.items():
            self.check(column, value)
            if self.kinds[column] is not int or not -MOST_ADDED <= value <= MOST_ADDED or column in write.set:
                raise BadWrite(f"This cannot be added to {self.name}.{column}.")
        if write.ceiling is not None:
            parts, most = write.ceiling
            for column in (*parts, most):
                if self.kinds.get(column) is not int:
                    raise BadWrite(f"{self.name}.{column} is no column of numbers.")
        self.check_where(write.where)


def _kind(column: Column[Any]) -> type:
    kind = column.type
    found = (kind.impl_instance if isinstance(kind, TypeDecorator) else kind).python_type
    if found not in (int, str, bytes):
        raise TypeError(f"{column.table.name}.{column.name} is of a type that writes do not know: {found}.")
    return found


def _facts(model: type[SQLModel], table: Table) -> TableFacts:
    keys = [tuple(column.name for column in table.primary_key.columns)]
    keys += [
        tuple(column.name for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    keys += [tuple(column.name for column in index.columns) for index in table.indexes if index.unique]
    counter = next((column.name for column in table.primary_key.columns if column.autoincrement is True), None)
    fields, names = model.model_fields, [column.name for column in table.columns]
    required = {name for name in names if fields[name].is_required()}
    return TableFacts(
        name=table.name,
        kinds={column.name: _kind(column) for column in table.columns},
        nullable=frozenset(column.name for column in table.columns if column.nullable or column.name == counter),
        defaults={name: fields[name].default for name in names if name not in required and name != counter},
        required=frozenset(required),
        unique=tuple(keys),
        indexed=frozenset(key[0] for key in keys) | {next(iter(index.columns)).name for index in table.indexes},
        counter=counter,
        literal=frozenset(column.name for column in table.columns if column.info.get("literal")),
    )


def _models() -> dict[str, TableFacts]:
    found = {}
    for model in vars(tables).values():
        if isinstance(model, type) and issubclass(model, SQLModel) and hasattr(model, "__table__"):
            table = model.__table__
            found[table.name] = _facts(model, table)
    return found


_TABLES = _models()


def facts(table: str) -> TableFacts:
    """What is known of a table.

    Raises:
        BadWrite: there is no such table.
    """
    found = _TABLES.get(table)
    if found is None:
        raise BadWrite(f"There is no table {table!r}.")
    return found
