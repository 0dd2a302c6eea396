"""What is sold of one kind, on which terms, and whether: as it is set and as it is kept. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from core.error import InvalidInput
from core.money import Msat, money
from dvm.provider.provider import Provider
from dvm.service import Service
from dvm.tariff import JOB, Tariff
from node.error import ConfigInvalid
from node.market import SellSection


class State(StrEnum):
    """Whether it is sold."""

    SELLING = "selling"
    PAUSED = "paused"  # nothing new is begun
    STOPPED = "stopped"  # it is sold no more; the terms are kept for what is still open


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind for sale: `dvm.sale.Service` without its provider. Amounts are in `unit`, msat or uusd."""

    kind: int
    provider: str
    unit: str
    price: int
    per: str = JOB
    minimum: int | None = None
    maximum: int | None = None
    eta_s: int = 10
    max_parallel: int = 4
    state: State = State.SELLING
    invoices: bool = True
    lends: bool = False

    @property
    def tariff(self) -> Tariff:
        """What a job costs."""
        low, high = (None if one is None else money(self.unit, one) for one in (self.minimum, self.maximum))
        return Tariff(money(self.unit, self.price), self.per, low, high)

    def at(self, tariff: Tariff) -> "Offer":
        """The same at another price."""
        low, high = (None if one is None else one.value for one in (tariff.minimum, tariff.maximum))
        price = tariff.price
        return replace(self, unit=price.unit, price=price.value, per=tariff.per, minimum=low, maximum=high)

    def service(self, provider: Provider) -> Service:
        """What `dvm.selling` sells."""
        return Service(
            self.kind, tariff_price(self.tariff), provider, self.eta_s, self.max_parallel, tariff=self.tariff,
            paused=self.state is not State.SELLING, invoices=self.invoices and not self.tariff.is_free,
            lends=self.lends,
        )  # fmt: skip

    def shown(self) -> dict[str, Any]:
        """As people and programs see it; `price_msat` is null if it is not the same for every job."""
        fixed = self.tariff.fixed
        value: dict[str, Any] = asdict(self)
        return value | {"state": self.state.value, "price_msat": None if fixed is None else fixed.value}


def tariff_price(tariff: Tariff) -> Msat:
    """The price of every job, or nothing where it depends on the job."""
    return tariff.fixed or Msat(0)


def offer_of(section: SellSection, state: State = State.SELLING) -> Offer:
    """What a `[[sell]]` table offers."""
    plain = Offer(
        section.kind, section.provider, Msat.unit, 0, JOB, None, None, section.eta_s, section.max_parallel, state,
        section.invoice != "none", section.invoice == "after",
    )  # fmt: skip
    return plain.at(section.tariff())


def read_section(value: Mapping[str, Any]) -> SellSection:
    """Terms that were sent, as in `[[sell]]`.

    Raises:
        InvalidInput: something is not valid.
    """
    try:
        return SellSection.model_validate(dict(value))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()]
        raise InvalidInput("; ".join(lines)[:500]) from error


def provider_of(kind: int, name: str, providers: Iterable[Provider]) -> Provider:
    """Who does it.

    Raises:
        ConfigInvalid: nobody here does that.
    """
    known = list(providers)
    found = next((one for one in known if one.name == name and kind in one.kinds), None)
    if found is None:
        text = ", ".join(f"{one.name} ({', '.join(map(str, sorted(one.kinds)))})" for one in known)
        raise ConfigInvalid(f"[[sell]] kind {kind}: {name!r} does not do it. There are: {text}.")
    return found
