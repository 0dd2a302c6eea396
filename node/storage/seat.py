"""The words about processes that share a database: which place one has, and who is in. Needs no driver."""

from dataclasses import dataclass

from node.storage.fence import Fence

MEMBER, STEWARD = "member/", "steward"
ANSWER_S = 5.0
"""So long the database may take to answer a renewal before it is given up and tried again."""


@dataclass(frozen=True, slots=True)
class Place:
    """One life of one process: the slot it took, and the token under which it writes."""

    slot: int
    token: int

    @property
    def id(self) -> str:
        """As it stands in `agent.holder` and in the steward's row."""
        return f"{self.slot}.{self.token}"

    @property
    def name(self) -> str:
        """Its row in table `lease`."""
        return f"{MEMBER}{self.slot}"

    def fence(self) -> Fence:
        """What its transactions show."""
        return Fence(self.name, self.token)


@dataclass(frozen=True, slots=True)
class Seat:
    """A member as the others see it. `left_ms`: how long its lease still runs, by the database's clock."""

    place: Place
    left_ms: int
    about: str


@dataclass(frozen=True, slots=True)
class Roll:
    """Who was in at a look. `steward` is a member's id, "" for none; `put_out` are those whose lease was over."""

    members: tuple[Seat, ...]
    steward: str
    term: int
    put_out: tuple[str, ...] = ()
