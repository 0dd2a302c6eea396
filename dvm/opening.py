"""How a purchase begins: what fits the wire, what is reserved for it, and its first row. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from core.change import replace
from core.money import MicroUsd, Money, Msat, Rate, money
from core.unit import Insert, Write
from dvm.error import InputTooLarge
from dvm.job import Limit, Purchase
from dvm.record import encode
from dvm.request import ComputeRequest
from relays.private_job import MOST_BYTES, Scheme

TABLE = "purchase"
MAX_WIRE_BYTES = 60_000  # of the request event's inputs and params, as JSON


class Fx(Protocol):
    """Where the price of a bitcoin comes from."""

    async def rate(self) -> Rate:
        """A fresh rate.

        Raises:
            FxUnpriced: there is none.
        """


@dataclass(frozen=True, slots=True)
class Wish:
    """Who asks for a job, where, and under which idempotency key."""

    caller: str
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class StagedPurchase:
    """A job the gate allows. Commit `writes`, then call `start`. A repeated one has no writes and is under way."""

    job_id: str
    writes: tuple[Write, ...]
    repeated: bool
    start: Callable[[], None]


def check_wire(request: ComputeRequest, size: int) -> None:
    """Whether a request of so many bytes fits the wire. Raises InputTooLarge."""
    if size > MAX_WIRE_BYTES:
        raise InputTooLarge(f"The request has {size} bytes on the wire; at most {MAX_WIRE_BYTES} fit.")
    if request.private and size > (most := MOST_BYTES[Scheme(request.private)]):
        raise InputTooLarge(f"The request has {size} bytes; at most {most} can be sent encrypted.")


def limit_of(unit: str, wish: Money, rate: Rate) -> Limit:
    """A wish in either unit as a reservation in the budget's unit: the cost up, the msat that it covers down."""
    if unit == Msat.unit:
        msat = wish if isinstance(wish, Msat) else rate.cover(wish)
        return Limit(unit, msat.value, msat, rate)
    if isinstance(wish, MicroUsd):
        return Limit(unit, wish.value, rate.cover(wish), rate)
    return Limit(unit, rate.cost(wish).value, wish, rate)


def share_of(limit: Limit, parts: int) -> Limit:
    """One of so many equal parts of a reservation, rounded down: together they are within it."""
    value = limit.value // parts
    if limit.unit == Msat.unit:
        return replace(limit, value=value, ceiling=Msat(value))
    assert limit.rate is not None  # there is no reservation in dollars without one
    return limit_of(limit.unit, money(limit.unit, value), limit.rate)


def row_of(purchase: Purchase) -> Insert:
    """Its first row."""
    return Insert(
        TABLE,
        {
            "id": purchase.job_id,
            "effect_id": purchase.effect_id,
            "request_id": purchase.request_id,
            "caller": purchase.caller,
            "kind": purchase.kind,
            "state": purchase.state.value,
            "money": purchase.money.value,
            "body": encode(purchase),
            "created_at": purchase.created_at,
            "updated_at": purchase.created_at,
            "version": 0,
        },
    )
