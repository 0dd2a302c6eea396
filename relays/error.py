"""What can go wrong with Nostr: whose fault it is stands in the type.

VendoError
├── MalformedEvent    nostr.malformed     400  not an event at all
├── ForgedEvent       nostr.forged        400  an event whose id or signature is wrong
├── NotForUs          nostr.undecryptable 400  a wrap or payload that our key does not open, or that lies
└── RelayUnreachable  relay.unreachable   503
"""

from core.error import InvalidInput, Unavailable


class MalformedEvent(InvalidInput):
    """This is not a Nostr event (NIP-01)."""

    code = "nostr.malformed"


class ForgedEvent(InvalidInput):
    """The event's id or signature does not match its content."""

    code = "nostr.forged"
    remedy = "Ignore it, and distrust the relay that sent it."


class NotForUs(InvalidInput):
    """The message cannot be opened with our key, or its sender is not who it claims to be."""

    code = "nostr.undecryptable"


class RelayUnreachable(Unavailable):
    """The relay does not answer."""

    code = "relay.unreachable"
