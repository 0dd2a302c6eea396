"""What becomes of a trigger when an agent's inbox is full: the bound, and the three policies. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from core.error import InvalidInput

MOST_DEPTH = 100_000
MOST_DEAD = 10_000
_FIELDS = frozenset({"max_depth", "policy", "dead_letter_max"})

# What these say is said once, and something waits for it: it is never refused for want of room. What causes it bounds
# it: jobs and payments are bounded by money, alarms by one waiting envelope each, the rest by the agent's own asking.
EXEMPT = frozenset({"node", "scheduler", "market", "wallet", "identity"})


class Policy(StrEnum):
    """What goes when there is no room."""

    REJECT_NEW = "reject_new"  # the newcomer is refused, and whoever sent it is told if that can be
    DROP_OLDEST = "drop_oldest"  # the one that has waited longest is dropped for it
    DEAD_LETTER = "dead_letter"  # the newcomer goes to the dead letter, as long as there is room


@dataclass(frozen=True, slots=True)
class Overflow:
    """The bound of one inbox.

    Attributes:
        max_depth: how many triggers may wait.
        policy: what happens to the next one.
        dead_letter_max: how many the dead letter holds; then the newcomers that had no room are dropped, and one that
            the agent failed at pushes out the oldest.
    """

    max_depth: int = 1_000
    policy: Policy = Policy.DEAD_LETTER
    dead_letter_max: int = 100

    def to_dict(self) -> dict[str, Any]:
        """As `/inbox/overflow` shows it."""
        return {
            "max_depth": self.max_depth,
            "policy": self.policy.value,
            "dead_letter_max": self.dead_letter_max,
        }

    def changed(self, value: Mapping[str, Any]) -> "Overflow":
        """With what `value` names in another way.

        Raises:
            InvalidInput: a field is not known, or not within its bounds.
        """
        if unknown := sorted(set(value) - _FIELDS):
            raise InvalidInput(f"The overflow policy has a field that is not known: {str(unknown[0])[:40]!r}.")
        wanted = {**self.to_dict(), **value}
        if wanted["policy"] not in tuple(Policy):
            raise InvalidInput(f"policy is one of {', '.join(Policy)}.")
        return Overflow(
            _number(wanted, "max_depth", 1, MOST_DEPTH),
            Policy(wanted["policy"]),
            _number(wanted, "dead_letter_max", 1, MOST_DEAD),
        )


def _number(value: Mapping[str, Any], name: str, low: int, high: int) -> int:
    found = value[name]
    if type(found) is not int or not low <= found <= high:
        raise InvalidInput(f"{name} is a whole number from {low} to {high}.")
    return found
