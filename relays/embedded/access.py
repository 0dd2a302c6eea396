"""Who may write, read and connect, as data. Pure.

A relay without any of this is open: everybody writes and reads, private messages excepted.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from core.identifier import PubKey

Way: TypeAlias = Literal["key", "pow", "payment"]
Reading: TypeAlias = Literal["open", "auth", "key"]
# Events that belong in no relay: seals, AUTH to relays, media servers and HTTP, key lists and consents.
NEVER_STORED = frozenset({13, 22_242, 22_243, 22_244, 24_242, 27_235})


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one relay.

    Attributes:
        write_by: ways to be allowed to write, any of which is enough; none is everybody.
            `key`: the author is in `keys`, or it is a gift wrap to one of them. `pow`: NIP-13, at least `pow_bits`.
            `payment`: the author has paid.
        keys: public keys that belong to this relay.
        denied_keys: authors whose events and AUTH are refused.
        kinds: ranges of kinds that are taken, both ends included; none is every kind.
        denied_kinds: ranges that are not.
        addresses: networks (`10.0.0.0/8`) that may connect; none is every network.
        denied_addresses: networks that may not.
        pow_bits: leading zero bits that an event's id needs, for `pow`.
        read_by: `open`, `auth` (any proved key) or `key` (a proved key out of `keys`).
        auth_to_write: whether writers must have proved a key, whosever event it is.
        private: whether kinds 4, 1059 and 21059 are handed out to their parties only. Turn it off only where nobody
            but you can connect.
        trusted: nodes whose key lists are believed without consents.
        proxies: networks of your own reverse proxies, whose X-Forwarded-For header is believed.
        price_msat: what `payment` costs; 0 is nothing.
        paid_days: for how many days.
    """

    write_by: tuple[Way, ...] = ()
    keys: frozenset[PubKey] = frozenset()
    denied_keys: frozenset[PubKey] = frozenset()
    kinds: tuple[tuple[int, int], ...] = ()
    denied_kinds: tuple[tuple[int, int], ...] = ()
    addresses: tuple[str, ...] = ()
    denied_addresses: tuple[str, ...] = ()
    pow_bits: int = 0
    read_by: Reading = "open"
    auth_to_write: bool = False
    private: bool = True
    trusted: frozenset[PubKey] = frozenset()
    proxies: tuple[str, ...] = ()
    price_msat: int = 0
    paid_days: int = 30


def takes_kind(access: Access, kind: int) -> bool:
    """Whether events of this kind are taken at all."""
    if kind in NEVER_STORED:
        return False
    if access.denied_kinds and any(low <= kind <= high for low, high in access.denied_kinds):
        return False
    return not access.kinds or any(low <= kind <= high for low, high in access.kinds)


def pow_of(event_id: str) -> int:
    """Leading zero bits of an event's id (NIP-13)."""
    return 256 - int(event_id, 16).bit_length()


def committed_pow(tags: tuple[tuple[str, ...], ...]) -> int:
    """The difficulty that the author aimed at, from the `nonce` tag (NIP-13); 0 if it says none."""
    for tag in tags:
        if tag[0] == "nonce" and len(tag) > 2 and tag[2].isascii() and tag[2].isdigit() and len(tag[2]) <= 3:
            return int(tag[2])
    return 0
