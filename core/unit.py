"""The one way to the database: writes as data, applied all or nothing and durable when `commit` returns (DESIGN §3).

Pure steps return `Write`s; drivers gather them with what they were told to do next and commit them as one unit.
Only `node/storage/` turns them into SQL. An in-memory part passes the same contract suite.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Value: TypeAlias = int | str | bytes | None
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row. A key that is taken is a `Conflict`, unless `or_ignore`: then the row that is there stays."""

    table: str
    row: Mapping[str, Value]
    or_ignore: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """Change the rows that match `where` (all of its conditions).

    `set` replaces columns, `add` adds integers to them. With `ceiling=((a, b), c)` a row matches only if
    a + b <= c still holds *after* the change; a null `c` is no ceiling. Unless exactly `rows` rows match the
    whole unit is a `Conflict`; `rows=None` accepts any number.
    """

    table: str
    where: "Mapping[str, Condition]"
    set: Mapping[str, Value] = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    ceiling: tuple[tuple[str, ...], str] | None = None
    rows: int | None = 1


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the rows that match `where`. `rows` as in `Update`."""

    table: str
    where: "Mapping[str, Condition]"
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """One more entry at the end of a ledger run. Its place in the chain is taken by whoever writes it.

    `type` is begin, commit, fail, unknown or root; `body` is JSON text without secrets.
    """

    run: str
    type: str
    effect_id: str
    body: str


Write: TypeAlias = Insert | Update | Delete | Append


@dataclass(frozen=True, slots=True)
class Among:
    """In a `where`: the column is one of these."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """In a `where`: low <= column < high; None leaves a side open. Texts are compared by their UTF-8 bytes."""

    low: int | str | None = None
    high: int | str | None = None


Condition: TypeAlias = Value | Among | Within


class UnitOfWork(Protocol):
    """One database, one writer."""

    async def commit(self, writes: Iterable[Write]) -> None:
        """Apply all of the writes in order, or none; durable when it returns.

        Many units that wait together share one transaction (group commit), each behind its own savepoint.

        Raises:
            Conflict: a write did not match what is there. None of this unit's writes was applied.
            StoreUncertain: the engine failed in or near COMMIT.
        """

    async def select(
        self,
        table: str,
        where: Mapping[str, Condition] | None = None,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        distinct: bool = False,
    ) -> list[Row]:
        """Committed rows that match. `order` names columns, a leading `-` for descending.

        `columns` are those that are wanted, all of them if none is named; `distinct` leaves out repeated rows.
        Every commit that returned before the call is seen.
        """

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """How many committed rows match; counting ends at `limit`."""
