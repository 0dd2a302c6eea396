"""Statements for writes and questions at speed: what depends only on their shape is found out once and kept.

A shape is the table, the columns, and the exact type of every value. `statement` makes and checks the first of each
shape in full; for those that follow, only the sizes of numbers and the words that stand in texts are left to look at.
Conditions with more than one value (Among, Within) have no plan: `statement` makes them each time.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from core.unit import Among, Append, Condition, Delete, Insert, Update, Value, Within, Write
from node.storage.schema import MOST_ADDED, facts
from node.storage.statement import Question, Step, Unit, insert_sql, question, step

_MOST_PLANS, _MOST_WORDS = 4_096, 256
_Values: TypeAlias = tuple[Condition, ...]


@dataclass(slots=True)
class _Plan:
    """What is left to do for one shape. Numbers that do not fit SQLite are refused where they are bound.

    Attributes:
        added: where numbers are that are added to columns; their sum must fit as well.
        words: where values of literal columns are.
        bound: which values are bound, in this order; None if all are, as they come.
        tail: what is bound after them.
        columns: of a question's rows.
        single: whether it touches one row at most.
        texts: the text for the words that were seen, and so checked.
    """

    added: tuple[int, ...] = ()
    words: tuple[int, ...] = ()
    bound: tuple[int, ...] | None = None
    tail: tuple[Value, ...] = ()
    columns: tuple[str, ...] = ()
    single: bool = True
    texts: dict[_Values, str] = field(default_factory=dict)

    def text(self, values: _Values) -> str | None:
        """The text for these values; None if they must be looked at in full."""
        for at in self.added:
            if not -MOST_ADDED <= values[at] <= MOST_ADDED:  # type: ignore[operator]  # their types are the shape's
                return None
        return self.texts.get(tuple([values[at] for at in self.words]) if self.words else ())

    def learn(self, values: _Values, text: str) -> None:
        """These values were found to fit."""
        if len(self.texts) < _MOST_WORDS:
            self.texts[tuple([values[at] for at in self.words])] = text

    def params(self, values: _Values) -> tuple[Value, ...]:
        """What is bound."""
        given = values if self.bound is None else tuple([values[at] for at in self.bound])
        return given + self.tail if self.tail else given  # type: ignore[return-value]  # a plan has no Among, no Within


_plans: dict[Hashable, _Plan] = {}


def _keep(key: Hashable, plan: _Plan) -> _Plan:
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    _plans[key] = plan
    return plan


def _single(values: _Values) -> bool:
    return not any(isinstance(value, Among | Within) for value in values)


def _words(table: str, columns: Iterable[str], values: Iterable[Condition], first: int = 0) -> tuple[int, ...]:
    """Where words of literal columns are among a shape's values, if these begin at `first`."""
    literal = facts(table).literal
    pairs = enumerate(zip(columns, values, strict=True), first)
    return tuple(at for at, (column, value) in pairs if column in literal and value is not None)


def _bound(where: Mapping[str, Condition], first: int, words: Sequence[int]) -> tuple[int, ...]:
    """Which values of a `where` are bound, if its values begin at `first`."""
    return tuple(at for at, value in enumerate(where.values(), first) if value is not None and at not in words)


def _write_plan(write: Insert | Update | Delete, values: _Values) -> _Plan | None:
    if isinstance(write, Insert):
        columns = tuple(write.row)
        _, defaults = insert_sql(write.table, columns, write.or_ignore)
        return _Plan(words=_words(write.table, columns, values), tail=defaults)
    if not _single(values):
        return None
    single = facts(write.table).finds_one(write.where)
    if isinstance(write, Delete):
        words = _words(write.table, write.where, values)
        return _Plan(words=words, bound=_bound(write.where, 0, words), single=single)
    if write.ceiling is not None:
        return None
    replaced, first = len(write.set), len(write.set) + len(write.add)
    compared = _words(write.table, write.where, write.where.values(), first)
    words = _words(write.table, write.set, write.set.values()) + compared
    bound = (*range(first), *_bound(write.where, first, compared))
    return _Plan(tuple(range(replaced, first)), words, None if len(bound) == len(values) else bound, single=single)


def planned(write: Insert | Update | Delete, position: int) -> Step:
    """As `statement.step`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    values: _Values
    rows: int | None
    kind, table = type(write), write.table
    if isinstance(write, Insert):
        row, or_ignore = write.row, write.or_ignore
        values, rows = tuple(row.values()), None if or_ignore else 1
        key: Hashable = (kind, table, *row, *map(type, values), or_ignore)
    elif isinstance(write, Update):
        replaced, added, where, rows = write.set, write.add, write.where, write.rows
        values = (*replaced.values(), *added.values(), *where.values())
        key = (kind, table, *replaced, 0, *added, 1, *where, *map(type, values), write.ceiling)
    else:
        where, rows = write.where, write.rows
        values = tuple(where.values())
        key = (kind, table, *where, *map(type, values))
    plan = _plans.get(key)
    if plan is not None and (text := plan.text(values)) is not None:
        return Step(text, plan.params(values), rows, table, position, plan.single)
    made = step(write, position)
    if plan is None and (plan := _write_plan(write, values)) is not None:
        _keep(key, plan)
    if plan is not None:
        plan.learn(values, made.sql)
    return made


def compiled(writes: Iterable[Write]) -> Unit:
    """A unit, ready for the writer. Ledger entries stay as they are: their place is known only there.

    Raises:
        BadWrite: a write does not fit the schema.
    """
    return tuple(
        [write if isinstance(write, Append) else planned(write, position) for position, write in enumerate(writes)]
    )


def asked(
    table: str,
    where: Mapping[str, Condition],
    order: Sequence[str] = (),
    limit: int | None = None,
    columns: Sequence[str] = (),
    distinct: bool = False,
) -> Question:
    """As `statement.question`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    values = tuple(where.values())
    key = (Question, table, *where, *map(type, values), *order, 0, *columns, limit is None, distinct)
    plan = _plans.get(key)
    if plan is not None and (text := plan.text(values)) is not None:
        params = plan.params(values)
        return Question(text, params if limit is None else (*params, max(0, limit)), plan.columns)
    made = question(table, where, order, limit, columns, distinct)
    if plan is None and _single(values):
        words = _words(table, where, values)
        plan = _keep(key, _Plan(words=words, bound=_bound(where, 0, words), columns=made.columns))
    if plan is not None:
        plan.learn(values, made.sql)
    return made
