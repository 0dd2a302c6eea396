"""How many Lightning invoices strangers may have made: each costs a mint a few calls, and may never be paid."""

from core.clock import Clock
from dvm.admission import Limits, Meter

BURST = 12
EACH = 3  # so many may one key ask for at once


class Ration:
    """Of one seller.

    Args:
        limits: what strangers may take.
        clock: the pace.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._open, self._clock = limits.open_invoices, clock
        self._all = Meter(BURST, limits.invoices_per_minute / 60)
        self._each = Meter(EACH, limits.invoices_per_minute / 60)

    def take(self, customer: str, unpaid: int) -> bool:
        """Whether the mint is asked for one more that may never be paid. `unpaid`: those that are open."""
        now = self._clock.monotonic()
        return unpaid < self._open and self._each.take(customer, now) and self._all.take("", now)

    def give(self, customer: str) -> None:
        """One was paid."""
        self._all.give("")
        self._each.give(customer)
