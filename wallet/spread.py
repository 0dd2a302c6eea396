"""Where money should lie: no mint holds more than its cap, and one that is trusted no more is emptied. Pure.

A mint is a custodian: what it holds is lost with it. So the cap is what the owner is ready to lose there. Money moves
over Lightning, from one mint to another, and costs fees, so only what is worth it is moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_FEE_PERCENT = 2
_FEE_LEAST_SAT = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner allows.

    Attributes:
        cap_sat: the most that one mint should hold; 0 is no cap.
        caps_sat: the same for single mints, by canonical address.
        least_sat: less is not moved.
        fee_percent: a move may cost so much of what arrives, and in any case 3 sat.
        automatic: whether money is moved without being asked.
    """

    cap_sat: int = 0
    caps_sat: Mapping[str, int] = field(default_factory=dict)
    least_sat: int = 1_000
    fee_percent: int = _FEE_PERCENT
    automatic: bool = True

    def cap(self, mint: str) -> int | None:
        """A mint's cap in sat; None if it has none."""
        return self.caps_sat.get(mint, self.cap_sat) or None

    def fee(self, sat: int) -> int:
        """The most that moving so much may cost."""
        return max(_FEE_LEAST_SAT, -(-sat * self.fee_percent // 100))


@dataclass(frozen=True, slots=True)
class Held:
    """What one mint holds, in sat: `live` is free, `bound` is reserved or locked. `retired`: trusted no more.

    `foreign` is what its coins in other units are worth; None if that is not known.
    """

    mint: str
    live: int
    bound: int = 0
    retired: bool = False
    silent: bool = False
    foreign: int | None = 0


@dataclass(frozen=True, slots=True)
class Move:
    """So much shall arrive at `target`; `source` may be taken at most `sat + fee`."""

    source: str
    target: str
    sat: int
    fee: int


def room(held: Held, rules: Rules) -> int | None:
    """How much more a mint may hold; None is any amount, 0 nothing."""
    if held.retired or held.silent:
        return 0
    cap = rules.cap(held.mint)
    if cap is None:
        return None
    return 0 if held.foreign is None else max(0, cap - held.live - held.bound - held.foreign)


def best_place(mints: Sequence[Held], rules: Rules, sat: int, *, but: str = "") -> str | None:
    """Where so much goes best: the mint with room for it that holds the least; None if no mint has room."""
    fit = [one for one in mints if one.mint != but and not one.retired and not one.silent]
    fit = [one for one in fit if (left := room(one, rules)) is None or left >= sat]
    return min(fit, key=lambda one: (one.live + one.bound, one.mint)).mint if fit else None


def next_move(mints: Sequence[Held], rules: Rules) -> Move | None:
    """What is moved first: money at mints that are trusted no more, then what is above a cap. None if all lies well."""
    for one in sorted(mints, key=lambda one: (not one.retired, -one.live, one.mint)):
        if one.silent:
            continue
        cap = 0 if one.retired else rules.cap(one.mint)
        if cap is None:
            continue
        # Down to nine tenths, or the next earning would move some again. What is bound is on its way, maybe from here.
        # What lies there in other units is not moved, and makes room for less sat.
        above = one.live if one.retired else one.live + (one.foreign or 0) - cap
        if above <= 0:
            continue
        spare = min(one.live, above if one.retired else above + cap // 10)
        found = _fitting(one, spare, mints, rules)
        if found is not None:
            return found
    return None


def _fitting(source: Held, spare: int, mints: Sequence[Held], rules: Rules) -> Move | None:
    """The largest move of at most `spare`, fees included, for which there is a place."""
    most = spare
    while most and most + rules.fee(most) > spare:
        most -= max(1, most + rules.fee(most) - spare)
    rooms = [room(one, rules) for one in mints if one.mint != source.mint]
    largest = most if None in rooms else min(most, max((left or 0 for left in rooms), default=0))
    if largest < (1 if source.retired else max(1, rules.least_sat)):
        return None
    target = best_place(mints, rules, largest, but=source.mint)
    return None if target is None else Move(source.mint, target, largest, rules.fee(largest))
