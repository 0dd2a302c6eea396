"""Sealed results for tests: an honest seller's, and those of one that lies about what is in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dvm.making
from dvm.fraud import Proof
from dvm.seal import Pair, Sealed, hash_of, seal
from relays.event import Event
from relays.key import Key
from relays.nip90 import Input, Seal, read_request, request_draft, result_draft

NOW = 1_800_000_000
_SELLER, _BUYER, _OURS, _THEIRS = (Key(bytes([number]) * 32) for number in range(1, 5))


@dataclass
class Swap:
    """One job whose sealed result was paid for."""

    text: str = "what was asked for"
    seller: Key = _SELLER
    buyer: Key = _BUYER
    ours: Key = _OURS  # the buyer's half of the seal
    theirs: Key = _THEIRS  # the seller's
    preimage: bytes = b"\5" * 32
    question: str = "a question"

    @property
    def request(self) -> Event:
        draft = request_draft(
            kind=5050, inputs=[Input(self.question)], created_at=NOW, modes=("B",),
            jobkey=(self.ours.compressed, Key(b"\6" * 32).compressed),
        )  # fmt: skip
        return self.buyer.sign(draft)

    @property
    def pair(self) -> Pair:
        return Pair(self.theirs, self.ours.compressed, self.request.id)

    def sealed(self) -> Sealed:
        return seal(self.text, self.preimage, self.pair)

    def result(self, sealed: Sealed | None = None, **changes: str) -> Event:
        """The result, with an honest seal or another one."""
        made = sealed or self.sealed()
        tag = replace(Seal(hash_of(self.preimage), "B", made.ct_hash, made.pt_hash, self.pair.public), **changes)
        request = read_request(self.request)
        return self.seller.sign(result_draft(request=request, content=made.content, created_at=NOW, seal=tag))

    def lie(self) -> Event:
        """Something else than what the seller signs for."""
        junk = seal("junk", self.preimage, self.pair)
        return self.result(replace(junk, pt_hash=self.sealed().pt_hash))

    def proof(self, result: Event) -> Proof:
        return Proof(result, self.preimage, self.ours.secret)


@contextmanager
def lying_sellers() -> Iterator[None]:
    """Whoever sells meanwhile seals junk, and signs the hash of what was asked for."""
    honest = dvm.making.seal

    def junk(text: str, preimage: bytes, pair: Pair) -> Sealed:
        return replace(honest("junk", preimage, pair), pt_hash=honest(text, preimage, pair).pt_hash)

    dvm.making.seal = junk
    try:
        yield
    finally:
        dvm.making.seal = honest
