"""The clock of this machine, compared with the Date headers of relays and mints: no time server is asked. Pure."""

import time
from collections.abc import Mapping, Sequence

from cli.checkup.finding import Check, fail, ok, warn

WARN_S, FAIL_S = 5.0, 60.0
"""NIP-98 takes a minute at most, and locks of payments count in minutes too; NIP-42 takes ten."""
_FIX = "Run: sudo timedatectl set-ntp true"


def clock(offsets: Mapping[str, float], now: float) -> Check:
    """What the servers' clocks say of ours.

    Args:
        offsets: by how many seconds we are ahead, by server.
        now: Unix seconds, as this machine has it.
    """
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if not offsets:
        return ok("clock", f"It says {shown}; no server was there to compare with.", "Run: timedatectl")
    ours = middle(list(offsets.values()))
    agreed = [name for name, one in offsets.items() if abs(one - ours) <= WARN_S]
    if 2 * len(agreed) <= len(offsets):
        told = ", ".join(f"{name} {_span(one)}" for name, one in sorted(offsets.items()))
        return warn("clock", f"It says {shown}, and the servers differ among themselves: {told}.", "Run: timedatectl")
    detail = f"It says {shown}, {_span(ours)} the {len(agreed)} of {len(offsets)} servers that agree."
    if abs(ours) > FAIL_S:
        return fail("clock", f"{detail} Proofs of identity and locks of payments will be refused.", _FIX)
    if abs(ours) > WARN_S:
        return warn("clock", detail, _FIX)
    return ok("clock", f"It says {shown}, as the servers do (within {WARN_S:g} s).")


def astray(offsets: Mapping[str, float]) -> dict[str, float]:
    """Servers whose own clock is wrong by more than a minute, where most agree with each other; by how many seconds."""
    if not offsets:
        return {}
    ours = middle(list(offsets.values()))
    agreed = sum(abs(one - ours) <= WARN_S for one in offsets.values())
    wrong = {name: abs(one - ours) for name, one in offsets.items() if abs(one - ours) > FAIL_S}
    return wrong if 2 * agreed > len(offsets) else {}


def middle(values: Sequence[float]) -> float:
    """The median; of two in the middle the one that is nearer to zero."""
    ranked = sorted(values)
    pair = (ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2])
    return min(pair, key=abs)


def _span(offset: float) -> str:
    return f"{abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'}"
