"""Who is asking, under which key, and what becomes of the writes that a service wants.

Services never commit. A call from HTTP or the command line commits at once; a tick gathers, and the engine commits
all of it with the agent's state (DESIGN §4). `then` runs after the commit and only then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeAlias

from core.error import Conflict
from core.unit import UnitOfWork, Write
from fs.error import KeyRequired

Then: TypeAlias = Callable[[], None]
MAX_KEY = 200


class Role(IntEnum):
    """What a caller is; each may do what the ones before may."""

    PUBLIC = 0
    AGENT = 1
    OPERATOR = 2


@dataclass(slots=True)
class Batch:
    """What a tick has gathered so far: writes for its one commit, and what to do after it.

    `marks` are facts that later calls of the same tick must see before the commit: name → value. `kept` are values
    beside the agent's state that it changes: key → JSON, None takes one away; whoever commits the tick makes the writes
    for them. `known` are those that it has read, as they were. `closed`: the tick has ended, and what still runs in its
    name is too late.
    """

    writes: list[Write] = field(default_factory=list)
    thens: list[Then] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str | None] = field(default_factory=dict)
    known: dict[str, str | None] = field(default_factory=dict)
    closed: bool = False


@dataclass(slots=True, unsafe_hash=True)  # one for each request: frozen, each field would cost a call
class Session:
    """One caller's call.

    Attributes:
        caller: `operator` or `agent:<name>`, as the gate and the ledger name it.
        role: what the mounts ask for.
        key: the idempotency key of this call, or None.
        unit: where writes are committed at once; None within a tick.
        batch: where a tick's writes are gathered; None outside of one.
        beside: writes that go with whatever this call writes.
        after: what is done once they are committed.
    """

    caller: str
    role: Role
    key: str | None = None
    unit: UnitOfWork | None = None
    batch: Batch | None = None
    beside: tuple[Write, ...] = ()
    after: Then | None = None

    @property
    def staged(self) -> bool:
        """Whether writes wait for a tick's commit."""
        return self.batch is not None

    @property
    def gathered(self) -> tuple[Write, ...]:
        """What this tick has gathered so far; nothing outside of one."""
        return tuple(self.batch.writes) if self.batch is not None else ()

    def with_key(self, key: str | None) -> "Session":
        """The same session for a call of its own."""
        return replace(self, key=key)

    def along(self, writes: Iterable[Write], then: Then) -> "Session":
        """The same session for a call whose writes these go with, and `then` after their commit."""
        return replace(self, beside=tuple(writes), after=then)

    def effect_key(self) -> str:
        """The key of a call that has an effect.

        Raises:
            KeyRequired: there is none, or it is not 1 to 200 printable ASCII characters.
        """
        key = self.key
        if key is None:
            raise KeyRequired
        if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
            raise KeyRequired(f"An idempotency key is 1 to {MAX_KEY} printable ASCII characters.")
        return key

    async def apply(self, writes: Iterable[Write], then: Then | None = None) -> None:
        """Commit and go on; or, in a tick, leave both to the tick's commit.

        Raises:
            Conflict: a row was not as expected, or the tick has ended; nothing was written.
        """
        all_of_it, thens = (*writes, *self.beside), [one for one in (then, self.after) if one is not None]
        if self.batch is not None:
            if self.batch.closed:
                raise Conflict("The tick in whose name this is asked has ended.")
            self.batch.writes.extend(all_of_it)
            self.batch.thens.extend(thens)
            return
        if self.unit is None:
            raise RuntimeError("a session has a unit of work or a batch")
        await self.unit.commit(all_of_it)
        for one in thens:
            one()
