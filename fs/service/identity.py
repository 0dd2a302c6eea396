"""/identity: who this is on Nostr. Keys sign events of known form elsewhere; nothing here signs raw bytes."""

from core.identifier import PubKey
from fs.session import Session
from fs.tree import File, Folder, Tree, text_bytes
from relays.key import npub


def identity_service(pubkey: PubKey) -> Tree:
    """The service at `/identity`."""

    async def as_hex(session: Session) -> bytes:
        return text_bytes(pubkey)

    async def as_npub(session: Session) -> bytes:
        return text_bytes(npub(pubkey))

    return Tree(
        Folder(
            "Who this is on Nostr.",
            {
                "pubkey": File("the public key, 64 hex digits", read=as_hex),
                "npub": File("the public key, in NIP-19 form", read=as_npub),
            },
        )
    )
