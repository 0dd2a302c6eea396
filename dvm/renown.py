"""What is thought of a seller, from receipts that were checked at the mint, with the reasons. Whole numbers. Pure.

Keys cost nothing, so only money counts, and of each buyer only so much: whoever praises himself pays the mint's fees
for every sat of it and needs many keys that really pay. What is old counts less. One undelivered job outweighs several
delivered ones, since a seller that takes money and delivers nothing does it as seldom as it needs to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.money import Msat
from dvm.fraud import told
from dvm.receipt import Verdict

HALF_LIFE_S = 90 * 86_400
MOST_AGE_S = 8 * HALF_LIFE_S
PER_BUYER = Msat(1_000_000)
PRIOR = Msat(200_000)  # so much of both kinds is assumed of everybody: nobody is judged by one job
BAD_WEIGHT = 4
MOST_TOLD = 3  # of its frauds
WHOLE = 1_000


@dataclass(frozen=True, slots=True)
class Deal:
    """One job whose money the seller took, as the mint has confirmed it. `at` in Unix seconds."""

    buyer: str
    verdict: Verdict
    amount: Msat
    at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What follows. `score` is 0 to 1000; 500 is a seller of whom nothing is known. Amounts count after decay.

    `frauds` are the results by which one is proven; with one of them the score is 0 for good.
    """

    score: int
    delivered: Msat
    undelivered: Msat
    buyers: int
    deals: int
    reasons: tuple[str, ...]
    frauds: tuple[str, ...] = ()


def worth(amount: Msat, age_s: int) -> Msat:
    """What an amount counts after so long: a half after 90 days, a quarter after 180; straight in between."""
    if age_s <= 0:
        return amount
    if age_s >= MOST_AGE_S:
        return Msat(0)
    halvings, rest = divmod(age_s, HALF_LIFE_S)
    return Msat((amount.value * (2 * HALF_LIFE_S - rest) // (2 * HALF_LIFE_S)) >> halvings)


def standing(deals: Iterable[Deal], now: int, frauds: Sequence[str] = ()) -> Standing:
    """The seller's standing at `now` (Unix seconds); `frauds` names the results by which one is proven."""
    good: dict[str, int] = {}
    bad: dict[str, int] = {}
    count = 0
    for deal in deals:
        counted = worth(deal.amount, now - deal.at).value
        if not counted:
            continue
        count += 1
        side = good if deal.verdict is Verdict.DELIVERED else bad
        side[deal.buyer] = min(PER_BUYER.value, side.get(deal.buyer, 0) + counted)
    delivered, undelivered = sum(good.values()), sum(bad.values())
    weight = delivered + BAD_WEIGHT * undelivered + 2 * PRIOR.value
    score = 0 if frauds else WHOLE * (delivered + PRIOR.value) // weight
    return Standing(
        score,
        Msat(delivered),
        Msat(undelivered),
        len(good.keys() | bad.keys()),
        count,
        (*(f"a fraud is proven: {told(one)}" for one in frauds[:MOST_TOLD]), *_reasons(good, bad, score)),
        tuple(frauds),
    )


def _reasons(good: dict[str, int], bad: dict[str, int], score: int) -> tuple[str, ...]:
    if not good and not bad:
        return (f"{score} of {WHOLE}: nothing {'' if score else 'else '}is known of it",)
    lines = [f"{score} of {WHOLE}, where 500 is unknown; no buyer counts for more than {PER_BUYER.value} msat"]
    if good:
        lines.append(f"{sum(good.values())} msat taken and delivered, for {len(good)} buyers, after decay")
    if bad:
        taken = sum(bad.values())
        lines.append(f"{taken} msat taken and not delivered, from {len(bad)} buyers, counted {BAD_WEIGHT} times")
    return tuple(lines)
