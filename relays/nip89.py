"""Announcements of what a node sells (NIP-89 handler information, kind 31990). Pure.

Machine-readable prices are `price` tags of ours; the content keeps what Amethyst and nostrdvm read.
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


@dataclass(frozen=True, slots=True)
class Announcement:
    """Who serves which job kinds at which price. A kind without a price is sold at a price that only a quote says."""

    pubkey: PubKey
    d: str
    kinds: tuple[int, ...]
    prices: Mapping[int, Msat]
    mints: tuple[str, ...]
    name: str
    about: str
    created_at: int
    params: Mapping[str, Any] = field(default_factory=dict)


def announcement_draft(announcement: Announcement, topics: Sequence[str] = ()) -> Draft:
    """The event's draft; `pubkey` is whoever signs it."""
    out: list[tuple[str, ...]] = [("d", announcement.d)]
    out += [("k", str(kind)) for kind in announcement.kinds]
    out += [("t", topic) for topic in topics]
    out += [("price", str(kind), "msat", "job", str(price.value)) for kind, price in announcement.prices.items()]
    out += [("pay", "cashu", mint) for mint in announcement.mints]
    content = {
        "name": announcement.name,
        "about": announcement.about,
        "amount": _amount_text(announcement),
        "nip90Params": dict(announcement.params),
    }
    return Draft(HANDLER, orjson.dumps(content).decode(), tuple(out), announcement.created_at)


def _amount_text(announcement: Announcement) -> str:
    """`free`, one price in whole sats, or `flexible`: the only three that deployed readers know."""
    prices = {announcement.prices.get(kind) for kind in announcement.kinds}
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


def _prices(event: Event, kinds: Sequence[int], amount: Any) -> dict[int, Msat]:
    prices = {}
    for tag in event.all("price"):
        if len(tag) >= 5 and tag[2:4] == ("msat", "job") and _WHOLE.fullmatch(tag[1]) and _WHOLE.fullmatch(tag[4]):
            prices[int(tag[1])] = Msat(int(tag[4]))
    if prices:
        return {kind: price for kind, price in prices.items() if kind in kinds}
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
    return Announcement(
        event.pubkey,
        d,
        kinds,
        _prices(event, kinds, content.get("amount")),
        mints,
        _text(content.get("name")),
        _text(content.get("about")),
        event.created_at,
        params if type(params) is dict else {},
    )
