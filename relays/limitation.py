"""What one relay can take: its own word (NIP-11), and what we found by trying. Pure.

A limit that the relay names is kept to before anything is sent: it would only be refused, and some relays count
refusals against a client.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from relays.event import MAX_EVENT_BYTES
from relays.filter import DEFAULT_LIMIT, MAX_VALUES, Filter
from relays.message import MAX_SUB_CHARS
from relays.nip11 import Information

MESSAGE_BYTES = 131_072  # what the common relays take when they do not say
_LONGEST_BYTES = 262_144  # what we send at most: 10,000 keys are then three requests
SUBSCRIPTIONS = 200
_KEY_BYTES = 67  # 64 hex digits, two quotes, a comma
_REQUEST_BYTES = 512  # what stands around the keys
_LEAST_KEYS = 20


@dataclass(slots=True)
class Traits:
    """What we found out about a relay by trying; kept over restarts.

    Attributes:
        keys: whether one connection may authenticate several keys: `many`, `one`, or empty while unknown.
        guarded: gift wraps are shown only to who has authenticated.
        greets: it sends its challenge at once, not only with a refusal.
        values: most keys in one request that it took, after it had refused more; 0 if it never refused.
    """

    keys: str = ""
    guarded: bool = False
    greets: bool = True
    values: int = 0

    def to_json(self) -> str:
        """As text for the database."""
        return orjson.dumps(asdict(self)).decode()


def parse_traits(text: str) -> Traits:
    """Undo `Traits.to_json`; what cannot be read counts as unknown."""
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Traits()
    if type(value) is not dict:
        return Traits()
    keys, values = value.get("keys"), value.get("values")
    return Traits(
        keys if keys in ("many", "one") else "",
        value.get("guarded") is True,
        value.get("greets") is not False,
        values if type(values) is int and values > 0 else 0,
    )


def key_capacity(information: Information, traits: Traits) -> int:
    """How many keys fit one REQ."""
    room = min(information.max_message_length or MESSAGE_BYTES, _LONGEST_BYTES) - _REQUEST_BYTES
    fitting = max(_LEAST_KEYS, min(MAX_VALUES, room // _KEY_BYTES))
    return min(fitting, traits.values) if traits.values else fitting


def sub_prefix(information: Information, token: str) -> str:
    """The part of a subscription id that is the same on one connection, so short that a serial number follows."""
    longest = min(information.max_subid_length or MAX_SUB_CHARS, MAX_SUB_CHARS)
    return token[: max(0, min(longest - 6, MAX_SUB_CHARS // 2))]


def slots(information: Information) -> tuple[int, int]:
    """How many REQs may be open: (subscriptions, those together with the REQs that read further pages)."""
    most = max(2, information.max_subscriptions or SUBSCRIPTIONS)
    return most - (2 if most >= 6 else 1), most


def fitted(information: Information, filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
    """The filters with no greater `limit` than the relay serves."""
    most = information.max_limit
    if most is None or all(one.limit <= most or one.limit == DEFAULT_LIMIT for one in filters):
        return filters
    return tuple(one if one.limit == DEFAULT_LIMIT else replace(one, limit=min(one.limit, most)) for one in filters)


def refuse_request(information: Information, filters: int, size: int) -> str:
    """Why the relay would not take a REQ of so many filters and bytes; empty if it would."""
    if information.max_filters is not None and filters > information.max_filters:
        return f"unsupported: the relay takes {information.max_filters} filters in one request"
    if information.max_message_length is not None and size > information.max_message_length:
        return f"unsupported: the relay takes messages of {information.max_message_length} bytes"
    return ""


def event_room(information: Information) -> int:
    """How many bytes an event may have that the relay takes, as far as it says; its content counts as all of it."""
    limits = information.max_message_length, information.max_content_length
    return max(0, min((most - 10 for most in limits if most is not None), default=MAX_EVENT_BYTES))


def refuse_event(information: Information, event_id: str, raw: str, now: int) -> str:
    """Why the relay would not take an event of ours, given as its JSON text; empty if it would.

    The words before the colon are those that a relay would use (NIP-01), since the outbox acts on them.
    """
    most = information.max_message_length
    if most is not None and len(raw) + 10 > most:
        return f"invalid: the relay takes messages of {most} bytes"
    bits = information.min_pow_difficulty
    if bits and leading_zeros(event_id) < bits:
        return f"pow: the relay wants {bits} bits"
    needs_look = (
        (information.max_content_length is not None and len(raw) > information.max_content_length)
        or (information.max_event_tags is not None and raw.count("[") > information.max_event_tags)
        or information.created_at_lower_limit is not None
        or information.created_at_upper_limit is not None
    )
    return _look(information, orjson.loads(raw), now) if needs_look else ""


def _look(information: Information, event: Any, now: int) -> str:
    most = information.max_content_length
    if most is not None and len(event["content"]) > most:
        return f"invalid: the relay takes contents of {most} characters"
    most = information.max_event_tags
    if most is not None and len(event["tags"]) > most:
        return f"invalid: the relay takes {most} tags"
    back, ahead, at = information.created_at_lower_limit, information.created_at_upper_limit, event["created_at"]
    # A bound of 1e9 or more is a date, as some relays write it; less is a distance from now, as NIP-11 has it.
    if back is not None and at < (back if back >= 10**9 else now - back):
        return "invalid: the event is older than the relay takes"
    if ahead is not None and at > (ahead if ahead >= 10**9 else now + ahead):
        return "error: the event is dated further ahead than the relay takes"
    return ""


def leading_zeros(event_id: str) -> int:
    """Bits of proof of work in an id (NIP-13)."""
    return 4 * len(event_id) - int(event_id, 16).bit_length()
