"""Writes and questions for PostgreSQL at speed: what depends only on their shape is found out once and kept. Pure.

A shape is the table, the columns, and which values are null. `postgres_statement` and `postgres_question` make and
check the first of each shape in full; for those that follow, only the sizes of numbers, the letters of texts and the
words that stand in statements are left to look at. Conditions with more than one value have no plan.
"""

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeAlias

from core.unit import Among, Append, Condition, Delete, Insert, Row, Update, Within, Write
from node.storage.postgres_question import Ask, Question, question
from node.storage.postgres_statement import Form, Op, Unit, given_columns, op
from node.storage.postgres_text import is_plain, picked, written
from node.storage.schema import MOST_ADDED, facts

_MOST_PLANS, _MOST_WORDS = 4_096, 256
_Values: TypeAlias = tuple[Any, ...]
_Pick: TypeAlias = Callable[[_Values], _Values]


@dataclass(slots=True)
class _Plan:
    """What is left to do for one shape.

    Attributes:
        numbers: takes out its numbers, which `packed` refuses if one is none or is too large.
        texts: takes out its texts.
        bytes: where bytes are.
        added: where numbers are that are added.
        words: takes out the words of literal columns.
        tail: more values behind its own: defaults, then the numbers of the unique keys.
        bound: takes out what is bound.
        keys: takes out the keys of the rows that it touches, each behind the number of the unique key.
        made: the form for the words that were seen, and so checked.
    """

    numbers: _Pick
    packed: Callable[..., bytes]
    texts: _Pick
    bytes: tuple[int, ...]
    added: range
    words: _Pick
    bound: _Pick
    tail: _Values = ()
    keys: tuple[_Pick, ...] = ()
    made: dict[_Values, Any] = field(default_factory=dict)

    def find(self, values: _Values) -> Any:
        """The form for these values; None if they must be looked at in full."""
        try:
            self.packed(*self.numbers(values))
            if not is_plain(self.texts(values)):
                return None
        except (struct.error, TypeError):
            return None
        for at in self.bytes:
            if not isinstance(values[at], bytes):
                return None
        for at in self.added:
            if not -MOST_ADDED <= values[at] <= MOST_ADDED:
                return None
        return self.made.get(self.words(values))

    def fits(self, values: _Values) -> bool:
        """Whether it speaks of values of these types: the same columns may be given conditions of another kind."""
        return not any(isinstance(value, Among | Within) for value in values)

    def learn(self, values: _Values, form: Form | Ask) -> None:
        """These values were found to fit."""
        if len(self.made) < _MOST_WORDS:
            self.made[self.words(values)] = form

    def op(self, form: Form, values: _Values, position: int) -> Op:
        """The write."""
        whole = values + self.tail
        keys = (self.keys[0](whole),) if len(self.keys) == 1 else tuple([pick(whole) for pick in self.keys])
        return _made(Op, (form, self.bound(values), keys, position))


_made: Callable[[type[Op], tuple[Any, ...]], Op] = (
    tuple.__new__
)  # a NamedTuple makes itself so, behind a frame of its own
_plans: dict[Hashable, _Plan] = {}


def _known(key: tuple[Hashable, ...], values: _Values) -> tuple[tuple[Hashable, ...], _Plan | None]:
    """The plan for a shape, and the name under which it is kept: nulls are told only where there are some."""
    if None in values:
        key = (*key, tuple([value is None for value in values]))
    return key, _plans.get(key)


def _keep(key: Hashable, plan: _Plan) -> _Plan:
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    _plans[key] = plan
    return plan


def _plan(values: _Values, words: Sequence[int], bound: Sequence[int], added: range = range(0), **more: Any) -> _Plan:
    numbers = [at for at, value in enumerate(values) if isinstance(value, int)]
    return _Plan(
        numbers=picked(numbers),
        packed=struct.Struct(f"={len(numbers)}q").pack,
        texts=picked([at for at, value in enumerate(values) if isinstance(value, str)]),
        bytes=tuple(at for at, value in enumerate(values) if isinstance(value, bytes)),
        added=added,
        words=picked(words),
        bound=picked(bound),
        **more,
    )


def _key_picks(keys: Sequence[tuple[int, Sequence[int]]], behind: int) -> tuple[_Values, tuple[_Pick, ...]]:
    """What stands at the end of the tail, from place `behind` on, and what takes the keys out."""
    picks = tuple(picked([behind + at, *places]) for at, (_, places) in enumerate(keys))
    return tuple(number for number, _ in keys), picks


def _single(values: _Values) -> bool:
    return not any(isinstance(value, Among | Within) for value in values)


def _words(table: str, columns: Iterable[str], values: Iterable[Condition], first: int = 0) -> list[int]:
    """Where words of literal columns are among a shape's values, if these begin at `first`."""
    literal = facts(table).literal
    pairs = enumerate(zip(columns, values, strict=True), first)
    return [at for at, (column, value) in pairs if column in literal and value is not None]


def _compared(where: Mapping[str, Condition], first: int, words: Sequence[int]) -> list[int]:
    """Which values of a `where` are bound, if its values begin at `first`."""
    return [at for at, value in enumerate(where.values(), first) if value is not None and at not in words]


