"""Receipts for tests: a seller's signed quote, coins locked to its wallet key, and the buyer's label about both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from core.money import Msat
from dvm.receipt import Verdict, claim_text, receipt_draft, wallet_text
from relays.event import Draft, Event
from relays.key import Key
from relays.nip90 import Input, PayMethod, quote_draft, read_request, request_draft

NOW = 1_800_000_000
KIND = 5001


@dataclass
class Bargain:
    """One job between a buyer and a seller; every key may be replaced by a wrong one."""

    mint: str
    wallet_key: str
    wallet: Key | None = None  # signs the quote as the holder of the wallet key; without it nobody does
    buyer: Key = field(default_factory=Key.generate)
    seller: Key = field(default_factory=Key.generate)
    hash: str = ""  # for a sealed result

    @property
    def request(self) -> Event:
        draft = request_draft(kind=KIND, inputs=[Input("text")], created_at=NOW, mints=[self.mint])
        return self.buyer.sign(draft)

    @property
    def method(self) -> PayMethod:
        if not self.hash:
            return PayMethod("cashu", self.mint, "sat", self.wallet_key)
        return PayMethod("htlc", self.mint, "sat", self.wallet_key, "B", self.hash, self.seller.compressed)

    def quote(self, request: Event) -> Event:
        draft = quote_draft(
            request=read_request(request), quote_id="q", amount=Msat(10_000), expires_at=NOW + 60, eta_s=1,
            methods=[self.method], created_at=NOW,
        )  # fmt: skip
        if self.wallet is not None:
            held = self.wallet.sign_digest(sha256(wallet_text(self.seller.pubkey, "q").encode()).digest()).hex()
            draft = replace(draft, tags=(*draft.tags, ("walletsig", held)))
        return self.seller.sign(draft)

    def receipt(
        self, payload: Mapping[str, Any], refund: Key, verdict: Verdict = Verdict.DELIVERED, by: Key | None = None
    ) -> Event:
        """The label for `payload`, whose coins go back to `refund`; signed by the buyer or somebody else."""
        author = by or self.buyer
        request = self.request
        text = claim_text(request.id, author.pubkey)
        draft = receipt_draft(
            verdict=verdict, kind=KIND, quote=self.quote(request).to_json(), payload=payload,
            claim=refund.sign_digest(sha256(text.encode()).digest()).hex(), created_at=NOW,
        )  # fmt: skip
        return author.sign(draft)


def changed(
    event: Event, author: Key, *, content: str | None = None, tags: Sequence[Sequence[str]] | None = None
) -> Event:
    """The same label with other words, signed anew."""
    kept = event.tags if tags is None else tuple(tuple(tag) for tag in tags)
    return author.sign(Draft(event.kind, event.content if content is None else content, kept, event.created_at))
