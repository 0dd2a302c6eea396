"""What coins of one unit are worth in another, by a rate that the caller has frozen. Pure.

Nobody is asked, and nothing is guessed: without a rate there is no answer. Only dollars have one here (`wallet.fx`).
Worth is rounded up: it is compared with what somebody may lose or pay.
"""

from core.money import MicroUsd, Msat, Rate
from wallet.amount import EUR, MSAT, SAT, USD, Amount
from wallet.error import FxUnpriced
from wallet.melt import likely_reserve

MICRO_PER_CENT = 10_000
SPREAD_PERCENT = 3
"""By so much a mint's own rate may usually differ from ours, to its advantage."""


def sat_worth(amount: Amount, rate: Rate | None) -> int | None:
    """What an amount is worth in sat, rounded up; None if that is not known."""
    if amount.unit == SAT:
        return amount.value
    if amount.unit == MSAT:
        return Msat(amount.value).sat_up()
    if amount.unit == USD and rate is not None:
        return rate.ask(amount.value * MICRO_PER_CENT).sat_up()
    return None


def worth_in(unit: str, msat: Msat, rate: Rate | None) -> Amount:
    """What so many msat are in a unit, rounded up.

    Raises:
        FxUnpriced: no rate between the two is known.
    """
    if unit == SAT:
        return Amount(msat.sat_up(), unit)
    if unit == MSAT:
        return Amount(msat.value, unit)
    if unit == USD and rate is not None:
        cost: MicroUsd = rate.cost(msat)
        return Amount(-(-cost.value // MICRO_PER_CENT), unit)
    why = "There is no rate between euro and bitcoin here." if unit == EUR else "There is no fresh exchange rate."
    raise FxUnpriced(f"{why} Say yourself how much may be spent.")


def likely_cost(unit: str, msat: Msat, rate: Rate | None, inputs_fee: int) -> Amount:
    """What paying an invoice takes at most at a usual mint, in its unit: its spread, its reserve, its input fee.

    Raises:
        FxUnpriced: no rate between the two is known.
    """
    plain = worth_in(unit, msat, rate)
    if unit == MSAT:
        reserve = likely_reserve(msat.sat_up()) * 1_000
    else:
        spread = 0 if unit == SAT else max(1, -(-plain.value * SPREAD_PERCENT // 100))
        reserve = spread + likely_reserve(plain.value + spread)
    return Amount(plain.value + reserve + inputs_fee, unit)