def _insert_plan(write: Insert, values: _Values) -> _Plan:
    about, names = facts(write.table), list(write.row)
    absent = [column for column in about.kinds if column not in write.row and column != about.counter]
    order = [*names, *absent]
    whole = (*values, *(about.defaults.get(column) for column in absent))
    there = {column for column, value in zip(order, whole, strict=True) if value is not None}
    keys = [
        (number, [order.index(column) for column in key])
        for number, key in enumerate(about.unique)
        if there.issuperset(key)
    ]
    numbers, picks = _key_picks(keys, len(order))
    bound = [names.index(column) for column in given_columns(about, write.row)]
    return _plan(values, _words(write.table, names, values), bound, tail=whole[len(names) :] + numbers, keys=picks)


def _change_plan(write: Update | Delete, values: _Values, form: Form) -> _Plan | None:
    if not _single(values):
        return None
    changes = (*write.set, *write.add) if isinstance(write, Update) else ()
    replaced, first = (len(write.set) if isinstance(write, Update) else 0), len(changes)
    compared = _words(write.table, write.where, write.where.values(), first)
    words = _words(write.table, changes[:replaced], values[:replaced]) + compared
    names = list(write.where)
    keys: list[tuple[int, list[int]]] = []
    if form.finder is not None:
        unique = facts(write.table).unique[form.finder]
        keys = [(form.finder, [first + names.index(column) for column in unique])]
    bound = [*range(first), *_compared(write.where, first, compared)]
    numbers, picks = _key_picks(keys, len(values))
    return _plan(values, words, bound, range(replaced, first), tail=numbers, keys=picks)


def planned(write: Insert | Update | Delete, position: int) -> Op:
    """As `postgres_statement.op`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    values: _Values
    if isinstance(write, Insert):
        values = tuple(write.row.values())
        shape: tuple[Hashable, ...] = (Insert, write.table, write.or_ignore, tuple(write.row))
    elif isinstance(write, Update):
        values = (*write.set.values(), *write.add.values(), *write.where.values())
        columns = (tuple(write.set), tuple(write.add), tuple(write.where))
        shape = (Update, write.table, columns, write.ceiling, write.rows)
    else:
        values = tuple(write.where.values())
        shape = (Delete, write.table, tuple(write.where), write.rows)
    key, plan = _known(shape, values)
    if plan is not None and (form := plan.find(values)) is not None:
        return plan.op(form, values, position)
    made = op(write, position)
    if plan is None:
        plan = _insert_plan(write, values) if isinstance(write, Insert) else _change_plan(write, values, made.form)
        if plan is None:
            return made
        _keep(key, plan)
    if plan.fits(values):
        plan.learn(values, made.form)
    return made


def compiled(writes: Iterable[Write]) -> Unit:
    """A unit, ready for the writer. Ledger entries stay as they are: their place is known only there.

    Raises:
        BadWrite: a write does not fit the schema.
    """
    return tuple(
        [
            _entry(write) if isinstance(write, Append) else planned(write, position)
            for position, write in enumerate(writes)
        ]
    )


def _entry(write: Append) -> Append:
    written(write.run)  # by which its place is looked up
    return write


_ENTRY = tuple(column for column in facts("entry").kinds if column != facts("entry").counter)
_entry_values: Callable[[Row], _Values] = itemgetter(*_ENTRY)
_entry_plans: list[tuple[_Plan, Form]] = []


def entry_op(row: Row, position: int) -> Op:
    """A ledger entry at its place.

    Raises:
        BadWrite: it does not fit the schema.
    """
    values = _entry_values(row)
    if not _entry_plans:
        write = Insert("entry", dict(zip(_ENTRY, values, strict=True)))
        form = op(write, 0).form
        _entry_plans.append((_insert_plan(write, values), form))
        _entry_plans[0][0].learn(values, form)
    plan, form = _entry_plans[0]
    if plan.find(values) is form:
        return plan.op(form, values, position)
    return op(Insert("entry", dict(zip(_ENTRY, values, strict=True))), position)


def asked(
    table: str,
    where: Mapping[str, Condition],
    order: Sequence[str] = (),
    limit: int | None = None,
    columns: Sequence[str] = (),
    distinct: bool = False,
) -> Question:
    """As `postgres_question.question`.

    Raises:
        BadWrite: it does not fit the schema.
    """
    values: _Values = tuple(where.values())
    key = (
        Question,
        table,
        tuple(where),
        tuple(map(type, values)),
        tuple(order),
        limit is None,
        tuple(columns),
        distinct,
    )
    plan = _plans.get(key)
    if plan is not None and (ask := plan.find(values)) is not None:
        params = plan.bound(values)
        return Question(ask, params if limit is None else (*params, max(0, limit)))
    made = question(table, where, order, limit, columns, distinct)
    if plan is None:
        if not _single(values):
            return made
        words = _words(table, where, values)
        plan = _keep(key, _plan(values, words, _compared(where, 0, words)))
    if plan.fits(values):
        plan.learn(values, made.ask)
    return made
