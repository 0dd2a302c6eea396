"""Signers around others: one whose key is derived when it is first needed, and one that may do less than it could."""

from collections.abc import Callable

from core.identifier import PubKey
from node.identity.error import KeysDamaged
from relays.error import KindForbidden
from relays.event import Draft, Event
from relays.key import Key
from relays.local_signer import KeySigner
from relays.signer import Signer


class HeldSigner:
    """A local key that is made when it is first used: thousands of agents start without deriving thousands of keys.

    Args:
        pubkey: whose signatures these are, as the node's records say.
        make: derives or opens the key.
    """

    __slots__ = ("_made", "_make", "_pubkey")

    def __init__(self, pubkey: PubKey, make: Callable[[], Key]) -> None:
        self._pubkey, self._make = pubkey, make
        self._made: KeySigner | None = None

    def __repr__(self) -> str:
        return f"HeldSigner({self._pubkey})"

    @property
    def pubkey(self) -> PubKey:
        """Whose signatures these are."""
        return self._pubkey

    @property
    def _signer(self) -> KeySigner:
        if self._made is None:
            key = self._make()
            if key.pubkey != self._pubkey:
                raise KeysDamaged("The node's records name another key than its words make.")
            self._made = KeySigner(key)
        return self._made

    async def sign(self, draft: Draft) -> Event:
        """Sign an event (NIP-01).

        Raises:
            KeysDamaged: the records name another key than the words make.
        """
        return await self._signer.sign(draft)

    async def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44; raises as `KeySigner.encrypt`."""
        return await self._signer.encrypt(peer, text)

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        """NIP-44; raises as `KeySigner.decrypt`."""
        return await self._signer.decrypt(peer, payload)

    async def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """NIP-04; raises as `KeySigner.encrypt_legacy`."""
        return await self._signer.encrypt_legacy(peer, text)

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """NIP-04; raises as `KeySigner.decrypt_legacy`."""
        return await self._signer.decrypt_legacy(peer, payload)


class NarrowSigner:
    """Another signer that signs these kinds alone; it decrypts as before and encrypts nothing.

    What a replaced key still is: it opens what comes late, and proves itself to relays that ask (NIP-42).
    """

    __slots__ = ("_inner", "_kinds")

    def __init__(self, inner: Signer, kinds: frozenset[int]) -> None:
        self._inner, self._kinds = inner, kinds

    def __repr__(self) -> str:
        return f"NarrowSigner({self._inner.pubkey})"

    @property
    def pubkey(self) -> PubKey:
        """Whose signatures these are."""
        return self._inner.pubkey

    async def sign(self, draft: Draft) -> Event:
        """Sign an event of an allowed kind.

        Raises:
            KindForbidden: the kind is another.
            SignerUnavailable: as the signer inside.
        """
        if draft.kind not in self._kinds:
            raise KindForbidden(f"This key was replaced: it signs no event of kind {draft.kind} any more.")
        return await self._inner.sign(draft)

    async def encrypt(self, peer: PubKey, text: str) -> str:
        """Never.

        Raises:
            KindForbidden: always.
        """
        raise KindForbidden("This key was replaced: it encrypts nothing any more.")

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        """NIP-44; raises as the signer inside."""
        return await self._inner.decrypt(peer, payload)

    async def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """Never; raises as `encrypt`."""
        return await self.encrypt(peer, text)

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """NIP-04; raises as the signer inside."""
        return await self._inner.decrypt_legacy(peer, payload)
