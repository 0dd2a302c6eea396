"""A key of this process as a `Signer`: it signs events of the kinds it was given for, and no bytes of anybody's making.

Pure: nothing here waits, though the protocol is asynchronous because other signers are far away (NIP-46).
"""

from core.identifier import PubKey
from relays.error import KindForbidden
from relays.event import Draft, Event
from relays.key import Key

KindSet = frozenset[int]


class KeySigner:
    """A `Signer` over a local key.

    Args:
        key: signs and decrypts; it never leaves this object.
        kinds: what it signs; None is every kind.
    """

    __slots__ = ("_key", "_kinds")

    def __init__(self, key: Key, kinds: KindSet | None = None) -> None:
        self._key, self._kinds = key, kinds

    def __repr__(self) -> str:
        return f"KeySigner({self._key.pubkey})"

    @property
    def pubkey(self) -> PubKey:
        """Whose signatures these are."""
        return self._key.pubkey

    async def sign(self, draft: Draft) -> Event:
        """Sign an event (NIP-01).

        Raises:
            KindForbidden: this identity does not sign events of that kind.
        """
        if self._kinds is not None and draft.kind not in self._kinds:
            raise KindForbidden(f"This identity does not sign events of kind {draft.kind}.")
        return self._key.sign(draft)

    async def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44 version 2, at most 65,408 bytes.

        Raises:
            InvalidInput: the text is empty or too long, or the peer is no point on the curve.
        """
        return self._key.encrypt(peer, text)

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt`.

        Raises:
            NotForUs: the payload is not from that peer to us, or was changed.
        """
        return self._key.decrypt(peer, payload)

    async def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """NIP-04, for people whose clients know nothing else.

        Raises:
            InvalidInput: the peer is no point on the curve.
        """
        return self._key.encrypt_legacy(peer, text)

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt_legacy`; raises as `decrypt`."""
        return self._key.decrypt_legacy(peer, payload)
