"""What can go wrong with Nostr: whose fault it is stands in the type.

VendoError
├── MalformedEvent    nostr.malformed     400  not an event at all
├── ForgedEvent       nostr.forged        400  an event whose id or signature is wrong
├── MalformedSync     nostr.sync          400  a NIP-77 message or item that is none
├── NotForUs          nostr.undecryptable 400  a wrap or payload that our key does not open, or that lies
├── WrongPassphrase   key.passphrase      403  an encrypted key (NIP-49) does not open with this passphrase
├── KindForbidden     signer.kind         403  this identity does not sign events of that kind
└── SignerUnavailable signer.unavailable  503  a remote signer (NIP-46) did not answer, or refused
"""

from core.error import InvalidInput, Refused, Unavailable


class MalformedEvent(InvalidInput):
    """This is not a Nostr event (NIP-01)."""

    code = "nostr.malformed"


class ForgedEvent(InvalidInput):
    """The event's id or signature does not match its content."""

    code = "nostr.forged"
    remedy = "Ignore it, and distrust the relay that sent it."


class MalformedSync(InvalidInput):
    """This is not a Negentropy message (NIP-77)."""

    code = "nostr.sync"
    remedy = "Read the events by paging instead."


class NotForUs(InvalidInput):
    """The message cannot be opened with our key, or its sender is not who it claims to be."""

    code = "nostr.undecryptable"


class KindForbidden(Refused):
    """This identity does not sign events of that kind."""

    code = "signer.kind"
    remedy = "Sign another kind, or allow this one where the identity was given."


class SignerUnavailable(Unavailable):
    """The remote signer (NIP-46) did not answer, or refused."""

    code = "signer.unavailable"
    remedy = "See that the signer runs, reads the relay in its address, and still trusts this node; then try again."


class WrongPassphrase(Refused):
    """The passphrase does not open the encrypted key (NIP-49)."""

    code = "key.passphrase"
    remedy = "Give the passphrase that it was encrypted with; without it only the seed words bring the keys back."
