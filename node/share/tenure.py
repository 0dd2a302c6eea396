"""How long a process may act, where several share one database: a pure machine over its lease.

A process is a *member* by a lease that it renews. One member at a time is the *steward*: it alone drives what talks to
relays, mints and the market. Stewardship goes with membership: nobody takes it from a member that is in.

A lease is counted by two clocks. The database's decides when others may put a member out. The member's own monotonic
clock, counted from before it asked, decides when it stops acting by itself; with a margin, so that it stops first.
Nothing rests on that order: the fence refuses what comes late (node/storage/fence.py). It spares the outside world.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

_MARGIN = 0.2  # of the lease: so long before its end a member that could not renew stops acting


class State(StrEnum):
    """`unsure…`: the lease could not be renewed in time, and nothing more is known. `ended` is for good."""

    OUT = "out"
    MEMBER = "member"
    STEWARD = "steward"
    UNSURE = "unsure"
    UNSURE_STEWARD = "unsure_steward"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Tenure:
    """The machine's state. `until`: when it stops acting by itself, in seconds of its own monotonic clock."""

    lease_s: float
    state: State = State.OUT
    until: float = 0.0

    @property
    def may_act(self) -> bool:
        """Whether it is in, and knows it."""
        return self.state in (State.MEMBER, State.STEWARD)

    @property
    def leads(self) -> bool:
        """Whether it is the steward, as far as it knows."""
        return self.state in (State.STEWARD, State.UNSURE_STEWARD)


@dataclass(frozen=True, slots=True)
class Granted:
    """The database gave the lease for its whole length. `asked_at`: this process's clock before it asked."""

    asked_at: float
    steward: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """What the clock says now."""

    now: float


@dataclass(frozen=True, slots=True)
class PutOut:
    """The database knows another holder, or a transaction was refused."""


@dataclass(frozen=True, slots=True)
class Left:
    """It gave its lease back: it has finished."""


Event: TypeAlias = Granted | Looked | PutOut | Left


class Effect(StrEnum):
    """What the driver does. `lead`: take up what the steward drives. `hold`: begin nothing more. `end`: at once."""

    ACT = "act"
    LEAD = "lead"
    HOLD = "hold"
    END = "end"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where an event leads, and what is to be done."""

    to: State
    effects: tuple[Effect, ...] = ()


# A grant names the office: (state, whether it is granted as steward). A steward that is granted less has lost what it
# had while it held the lease, which nobody may do: it ends like one that was put out.
GRANTS: Mapping[tuple[State, bool], Rule] = {
    (State.OUT, False): Rule(State.MEMBER, (Effect.ACT,)),
    (State.OUT, True): Rule(State.STEWARD, (Effect.ACT, Effect.LEAD)),
    (State.MEMBER, False): Rule(State.MEMBER),
    (State.MEMBER, True): Rule(State.STEWARD, (Effect.LEAD,)),
    (State.STEWARD, True): Rule(State.STEWARD),
    (State.STEWARD, False): Rule(State.ENDED, (Effect.END,)),
    (State.UNSURE, False): Rule(State.MEMBER, (Effect.ACT,)),
    (State.UNSURE, True): Rule(State.STEWARD, (Effect.ACT, Effect.LEAD)),
    (State.UNSURE_STEWARD, True): Rule(State.STEWARD, (Effect.ACT,)),
    (State.UNSURE_STEWARD, False): Rule(State.ENDED, (Effect.END,)),
}
LATE: Mapping[State, Rule] = {
    State.MEMBER: Rule(State.UNSURE, (Effect.HOLD,)),
    State.STEWARD: Rule(State.UNSURE_STEWARD, (Effect.HOLD,)),
}
_IN = (State.MEMBER, State.STEWARD, State.UNSURE, State.UNSURE_STEWARD)
PUT_OUT: Mapping[State, Rule] = {state: Rule(State.ENDED, (Effect.END,)) for state in _IN}
LEFT: Mapping[State, Rule] = {state: Rule(State.OUT, (Effect.HOLD,)) for state in _IN}


def step(tenure: Tenure, event: Event) -> tuple[Tenure, tuple[Effect, ...]]:
    """The next state and what to do. Events that fit nothing change nothing."""
    rule = _rule(tenure, event)
    if rule is None:
        return tenure, ()
    after = replace(tenure, state=rule.to)
    if isinstance(event, Granted) and rule.to is not State.ENDED:
        # An answer that came late may grant less than what an earlier one gave
        after = replace(after, until=max(tenure.until, event.asked_at + tenure.lease_s * (1 - _MARGIN)))
    return after, rule.effects


def _rule(tenure: Tenure, event: Event) -> Rule | None:
    match event:
        case Granted(_, steward):
            return GRANTS.get((tenure.state, steward))
        case Looked(now):
            return LATE.get(tenure.state) if now >= tenure.until else None
        case PutOut():
            return PUT_OUT.get(tenure.state)
        case Left():
            return LEFT.get(tenure.state)


def turn(agent: str, members: Mapping[str, int]) -> str:
    """Whose turn it is first to tick an agent, so that members do not race for it; "" if there is none.

    The member with the highest score has it (rendezvous hashing), so that one that comes or goes moves only its share.

    Args:
        agent: its name.
        members: a seed of each, by its id.
    """
    return max(members, key=lambda one: (_score(agent, members[one]), one), default="")


def _score(agent: str, seed: int) -> int:
    """FNV-1a over the name, begun with the seed, and mixed once more: cheap, and the same in every process."""
    value = (0xCBF29CE484222325 ^ seed * 0x9E3779B97F4A7C15) & _WORD
    for byte in agent.encode():
        value = (value ^ byte) * 0x100000001B3 & _WORD
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _WORD
    return value ^ value >> 33


_WORD = (1 << 64) - 1
