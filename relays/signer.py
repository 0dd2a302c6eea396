"""Who signs and decrypts: a key of ours, or one that lives elsewhere (NIP-46). Events only, never raw bytes."""

from typing import Protocol

from core.identifier import PubKey
from relays.event import Draft, Event


class Signer(Protocol):
    """An identity that can be asked, wherever its secret is."""

    @property
    def pubkey(self) -> PubKey:
        """Whose signatures these are."""

    async def sign(self, draft: Draft) -> Event:
        """Sign an event (NIP-01).

        Raises:
            KindForbidden: this identity does not sign events of that kind.
            SignerUnavailable: the remote signer did not answer, or refused.
        """

    async def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44 version 2, at most 65,408 bytes."""

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt`.

        Raises:
            NotForUs: the payload is not from that peer to us, or was changed.
            SignerUnavailable: as above.
        """

    async def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """NIP-04, for people whose clients know nothing else."""

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt_legacy`; raises as `decrypt`."""
