"""One kind of work that is for sale. Pure."""

from dataclasses import dataclass

from core.money import Msat
from dvm.provider.provider import Provider
from dvm.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Service:
    """One kind for sale.

    Attributes:
        kind: request kind.
        price: net of the mint's fees; 0 is free. See `tariff`.
        provider: does the work.
        eta_s: how long it usually takes; stands in the quote.
        max_parallel: jobs worked on at once.
        timeout_s: one job may take so long.
        max_open: quotes, waiting and running jobs together; 0 means 256 for a free service, else 8 per worker.
        tariff: what a job costs, if that is not `price` for each.
        paused: nothing new is begun; what is open is finished.
        lends: whether trusted customers who pay over Lightning get the result first, with the invoice in it.
        invoices: whether quotes for customers who pay over Lightning carry an invoice.
    """

    kind: int
    price: Msat
    provider: Provider
    eta_s: int = 10
    max_parallel: int = 4
    timeout_s: int = 120
    max_open: int = 0
    tariff: Tariff | None = None
    paused: bool = False
    invoices: bool = False
    lends: bool = False

    @property
    def terms(self) -> Tariff:
        """What a job costs."""
        return self.tariff or Tariff(self.price)

    @property
    def is_free(self) -> bool:
        """Whether every job is free."""
        return self.terms.is_free

    @property
    def capacity(self) -> int:
        """How many jobs may be promised at once."""
        return self.max_open or (256 if self.is_free else 8 * self.max_parallel)
