"""The relay information document (NIP-11), made from the limits and rules that hold. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relays.embedded.access import Access
from relays.embedded.limit import Limits
from relays.embedded.rate import Rates
from relays.filter import DEFAULT_LIMIT, MAX_LIMIT

SUPPORTED = (1, 9, 11, 13, 17, 40, 42, 45, 65, 70, 77)


@dataclass(frozen=True, slots=True)
class Description:
    """What the relay says about itself.

    Attributes:
        name: shown to people.
        about: shown to people.
        pubkey: its operator's, 64 hex digits, or empty.
        version: of the software.
        contact: where its operator is reached: an address or URI, or empty.
        public_url: its address for the world (`wss://…`), or empty if that is where it listens.
        nips: what its store can do besides.
        retention: NIP-11's `retention`, as it is published.
    """

    name: str = "vendo relay"
    about: str = "The relay inside a vendo node."
    pubkey: str = ""
    version: str = ""
    contact: str = ""
    public_url: str = ""
    nips: tuple[int, ...] = ()
    retention: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that a relay holds its clients to."""

    limits: Limits
    access: Access
    rates: Rates


def limitation(rules: Rules) -> dict[str, int | bool]:
    """The `limitation` object of NIP-11, with `max_listed_keys` (docs/reference/wire.md) and the rates beside it."""
    limits, access = rules.limits, rules.access
    return {
        "max_message_length": limits.message_bytes,
        "max_subscriptions": limits.subscriptions,
        "max_filters": limits.filters,
        "max_limit": MAX_LIMIT,
        "default_limit": DEFAULT_LIMIT,
        "max_subid_length": limits.sub_id_chars,
        "max_event_tags": limits.event_tags,
        "max_content_length": limits.event_bytes,
        "created_at_upper_limit": limits.future_s,
        "min_pow_difficulty": access.pow_bits if access.write_by == ("pow",) else 0,
        "auth_required": access.read_by != "open" and access.auth_to_write,
        "payment_required": access.write_by == ("payment",),
        "restricted_writes": bool(access.write_by or access.kinds or access.auth_to_write),
        "max_listed_keys": limits.listed_keys,
    }


def rates_of(rates: Rates) -> dict[str, int]:
    """The rates in words of their own, since NIP-11 has none for them."""
    return {
        "events_per_minute": rates.events.per_minute,
        "events_per_minute_and_key": rates.events_per_key.per_minute,
        "requests_per_minute": rates.requests.per_minute,
        "auths_per_minute": rates.auths.per_minute,
        "bytes_per_minute": rates.bytes.per_minute,
        "connects_per_minute": rates.connects.per_minute,
        "connections_per_address": rates.connections,
    }


def _fees(access: Access) -> dict[str, Any]:
    if "payment" not in access.write_by:
        return {}
    return {"subscription": [{"amount": access.price_msat, "unit": "msats", "period": access.paid_days * 86_400}]}


def document(description: Description, rules: Rules, payments_url: str = "") -> dict[str, Any]:
    """The whole document. What is empty is left out."""
    fees = _fees(rules.access)
    out: dict[str, Any] = {
        "name": description.name,
        "description": description.about,
        "pubkey": description.pubkey,
        "contact": description.contact,
        "software": "vendo",
        "version": description.version,
        "supported_nips": supported(description.nips),
        "limitation": limitation(rules),
        "rates": rates_of(rules.rates),
        "retention": list(description.retention),
        "fees": fees,
        "payments_url": payments_url if fees else "",
    }
    return {name: value for name, value in out.items() if value not in ("", [], {})}


def supported(more: Sequence[int]) -> list[int]:
    """The NIPs of this relay and its store, in order."""
    return sorted({*SUPPORTED, *more})
