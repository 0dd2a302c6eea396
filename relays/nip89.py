"""Announcements of what a node sells (NIP-89 handler information, kind 31990). Pure.

Machine-readable prices are `price` tags of ours, `["price", kind, unit, per, amount, "min", n, "max", n]` with `job` or
`per_1k_chars` for `per`; the content keeps what Amethyst and nostrdvm read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from core.identifier import PubKey
from core.money import Msat
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.kind import HANDLER, is_request

MAX_TEXT_CHARS = 4_000
_WHOLE = re.compile(r"[0-9]{1,15}")
_UNIT = re.compile(r"(?:per_)?([a-z0-9_]{1,32})")
_MONEY = ("msat", "uusd", "sat")
JOB = "job"


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of work costs, in msat or uusd; `minimum` and `maximum` bound what a job costs."""

    unit: str
    per: str
    amount: int
    minimum: int | None = None
    maximum: int | None = None

    @property
    def fixed(self) -> Msat | None:
        """The price of every job, if it needs neither the request nor a rate."""
        if (self.unit, self.per) != ("msat", JOB):
            return None
        least = max(self.amount, self.minimum or 0)
        return Msat(least if self.maximum is None else min(least, self.maximum))


@dataclass(frozen=True, slots=True)
class Announcement:
    """Who serves which job kinds at which price. A kind without a price is sold at a price that only a quote says.

    `prices` has what every job of a kind costs, where that is said; `tariffs` what else is said of prices.
    """

    pubkey: PubKey
    d: str
    kinds: tuple[int, ...]
    prices: Mapping[int, Msat]
    mints: tuple[str, ...]
    name: str
    about: str
    created_at: int
    params: Mapping[str, Any] = field(default_factory=dict)
    tariffs: Mapping[int, Price] = field(default_factory=dict)


def announcement_draft(announcement: Announcement, topics: Sequence[str] = ()) -> Draft:
    """The event's draft; `pubkey` is whoever signs it."""
    out: list[tuple[str, ...]] = [("d", announcement.d)]
    out += [("k", str(kind)) for kind in announcement.kinds]
    out += [("t", topic) for topic in topics]
    tariffs = {kind: Price("msat", JOB, price.value) for kind, price in announcement.prices.items()}
    out += [_price_tag(kind, price) for kind, price in {**tariffs, **announcement.tariffs}.items()]
    out += [("pay", "cashu", mint) for mint in announcement.mints]
    content = {
        "name": announcement.name,
        "about": announcement.about,
        "amount": _amount_text(announcement),
        "nip90Params": dict(announcement.params),
        "supportsEncryption": True,
    }
    return Draft(HANDLER, orjson.dumps(content).decode(), tuple(out), announcement.created_at)


def _price_tag(kind: int, price: Price) -> tuple[str, ...]:
    tag = ["price", str(kind), price.unit, price.per if price.per == JOB else f"per_{price.per}", str(price.amount)]
    for name, bound in (("min", price.minimum), ("max", price.maximum)):
        if bound is not None:
            tag += [name, str(bound)]
    return tuple(tag)


def _read_price(tag: tuple[str, ...]) -> tuple[int, Price] | None:
    """A `price` tag, ours or a shorter one of others; None if it cannot be understood."""
    if len(tag) < 5 or tag[2] not in _MONEY or not (_WHOLE.fullmatch(tag[1]) and _WHOLE.fullmatch(tag[4])):
        return None
    per = _UNIT.fullmatch(tag[3])
    if per is None:
        return None
    times = 1_000 if tag[2] == "sat" else 1
    bounds = dict(zip(tag[5::2], tag[6::2], strict=False))
    low, high = (int(bounds[n]) * times if _WHOLE.fullmatch(bounds.get(n, "")) else None for n in ("min", "max"))
    unit = "msat" if tag[2] == "sat" else tag[2]
    return int(tag[1]), Price(unit, per[1], int(tag[4]) * times, low, high)


def _amount_text(announcement: Announcement) -> str:
    """`free`, one price in whole sats, or `flexible`: the only three that deployed readers know."""
    prices = {announcement.prices.get(kind) for kind in announcement.kinds}  # None: another unit, or only a quote says
    only = prices.pop() if len(prices) == 1 else None
    if only is None:
        return "flexible"
    return str(only.sat_up()) if only else "free"


def _content(event: Event) -> dict[str, Any]:
    try:
        value = orjson.loads(event.content or "{}")
    except orjson.JSONDecodeError:
        return {}
    return value if type(value) is dict else {}


def _text(value: Any) -> str:
    return value[:MAX_TEXT_CHARS] if type(value) is str else ""


def _tariffs(event: Event, kinds: Sequence[int]) -> dict[int, Price]:
    found = (_read_price(tag) for tag in event.all("price"))
    return {one[0]: one[1] for one in found if one is not None and one[0] in kinds}


def _prices(kinds: Sequence[int], tariffs: Mapping[int, Price], amount: Any) -> dict[int, Msat]:
    if tariffs:
        return {kind: fixed for kind, price in tariffs.items() if (fixed := price.fixed) is not None}
    if amount == "free":
        return dict.fromkeys(kinds, Msat(0))
    if type(amount) in (str, int) and _WHOLE.fullmatch(str(amount)):
        return dict.fromkeys(kinds, Msat.of_sat(int(amount)))
    return {}


def read_announcement(event: Event) -> Announcement:
    """An announcement. Content that is empty or not JSON only loses the texts; foreign prices in sats are read too.

    Raises:
        MalformedEvent: not of kind 31990, without `d`, or for no job kind.
    """
    d = event.value("d")
    if event.kind != HANDLER or d is None:
        raise MalformedEvent("This is not a handler announcement (NIP-89).")
    listed = (int(text) for text in event.values("k") if _WHOLE.fullmatch(text))
    kinds = tuple(dict.fromkeys(kind for kind in listed if is_request(kind)))
    if not kinds:
        raise MalformedEvent("The announcement names no job kind.")
    content = _content(event)
    mints = tuple(dict.fromkeys(t[2].rstrip("/") for t in event.all("pay") if len(t) > 2 and t[1] == "cashu"))
    params = content.get("nip90Params")
    tariffs = _tariffs(event, kinds)
    return Announcement(
        event.pubkey,
        d,
        kinds,
        _prices(kinds, tariffs, content.get("amount")),
        mints,
        _text(content.get("name")),
        _text(content.get("about")),
        event.created_at,
        params if type(params) is dict else {},
        {kind: price for kind, price in tariffs.items() if price.fixed is None},
    )
