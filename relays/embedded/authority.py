"""Which keys a connection has proved (NIP-42), and which it may read for by key lists. Pure.

`author` keys were proved by an AUTH of their own. `readers` are those and the listed ones.
"""

from collections.abc import Collection
from dataclasses import dataclass

from yarl import URL

from core.identifier import PubKey
from relays.embedded.limit import Limits
from relays.error import ForgedEvent
from relays.event import Event, verify
from relays.keylist import KeyList
from relays.kind import CLIENT_AUTH

_SKEW_S = 600
_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Name:
    """A host and a port under which the relay is known."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Name | None":
        """From an address; None if it is none."""
        try:
            parsed = URL(url.strip())
            host, port = parsed.host, parsed.port
        except (ValueError, IndexError):  # IndexError is how yarl refuses some
            return None
        if parsed.scheme not in _DEFAULT_PORTS or not host or port is None:
            return None
        # TLS may end at a proxy: ws and wss on their usual ports are the same place.
        return cls(host.lower().rstrip("."), 443 if port == _DEFAULT_PORTS[parsed.scheme] else port)


def names_of(public_url: str, address: str, port: int) -> frozenset[Name]:
    """Under which names a connection may say that it talks to this relay.

    The `Host` header is not asked: somebody in the middle writes there what he likes.

    Args:
        public_url: as configured; may be empty.
        address: where this connection arrived, as the system says.
        port: the same.
    """
    public = Name.of(public_url)
    hosts = _LOCAL if address in ("127.0.0.1", "::1", "::ffff:127.0.0.1") else (address.removeprefix("::ffff:"),)
    own = {Name(host, port) for host in hosts} | {Name(host, 443) for host in hosts if port in (80, 443)}
    return frozenset(own | ({public} if public else set()))


class Authority:
    """The keys of one connection.

    Args:
        challenge: random text, sent to the client when it connects.
        names: the relay's own names.
        limits: how many keys it may prove and list.
        trusted: nodes whose lists need no consents.
    """

    __slots__ = ("_limits", "_listed", "_names", "authors", "challenge", "readers", "trusted")

    def __init__(
        self, challenge: str, names: Collection[Name], limits: Limits, trusted: Collection[PubKey] = ()
    ) -> None:
        self.challenge, self._names, self._limits, self.trusted = challenge, names, limits, frozenset(trusted)
        self.authors: set[PubKey] = set()
        self.readers: set[PubKey] = set()
        self._listed = 0

    def prove(self, event: Event, now: int) -> str:
        """An AUTH event. Empty if its key now counts as proved, else the reason why not."""
        reason = self._fault(event, now)
        if reason:
            return reason
        if event.pubkey not in self.authors and len(self.authors) >= self._limits.keys:
            return f"restricted: {self._limits.keys} keys are authenticated on this connection already"
        try:
            verify(event)
        except ForgedEvent:
            return "invalid: the id or the signature is wrong"
        self.authors.add(event.pubkey)
        self.readers.add(event.pubkey)
        return ""

    def _fault(self, event: Event, now: int) -> str:
        if event.kind != CLIENT_AUTH:
            return "invalid: AUTH takes an event of kind 22242"
        if abs(event.created_at - now) > _SKEW_S:
            return "invalid: created_at is more than ten minutes from this relay's clock"
        if event.value("challenge") != self.challenge:
            return "invalid: this is not the challenge of this connection"
        return "" if self.is_here(event.value("relay") or "") else "invalid: this is for another relay"

    def is_here(self, url: str) -> bool:
        """Whether an address names this relay."""
        name = Name.of(url)
        return name is not None and name in self._names

    def refuse_list(self, listed: KeyList) -> str:
        """Why a key list is not looked at; empty if its signatures are worth checking."""
        if listed.node not in self.authors:
            return "auth-required: first the AUTH of the key that signed the list"
        if not self.is_here(listed.relay):
            return "invalid: this list is for another relay"
        if self._listed + len(listed.bare) + len(listed.consents) > self._limits.listed_keys:
            return f"restricted: one connection may list {self._limits.listed_keys} keys"
        return ""

    def admit(self, keys: Collection[PubKey]) -> None:
        """These keys of a list were proved."""
        self._listed += len(keys)
        self.readers.update(keys)
