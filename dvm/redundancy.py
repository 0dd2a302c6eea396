"""How many sellers do one job, and how many must agree; which kinds that can be asked of. Pure.

Only what has one right answer can be compared: two good summaries of a text differ, two counts of the same thing do
not. More than half must agree, so that no two answers can both be taken.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import orjson

from core.error import InvalidInput
from core.identifier import derived_id

MOST = 5
DETERMINISTIC = (5400, 5901)  # counts; transactions, which have one id
_FORM = re.compile(r"([1-9])/([1-9])")


@dataclass(frozen=True, slots=True)
class Redundancy:
    """`of` sellers are bought from, and a result is taken that `agree` of them found."""

    agree: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `2/3`.

        Raises:
            InvalidInput: not of that form, more than five, or no more than half.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise InvalidInput("redundancy is of the form 2/3: how many must agree, of how many sellers.")
        one = cls(int(found[1]), int(found[2]))
        if not 2 <= one.of <= MOST or not one.of < 2 * one.agree <= 2 * one.of:
            raise InvalidInput(f"redundancy is of 2 to {MOST} sellers, of whom more than half agree, for example 2/3.")
        return one

    def __str__(self) -> str:
        return f"{self.agree}/{self.of}"


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one purchase among those that do the same job: `panel` is the id under which it was asked for."""

    panel: str
    number: int
    agree: int
    of: int


def panel_id(effect_id: str) -> str:
    """The id of a job that several sellers do, from the effect of its first purchase."""
    return derived_id("panel", effect_id)


def seat_id(panel: str, number: int) -> str:
    """The id of one of its purchases; the first has the number 1."""
    return derived_id("seat", panel, str(number))


def seat_ids(panel: str) -> tuple[str, ...]:
    """All that there can be."""
    return tuple(seat_id(panel, number) for number in range(1, MOST + 1))


def seat_key(key: str, number: int) -> str:
    """The idempotency key of one of its purchases: the first has the caller's own, so that it is used once."""
    return key if number == 1 else derived_id("seat-key", key, str(number))


def canonical(kind: int, text: str) -> str:
    """A result in the form in which two of them are compared: the kind's own, else without white space around it."""
    form = _FORMS.get(kind)
    return text.strip() if form is None else form(text)


def _count(text: str) -> str:
    """Numbers by group, in whatever order and spacing."""
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return text.strip()


_FORMS: dict[int, Callable[[str], str]] = {5400: _count, 5901: lambda text: text.strip().lower()}
