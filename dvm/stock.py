"""What is for sale now: services, the workers of each kind, the places that are taken, and what a job would cost."""

from collections import Counter as Tally
from collections.abc import Callable, Sequence

from core.clock import Clock
from core.error import InvalidInput
from core.money import Rate
from core.unit import Row
from dvm.admission import Offering
from dvm.chain import as_compute, references
from dvm.line import Line
from dvm.sale import OpenSale
from dvm.schedule import Ticket, weight_of
from dvm.service import Service
from dvm.tariff import BY_LENGTH
from relays.nip90 import JobRequest


class Stock:
    """Holds services, and counts what is promised of each.

    Args:
        services: what is sold at first; one per kind.
        clock: time.
        mints: where we are paid.
        rate: what a dollar is worth now, or None.
    """

    def __init__(
        self,
        services: Sequence[Service],
        clock: Clock,
        mints: Callable[[], tuple[str, ...]],
        rate: Callable[[], Rate | None],
    ) -> None:
        self.services: dict[int, Service] = {}
        self.kinds: frozenset[int] = frozenset()
        self._clock, self._mints, self._rate = clock, mints, rate
        self._lines: dict[int, Line] = {}
        self._taken: Tally[int] = Tally()
        for service in services:
            self.put(service)

    def put(self, service: Service) -> None:
        """Sell this from now on, in place of what was sold of its kind."""
        self.services[service.kind] = service
        self.line(service).resize(service.max_parallel)
        self._count()

    def withdraw(self, kind: int) -> None:
        """Sell nothing of this kind from now on."""
        self.services.pop(kind, None)
        self._count()

    def _count(self) -> None:
        self.kinds = frozenset(kind for kind, one in self.services.items() if not one.paused)

    def line(self, service: Service) -> Line:
        """The workers of a kind; they stay while jobs of it are open, also if it is sold no more."""
        found = self._lines.get(service.kind)
        if found is None:
            found = self._lines[service.kind] = Line(service.max_parallel, self._clock)
        return found

    def offering(self, request: JobRequest, trust: int) -> Offering:
        """What is offered to a request of a kind that is sold.

        Raises:
            Unpriced: it is priced in dollars, and there is no fresh rate.
            InvalidInput: what the price depends on is missing, or only referred to.
        """
        service = self.services[request.kind]
        price = service.terms.fixed
        if price is None:
            asked = as_compute(request)
            if service.terms.per in BY_LENGTH and not service.is_free and references(asked):
                raise InvalidInput("The price depends on the length: send the input as text.")
            price = service.terms.ask(asked, self._rate())
        expected_s = service.eta_s
        ticket = Ticket(
            request.event_id, request.customer, 1_000 * expected_s, weight_of(price, expected_s, trust), 0
        )  # fmt: skip
        mints = self._mints()
        return Offering(
            price=price,
            mints=mints,
            invoices=service.invoices and bool(mints),
            room=service.capacity - self._taken[request.kind],
            places=service.capacity,
            wait_s=self.line(service).wait_s(ticket),
            eta_s=expected_s,
        )

    # ---- places

    @property
    def places(self) -> int:
        """How many jobs may be promised at once in all."""
        return sum(one.capacity for one in self.services.values())

    @property
    def priced_kinds(self) -> tuple[int, ...]:
        """What is not free."""
        return tuple(kind for kind, one in self.services.items() if not one.is_free)

    @property
    def priced_places(self) -> int:
        """The same of services that are not free."""
        return sum(one.capacity for one in self.services.values() if not one.is_free)

    def take(self, sale: OpenSale) -> None:
        """A place is taken."""
        self._taken[sale.sale.kind] += 1

    def give(self, sale: OpenSale) -> None:
        """It is free again, and nothing of the sale waits for a worker."""
        self._taken[sale.sale.kind] -= 1
        self.line(sale.service).leave(sale.sale.request_id)

    def clear(self) -> None:
        """Nothing is open, and nothing is promised."""
        self._taken.clear()
        self._lines = {kind: Line(one.max_parallel, self._clock) for kind, one in self.services.items()}

    # ---- reading

    def facts(self) -> list[Row]:
        """Each kind with its work, as plain values."""
        kinds = sorted(set(self.services) | {kind for kind, taken in self._taken.items() if taken})
        return [self._fact(kind) for kind in kinds]

    def _fact(self, kind: int) -> Row:
        service, line = self.services.get(kind), self._lines[kind]
        return {
            "kind": kind,
            "open": self._taken[kind],
            "capacity": service.capacity if service is not None else 0,
            "waiting": line.waiting,
            "running": line.running,
            "workers": line.workers,
        }
