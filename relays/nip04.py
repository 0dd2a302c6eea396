"""Old encrypted messages (NIP-04, kind 4), read and answered for clients that know nothing else. Pure.

The cipher alone authenticates nothing; only the signature of the event around it does, and everybody sees who writes
to whom. So what comes this way is passed on with its origin, and no money moves on its word.
"""

from core.error import InvalidInput
from core.identifier import PubKey
from relays.error import NotForUs
from relays.event import Draft, Event
from relays.kind import LEGACY_DM
from relays.signer import Signer

MAX_PAYLOAD = 60_000


async def legacy_draft(signer: Signer, receiver: PubKey, text: str, created_at: int) -> Draft:
    """An encrypted message, not yet signed.

    Raises:
        InvalidInput: the text is too long for one event, or the receiver is not a key.
        SignerUnavailable: as `Signer.encrypt_legacy`.
    """
    content = await signer.encrypt_legacy(receiver, text)
    if len(content) > MAX_PAYLOAD:
        raise InvalidInput("The message is too long for one event.")
    return Draft(LEGACY_DM, content, (("p", receiver),), created_at)


def receiver_of(event: Event) -> str | None:
    """Whom a kind-4 event is for: its one `p` tag. None if it names nobody or several."""
    named = event.values("p")
    return named[0] if len(set(named)) == 1 else None


async def read_legacy(signer: Signer, event: Event) -> str:
    """The text of a verified kind-4 event to us.

    Raises:
        NotForUs: it is of another kind, too long, or not encrypted to us.
        SignerUnavailable: as `Signer.decrypt_legacy`.
    """
    if event.kind != LEGACY_DM or len(event.content) > MAX_PAYLOAD or "?iv=" not in event.content:
        raise NotForUs("This is no message after NIP-04.")
    return await signer.decrypt_legacy(event.pubkey, event.content)
