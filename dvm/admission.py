"""Whether a stranger's request is worth an answer: cheapest checks first, nothing fetched or worked (M7). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from core.identifier import PubKey
from core.money import Msat
from relays.nip90 import JobRequest

MAX_REQUEST_AGE_S = 600
MAX_REQUEST_AHEAD_S = 300
MAX_CUSTOMERS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may take of a seller.

    Attributes:
        max_input_bytes: all inputs of a request.
        open_per_customer: quotes and paid jobs of one key at once.
        free_per_customer: free jobs of one key that wait or run at once.
        burst: requests that one key may send at once; `per_second` of them come back each second.
        per_second: see `burst`.
        declines_per_second: answers in all that only say no.
        unpaid_per_second: quotes in all that end unpaid, beyond those that capacity lets lapse anyway.
        free_per_second: free jobs in all, however many keys ask; `free_burst` of them may come at once.
        free_burst: see `free_per_second`.
    """

    max_input_bytes: int = 32_768
    open_per_customer: int = 4
    free_per_customer: int = 64
    burst: int = 1_024
    per_second: float = 512.0
    declines_per_second: float = 5.0
    unpaid_per_second: float = 1.0
    free_per_second: float = 1_000.0
    free_burst: int = 8_000


@dataclass(frozen=True, slots=True)
class Offering:
    """What is sold of one kind: see `dvm.selling.Service`. `room` is how many more jobs may be promised now."""

    price: Msat
    mints: tuple[str, ...]
    room: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on now, as far as this customer is concerned."""

    open_of_customer: int = 0
    free_of_customer: int = 0


@dataclass(frozen=True, slots=True)
class MakeQuote:
    """Answer with a firm quote, payable at these mints."""

    mints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Serve:
    """Do it for free."""


@dataclass(frozen=True, slots=True)
class Decline:
    """Answer that it will not be done, and why; `floor` is the price that would be needed."""

    reason: str
    floor: Msat | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do not answer. `reason` is a stable word, counted."""

    reason: str


Decision: TypeAlias = MakeQuote | Serve | Decline | Ignore


def admit(
    request: JobRequest,
    *,
    ourselves: PubKey,
    now: int,
    offerings: Mapping[int, Offering],
    load: Load,
    limits: Limits,
) -> Decision:
    """Judge a verified request. The rate of each key is limited before this, by `Meter`."""
    offering = offerings.get(request.kind)
    if offering is None:
        return Ignore("kind_not_served")
    if request.customer == ourselves:
        return Ignore("own_request")
    if request.providers and ourselves not in request.providers:
        return Ignore("for_others")
    if not now - MAX_REQUEST_AGE_S <= request.raw.created_at <= now + MAX_REQUEST_AHEAD_S:
        return Ignore("out_of_time")
    if (request.expiration is not None and request.expiration <= now) or (
        request.deadline is not None and request.deadline <= now
    ):
        return Ignore("expired")
    return _judge_content(request, offering, load, limits, targeted=bool(request.providers))


def _judge_content(request: JobRequest, offering: Offering, load: Load, limits: Limits, *, targeted: bool) -> Decision:
    if request.encrypted:
        return Decline("encrypted requests are not served") if targeted else Ignore("encrypted")
    size = sum(len(item.data.encode(errors="replace")) for item in request.inputs)
    if size > limits.max_input_bytes:
        return Decline(f"the input has {size} bytes; at most {limits.max_input_bytes} are served")
    if offering.room <= 0:
        return Decline("busy, try again later")
    if not offering.price:
        if load.free_of_customer >= limits.free_per_customer:
            return Decline("too many of your jobs are waiting")
        return Serve()
    if request.bid is not None and request.bid < offering.price:
        return Decline(f"the price is {offering.price.value} msat, above the bid", offering.price)
    if load.open_of_customer >= limits.open_per_customer:
        return Decline("too many of your jobs are open")
    mints = tuple(mint for mint in offering.mints if mint in request.mints) if request.mints else offering.mints
    if not mints:
        return Decline("none of your mints is accepted here")
    return MakeQuote(mints)


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


@dataclass(slots=True)
class Meter:
    """How many requests each key may send: a token bucket per key, bounded in number.

    Mutable, but it does nothing by itself: time is handed in (seconds that never run backwards).
    """

    burst: float
    per_second: float
    keys: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, key: str, at: float) -> bool:
        """Whether one more is allowed now."""
        bucket = self.keys.pop(key, None) or _Bucket(self.burst, at)
        bucket.level = min(self.burst, bucket.level + (at - bucket.at) * self.per_second)
        bucket.at = at
        self.keys[key] = bucket  # at the end: the least recently seen goes first
        while len(self.keys) > MAX_CUSTOMERS:
            del self.keys[next(iter(self.keys))]
        if bucket.level < 1:
            return False
        bucket.level -= 1
        return True

    def give(self, key: str) -> None:
        """Take one back: it was not used up after all."""
        if (bucket := self.keys.get(key)) is not None:
            bucket.level = min(self.burst, bucket.level + 1)
