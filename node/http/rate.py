"""How often somebody may ask: token buckets, one number each. Pure; time is passed in.

A bucket is kept as the moment at which it is full again (the generic cell rate algorithm), so that a request costs one
look-up and one addition; one that is full need not be kept at all.
"""

import math
from dataclasses import dataclass

MAX_BUCKETS = 10_000
_ROUNDING = 1e-6  # what adding up thousands of steps may lose


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once. `per_second` 0 is no limit."""

    per_second: float = 0.0
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Rates:
    """What callers of the control plane may do.

    Attributes:
        operator: requests of the operator, with whichever token or key.
        agent: requests of one agent.
        public: requests without a token, from one address (an IPv6 /64 counts as one).
        failed: tokens and signatures that are not accepted, from one address.
    """

    operator: Rate = Rate(20_000, 40_000)
    agent: Rate = Rate(100, 200)
    public: Rate = Rate(10, 20)
    failed: Rate = Rate(5, 20)


class Buckets:
    """A bucket for each name, all of one rate; each is full at first.

    Args:
        rate: of each.
        most: how many are kept. Beyond that those go that are full, then those that are nearest to it.
    """

    __slots__ = ("_full_at", "_most", "_room", "_step")

    def __init__(self, rate: Rate, most: int = MAX_BUCKETS) -> None:
        self._step = 1.0 / rate.per_second if rate.per_second > 0 else 0.0
        self._room = self._step * (max(rate.burst, 1) - 1) + _ROUNDING
        self._most = most
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str, mono: float) -> float:
        """Take one: 0.0 if there was one, else the seconds until there is, and nothing was taken."""
        step = self._step
        if not step:
            return 0.0
        full_at = self._full_at.get(name, mono)
        if full_at < mono:
            full_at = mono
        if (wait := full_at - mono - self._room) > 0:
            return wait
        self._full_at[name] = full_at + step
        if len(self._full_at) > self._most:
            self._shrink(mono)
        return 0.0

    def wait(self, name: str, mono: float) -> float:
        """The seconds until there is one; 0.0 if there is one now. It stays."""
        return max(0.0, self._full_at.get(name, mono) - mono - self._room)

    def _shrink(self, mono: float) -> None:
        kept = sorted((item for item in self._full_at.items() if item[1] > mono), key=lambda item: item[1])
        self._full_at = dict(kept[-(self._most * 3 // 4) :])


def retry_after(seconds: float) -> int:
    """What a `Retry-After` header says: whole seconds, at least one (RFC 9110, 10.2.3)."""
    return max(1, math.ceil(seconds))
