"""Consents that were verified, so that a node which connects again pays for its ten thousand signatures once. Pure."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from core.identifier import PubKey
from relays.error import ForgedEvent, MalformedEvent
from relays.keylist import Consent, KeyList, proved_keys

_MOST = 100_000  # about 15 MB


class Roll:
    """Verified consents by a hash over all that was signed and the signature; a list is new on every connection.

    Dates and the list's own signature are checked each time; what is saved is the consents' signatures.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def unknown(self, listed: KeyList) -> KeyList:
        """The list with the consents alone whose signatures were not verified before."""
        fresh: list[Consent] = []
        for consent in listed.consents:
            name = _name(listed, consent)
            if name in self._known:
                self._known.move_to_end(name)
            else:
                fresh.append(consent)
        return replace(listed, consents=tuple(fresh))

    def remember(self, listed: KeyList) -> None:
        """These were verified; those that were not used for longest go first."""
        self._known.update((_name(listed, consent), None) for consent in listed.consents)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)


def _name(listed: KeyList, consent: Consent) -> bytes:
    parts: Iterable[str] = (
        listed.node,
        consent.pubkey,
        str(consent.issued_at),
        str(consent.expires_at),
        consent.sig,
        listed.relay,  # last: the others hold no blank
    )
    return sha256(" ".join(parts).encode()).digest()


def keys_of(listed: KeyList) -> frozenset[PubKey]:
    """Every key on a list."""
    return frozenset((*listed.bare, *(one.pubkey for one in listed.consents)))


def check(listed: KeyList, trusted: frozenset[PubKey]) -> str:
    """Why a list is refused, or nothing. For a thread: each consent takes 30 µs."""
    try:
        proved_keys(listed, trusted)
    except (ForgedEvent, MalformedEvent) as error:
        return f"invalid: {error.message}"
    return ""
