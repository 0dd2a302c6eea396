"""Whether a stranger's request is worth an answer: cheapest checks first, nothing fetched or worked (M7). Pure.

`screen` looks at the event alone: size, time, kind, whom it is for. `judge` looks at what it asks for: proof of work or
another credential, the input, the place, the price. Between them the driver looks whether it knows the request already,
and after them it takes from the buckets and the places.
"""

from collections.abc import Collection, Container
from dataclasses import dataclass, field
from typing import TypeAlias

from core.identifier import PubKey
from core.money import Msat
from dvm.trust import STRANGER, Standing, Trust, most_open, proven_bits
from relays.event import Event
from relays.nip90 import JobRequest

MAX_REQUEST_AGE_S = 600
MAX_REQUEST_AHEAD_S = 300
MAX_CUSTOMERS = 10_000
NOTHING = Msat(0)
RETRY_S = 5  # busy now: a while in which places come free


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may take of a seller.

    Attributes:
        max_event_chars: all texts of a request.
        max_input_bytes: all inputs of a request.
        open_per_customer: quotes and paid jobs of one unknown key at once; what others may have follows from it.
        free_per_customer: free jobs of one key that wait or run at once.
        burst: requests that one key may send at once; `per_second` of them come back each second.
        per_second: see `burst`.
        declines_per_second: answers in all that only say no.
        unpaid_per_second: quotes in all that end unpaid, beyond those that capacity lets lapse anyway.
        free_per_second: free jobs in all, however many keys ask; `free_burst` of them may come at once.
        free_burst: see `free_per_second`.
        unknown_per_second: requests of all unknown keys together; `unknown_burst` of them may come at once.
        unknown_burst: see `unknown_per_second`.
        broadcast: whether requests that name nobody are answered.
        pow_bits: proof of work that an unknown key shows for a free job (NIP-13).
        pow_bits_full: proof of work when every place is taken; it rises from three quarters on, for paid jobs too.
        floor: what an unknown key pays at least, for whatever it is, unless it shows `pow_bits` of work.
        allow: keys that are known.
        ban: keys that are not heard.
        free_per_day: jobs that each known key has for nothing every day (UTC).
        invoices_per_minute: Lightning invoices in all that nobody pays: each costs calls to a mint.
        open_invoices: invoices in all that are not paid and still may be.
    """

    max_event_chars: int = 131_072
    max_input_bytes: int = 32_768
    open_per_customer: int = 4
    free_per_customer: int = 64
    burst: int = 1_024
    per_second: float = 512.0
    declines_per_second: float = 5.0
    unpaid_per_second: float = 1.0
    free_per_second: float = 1_000.0
    free_burst: int = 8_000
    unknown_per_second: float = 1_000.0
    unknown_burst: int = 8_000
    broadcast: bool = True
    pow_bits: int = 0
    pow_bits_full: int = 16
    floor: Msat = NOTHING
    allow: Collection[str] = frozenset()
    ban: Collection[str] = frozenset()
    free_per_day: int = 0
    invoices_per_minute: int = 6
    open_invoices: int = 256


@dataclass(frozen=True, slots=True)
class Offering:
    """What is sold to whoever asks now.

    Attributes:
        price: of this very job.
        mints: where it can be paid.
        room: how many more jobs may be promised.
        places: how many may be promised in all.
        wait_s: how long this job would wait for a worker.
        eta_s: how long the work takes.
    """

    price: Msat
    mints: tuple[str, ...]
    room: int
    places: int = 0
    wait_s: int = 0
    eta_s: int = 0
    invoices: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on now, as far as this customer is concerned."""

    open_of_customer: int = 0
    free_of_customer: int = 0


@dataclass(frozen=True, slots=True)
class MakeQuote:
    """Answer with a firm quote: payable by an invoice of ours, or (also if none can be had) at these mints.

    `price` is what is asked instead of the offering's.
    """

    mints: tuple[str, ...]
    price: Msat | None = None
    invoice: bool = False


@dataclass(frozen=True, slots=True)
class Serve:
    """Do it for free."""


