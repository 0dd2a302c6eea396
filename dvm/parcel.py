"""Results that are too large for an event: what both sides keep of them, and what they need to move them. Pure.

A seller encrypts such a result and puts it on its file servers; the event holds a pointer (`relays.blob`). A buyer
fetches the bytes when they are its own to fetch, and keeps the text in a file beside its database.
"""

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from relays.blob import KEY_BYTES, NONCE_BYTES, Pointer, place
from relays.key import Keyring

BLOB = "blob"  # the purpose in `Keyring`
INLINE_BYTES = 32_768
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that came by file servers: sha256 of the text, its bytes, what it is. A long one lies in a file."""

    ox: str
    size: int
    mime: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A large result of ours on its way to our servers. Its key follows from our seed: it is stored nowhere.

    Attributes:
        x: sha256 of the encrypted bytes.
        ox: sha256 of the text.
        size: encrypted bytes.
        mime: what the text is.
    """

    x: str
    ox: str
    size: int
    mime: str


def keys_of(keyring: Keyring, request_id: str, ox: str) -> tuple[bytes, bytes]:
    """Key and nonce for one text of one job: never used for another, and the same if the work was done twice."""
    key = keyring.derive(BLOB, f"{request_id}:{ox}:key")
    return key[:KEY_BYTES], keyring.derive(BLOB, f"{request_id}:{ox}:nonce")[:NONCE_BYTES]


def pointer_to(packed: Packed, servers: Collection[str], keyring: Keyring, request_id: str) -> Pointer:
    """The pointer to a result that these servers have, its key in it."""
    key, nonce = keys_of(keyring, request_id, packed.ox)
    urls = tuple(place(server, packed.x) for server in servers)
    return Pointer(urls, packed.x, packed.size, packed.mime, nonce, packed.ox, key)


def kept_of(data: bytes, mime: str) -> Kept:
    """What is remembered of a text that is kept in a file."""
    return Kept(sha256(data).hexdigest(), len(data), mime)


class Servers(Protocol):
    """File servers, ours and others' (BUD-01, BUD-02): `node.message.blossom.Blossom`."""

    @property
    def servers(self) -> tuple[str, ...]:
        """Our own, the most trusted first."""

    async def has(self, server: str, x: str) -> bool:
        """Whether a server says that it has a blob.

        Raises:
            Unavailable: it did not answer.
        """

    async def store(self, server: str, x: str, stored: bytes) -> None:
        """Put a blob on a server of ours.

        Raises:
            Unavailable: it did not take it.
        """

    async def fetch(self, url: str, most: int, within_s: float) -> bytes:
        """What an address answers. A stranger's leads only into the public internet.

        Raises:
            Unavailable: it did not answer in time, or not well.
            InvalidInput: it is longer than `most` bytes.
        """


class Files(Protocol):
    """Files beside the database: `node.message.shelf.Shelf`."""

    @property
    def check(self) -> Callable[[], None]:
        """Raises a `VendoError` if nothing is to be written now: the disk is nearly full."""

    async def put(self, agent: str, ox: str, data: bytes) -> None:
        """Keep a file; the oldest go if there are too many.

        Raises:
            VendoError: the disk does not take it.
        """

    async def get(self, agent: str, ox: str) -> bytes | None:
        """A file, or None if it is not there (any more)."""

    async def is_there(self, agent: str, ox: str) -> bool:
        """Whether there is such a file."""

    def pieces(self, agent: str, ox: str) -> AsyncIterator[bytes]:
        """A file in pieces.

        Raises:
            NotFound: it is not there (any more).
        """

    async def hold(self, x: str, stored: bytes) -> None:
        """Keep what is on its way.

        Raises:
            VendoError: the disk does not take it.
        """

    async def held(self, x: str) -> bytes | None:
        """What is on its way, or None if it is gone."""

    async def release(self, x: str) -> None:
        """It is on its way no more."""

    async def sweep(self, wanted: Collection[str], before: float) -> None:
        """Let go what lay there `before` (Unix seconds) and is not among these."""
