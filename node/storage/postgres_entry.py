"""Ledger entries of units that wait for PostgreSQL, sealed as the units come. Pure.

To seal a group's entries in one go takes the loop as long as the server needs for its rows. So each unit is sealed when
it is handed in, while the server works on those before it. The chain then ends beyond what is written, with the units
that wait, in their order. Where something before them is not written after all, they are sealed anew. What is behind an
entry without a place can have none.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from core.guard import caught
from core.unit import Append
from node.storage.chain import Chain
from node.storage.postgres_plan import entry_op
from node.storage.postgres_statement import Op, Unit


@dataclass(slots=True, eq=False)
class Ready:
    """A unit that waits.

    Attributes:
        steps: its writes, ledger entries as they are.
        ops: its writes with the entries at their places; None if it is not sealed.
        age: of the chain when it was sealed.
        end: where its entries end.
    """

    steps: Unit
    ops: list[Op] | None = None
    age: int = 0
    end: int = 0

    def __iter__(self) -> Iterator[Op | Append]:
        return iter(self.steps)


class Entries:
    """Seals units, ahead of the group that goes to the server or with it.

    Args:
        chain: their places.
        known: runs whose last entry is known.
        most: how many units that wait may be sealed; what is refused makes all of that vain.
    """

    def __init__(self, chain: Chain, known: Callable[[], Collection[str]], most: Callable[[], int]) -> None:
        self._chain, self._known, self._most = chain, known, most
        self._age = 0  # rises when places that were taken are not taken any more
        self._waiting: deque[Ready] = deque()
        self._bare = 0  # so many of them, the last ones, are not sealed
        self._held = False  # the group that is at work has no places yet, or not all of them

    def ready(self, steps: Unit) -> Ready:
        """A unit that waits from now on."""
        found = Ready(steps)
        bare = self._held or self._bare > 0 or not self._seal(found)
        self._waiting.append(found)
        self._bare += bare
        return found

    def _seal(self, one: Ready) -> bool:
        """Seal it ahead, if that can be done now."""
        known = self._known()
        if len(self._waiting) - self._bare >= self._most():
            return False
        if not all(step.run in known for step in one.steps if isinstance(step, Append)):
            return False
        mark = self._chain.mark
        _, error = caught(partial(self.place, one))
        if error is not None:  # it is refused, or fails, in its turn, when it is sealed again: nobody else's units do
            self._chain.give_back(mark)
        return error is None

    def seal_some(self, most: int) -> bool:
        """Seal some of those that wait and are not sealed; whether there are more."""
        while most > 0 and self._bare and not self._held:
            if not self._seal(self._waiting[-self._bare]):
                return False
            self._bare -= 1
            most -= 1
        return self._bare > 0 and not self._held

    def take(self, group: Sequence[Ready]) -> None:
        """The first of those that wait go to the server. Nothing is sealed behind them until they all have places."""
        for one in group:
            first = self._waiting.popleft()
            assert first is one, "units go in the order in which they came"
            if not self._is_sealed(one):
                self._bare -= 1
                self._held = True

    def _is_sealed(self, one: Ready) -> bool:
        return one.ops is not None and one.age == self._age

    def place(self, one: Ready) -> list[Op]:
        """The writes of a unit of the group that is at work; in their order, so that each gets the next place.

        Raises:
            VendoError: it cannot be sealed; `spoil` then.
        """
        if one.ops is None or not self._is_sealed(one):
            one.ops = self.sealed(one.steps)
            one.age, one.end = self._age, self._chain.mark
        return one.ops

    def sealed(self, steps: Unit) -> list[Op]:
        """The writes of a unit, with its ledger entries at the next places.

        Raises:
            VendoError: one cannot be sealed.
        """
        chain = self._chain
        return [
            entry_op(chain.append(step), position) if isinstance(step, Append) else step
            for position, step in enumerate(steps)
        ]

    def follow(self) -> None:
        """The group that is at work has its places, or is done with: what comes now may be sealed behind it."""
        self._held = False

    def keep(self, last: Ready | None = None) -> None:
        """What was sealed is written: all of it, or as far as this unit."""
        self._chain.keep(None if last is None else last.end)

    def spoil(self) -> None:
        """What was sealed since it was kept is not written, and its places are free again."""
        self._chain.give_back()
        self._renew()

    def forget(self) -> None:
        """What is written is not known."""
        self._chain.forget()
        self._renew()

    def _renew(self) -> None:
        self._held = True
        self._age += 1
        self._bare = len(self._waiting)