@dataclass(frozen=True, slots=True)
class Decline:
    """Answer that it will not be done, and why.

    Attributes:
        reason: for people.
        floor: the price that would be needed.
        retry_after_s: when it is worth asking again; 0 says nothing.
        word: stable, counted.
    """

    reason: str
    floor: Msat | None = None
    retry_after_s: int = 0
    word: str = "declined"


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do not answer. `reason` is a stable word, counted."""

    reason: str


Decision: TypeAlias = MakeQuote | Serve | Decline | Ignore


def screen(event: Event, *, ourselves: PubKey, now: int, kinds: Container[int], limits: Limits) -> str:
    """Why an event is not worth a second look: a stable word, or "" if it is. The cheapest questions come first."""
    if event.pubkey == ourselves:
        return "own_request"
    if len(event.content) + sum(len(part) for tag in event.tags for part in tag) > limits.max_event_chars:
        return "too_large"
    if not now - MAX_REQUEST_AGE_S <= event.created_at <= now + MAX_REQUEST_AHEAD_S:
        return "out_of_time"
    for name in ("expiration", "deadline"):
        text = event.value(name)
        if text is not None and text.isascii() and text.isdigit() and len(text) <= 15 and int(text) <= now:
            return "expired"
    if event.kind not in kinds:
        return "kind_not_served"
    named = event.values("p")
    if named and ourselves not in named:
        return "for_others"
    if not named and not limits.broadcast:
        return "broadcast"
    return ""


def bits_needed(limits: Limits, offering: Offering) -> int:
    """The proof of work that an unknown key shows now (NIP-13): more, the fewer places are left."""
    base = 0 if offering.price else limits.pow_bits
    over = 4 * (offering.places - offering.room) - 3 * offering.places
    if over <= 0 or limits.pow_bits_full <= base:
        return base
    return base + -(-(limits.pow_bits_full - base) * over // offering.places)


def judge(
    request: JobRequest, offering: Offering, load: Load, limits: Limits, *, now: int, standing: Standing = STRANGER
) -> Decision:
    """Judge a request that passed `screen`. The rates are limited by `Meter`."""
    price = offering.price
    targeted = bool(request.providers)
    if request.customer in limits.ban:
        return Ignore("banned")
    if standing.trust is Trust.UNKNOWN:
        shown, needed = proven_bits(request.raw), bits_needed(limits, offering)
        base = min(needed, limits.pow_bits)
        if shown < limits.pow_bits or not limits.pow_bits:
            price = max(price, limits.floor)
        if shown < needed and (needed > base or not price):
            text = f"proof of work is needed: {needed} bits (NIP-13), committed in the nonce tag"
            return Decline(text, retry_after_s=RETRY_S, word="pow") if targeted else Ignore("pow")
    if request.encrypted and not request.scheme:  # whoever hands it over has opened what was for us
        return Decline("the request cannot be decrypted") if targeted else Ignore("encrypted")
    size = sum(len(item.data.encode(errors="replace")) for item in request.inputs)
    if size > limits.max_input_bytes:
        return Decline(f"the input has {size} bytes; at most {limits.max_input_bytes} are served")
    if (late := _late(request, offering, now)) is not None:
        return late
    if not price or standing.free_left:
        if load.free_of_customer >= limits.free_per_customer:
            return Decline("too many of your jobs are waiting", retry_after_s=RETRY_S)
        return Serve()
    return _quoted(request, offering, load, limits, standing, price)


def _late(request: JobRequest, offering: Offering, now: int) -> Decline | None:
    """Whether there is no place, or the result would come when nobody wants it any more."""
    retry = max(RETRY_S, offering.wait_s)
    if offering.room <= 0:
        return Decline("busy, try again later", retry_after_s=retry, word="busy")
    end = min((at for at in (request.deadline, request.expiration) if at is not None), default=None)
    promised = offering.wait_s or offering.price  # who gets it at once for nothing was promised no time
    if end is not None and promised and now + offering.wait_s + offering.eta_s > end:
        text = f"busy: it would take {offering.wait_s + offering.eta_s} s, longer than until the deadline"
        return Decline(text, retry_after_s=retry, word="busy")
    return None


def _quoted(
    request: JobRequest, offering: Offering, load: Load, limits: Limits, standing: Standing, price: Msat
) -> Decision:
    if request.bid is not None and request.bid < price:
        return Decline(f"the price is {price.value} msat, above the bid", price)
    if load.open_of_customer >= most_open(standing, price, limits.open_per_customer):
        return Decline("too many of your jobs are open", retry_after_s=RETRY_S, word="open")
    mints = tuple(mint for mint in offering.mints if mint in request.mints) if request.mints else offering.mints
    # Ecash that is locked to us needs no call to a mint before we are paid, and protects the customer
    invoice = offering.invoices and request.pays_invoices and not (request.mints and mints)
    if not mints and not invoice:
        return Decline("none of your mints is accepted here")
    return MakeQuote(mints, None if price == offering.price else price, invoice)


def note(kept: dict[str, float], key: str, value: float, most: int) -> None:
    """Keep something about the latest `most` keys: strangers choose them."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


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
