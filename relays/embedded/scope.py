"""Private messages go to their parties only (NIP-17, NIP-59): who may ask for them, and who gets them. Pure.

A request that names private kinds needs AUTH, and names only keys that the connection may read for. A request that
does not name kinds is served without the private events of others. Both hold for REQ, COUNT, NEG-OPEN and live.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import orjson

from core.identifier import PubKey
from relays.event import Event
from relays.filter import Filter
from relays.kind import EPHEMERAL_GIFT_WRAP, GIFT_WRAP

LEGACY_DM = 4  # NIP-04
PRIVATE = frozenset({LEGACY_DM, GIFT_WRAP, EPHEMERAL_GIFT_WRAP})
_WRAPS = frozenset({GIFT_WRAP, EPHEMERAL_GIFT_WRAP})  # their authors are throw-away keys: only `p` says whose they are
_MARKS = tuple(f'"kind":{kind},"tags":'.encode() for kind in PRIVATE)
_MOST_KINDS = 500
_MOST_KEYS = 2_000


def is_party(event: Event, readers: Collection[PubKey]) -> bool:
    """Whether a private event is by one of the readers, or to one of them."""
    return event.pubkey in readers or any(tag[0] == "p" and len(tag) > 1 and tag[1] in readers for tag in event.tags)


def may_get(raw: bytes, readers: Collection[PubKey]) -> bool:
    """The same for a stored event's text, with a yes for every event that is not private.

    The text is this relay's own, so that a private kind is found without parsing; inside of content or tags its
    quotes would be escaped.
    """
    if not any(mark in raw for mark in _MARKS):
        return True
    value = orjson.loads(raw)
    return value["pubkey"] in readers or any(
        tag[0] == "p" and len(tag) > 1 and tag[1] in readers for tag in value["tags"]
    )


def refuse(filters: Sequence[Filter], readers: Collection[PubKey]) -> str:
    """Why these filters are not served: they ask for private messages of others. Empty if they may be served."""
    for wanted in filters:
        if wanted.kinds is None or not wanted.kinds & PRIVATE:
            continue
        if not readers:
            return "auth-required: private messages (kinds 4, 1059, 21059) go to their parties only"
        strangers = _strangers(wanted, readers)
        if strangers:
            # Not `restricted`: a connection may prove several keys, and AUTH by this one would help.
            return f"auth-required: this connection has not proved {min(strangers)}"
    return ""


def _strangers(wanted: Filter, readers: Collection[PubKey]) -> frozenset[str]:
    """The keys for which a private request may not be made; none if one of its conditions alone is enough."""
    faults = [
        frozenset(one for one in named if one not in readers)
        for named in (wanted.tags.get("p"), wanted.authors)
        if named is not None
    ]
    return frozenset() if not faults or not all(faults) else faults[0]


def narrow(
    filters: Sequence[Filter], readers: Collection[PubKey], known: frozenset[int] | None, *, exact: bool
) -> list[Filter]:
    """The filters for what is stored, without private events of others as far as filters can say that.

    Args:
        filters: as they were asked, and not refused.
        readers: the keys of the connection.
        known: every kind that is stored; None if they are too many to name.
        exact: for counts and reconciliation, where no event is looked at again. What cannot be said exactly is
            then left out.
    """
    known = known if known is not None and len(known) <= _MOST_KINDS else None
    out: list[Filter] = []
    for wanted in filters:
        if wanted.kinds is not None and not wanted.kinds & PRIVATE:
            out.append(wanted)
        else:  # also for those who have proved a key: what a limit leaves out would tell of others' messages
            out += _public(wanted, known, exact=exact)
            out += _own(wanted, readers)
    return out


def _public(wanted: Filter, known: frozenset[int] | None, *, exact: bool) -> list[Filter]:
    if wanted.kinds is not None:
        rest = wanted.kinds - PRIVATE
        return [replace(wanted, kinds=rest)] if rest else []
    if known is None:
        return [] if exact else [wanted]
    return [wanted] if not known & PRIVATE else [replace(wanted, kinds=known - PRIVATE)]


def _own(wanted: Filter, readers: Collection[PubKey]) -> list[Filter]:
    """The private part: to the readers, and by them."""
    kinds = PRIVATE if wanted.kinds is None else wanted.kinds & PRIVATE
    if not readers or not kinds:
        return []
    own = replace(wanted, kinds=kinds)
    named, authors = wanted.tags.get("p"), wanted.authors
    if any(given is not None and all(one in readers for one in given) for given in (named, authors)):
        return [own]
    keys: frozenset[str] = frozenset(readers) if len(readers) <= _MOST_KEYS else frozenset(sorted(readers)[:_MOST_KEYS])
    received = keys if named is None else named & keys
    sent = keys if authors is None else authors & keys
    out = [replace(own, tags={**wanted.tags, "p": received})] if received else []
    if sent and kinds - _WRAPS:
        out.append(replace(own, kinds=kinds - _WRAPS, authors=sent))
    return out
