"""M1 to M6 of what is paid in the new ways: money for keys of sealed results, and invoices."""

from abc import ABC, abstractmethod
from typing import Any

from dvm.job import Purchase
from dvm.settlement import COSIGN_MARGIN_S, MODE_A, MODE_B
from tests.simulation.pure.lightning import read
from tests.simulation.pure.mint import Mint
from tests.simulation.pure.sealing import Seal
from tests.simulation.pure.world import World
from wallet.invoice import MAINNET


class Payments(ABC):
    """A part of the judge."""

    world: World
    jobs: dict[str, Any]
    ended: set[str]
    count: int

    @abstractmethod
    def breach(self, rule: str, text: str) -> None:
        """A rule is broken."""

    @abstractmethod
    def _mint_adds_up(self, mint: Mint) -> None:
        """What a mint holds is what it owes."""

    def _atomic(self, buyer: Any, purchase: Purchase, lock: Any, body: Any) -> None:
        """Money for the key of a sealed result: it is taken for that alone, in mode A with its result here."""
        payment, job = purchase.payment, purchase.job_id
        assert payment is not None
        if payment.mode != body.get("mode") or payment.mode not in buyer.asks[job].modes:
            self.breach("M2", f"{job}: paid in a mode that was not agreed")
        if lock.hash != body.get("hash"):
            self.breach("M2", f"{job}: locked to another hash than the quote's")
        if lock.cosigner != (buyer.cosign_key if payment.mode == MODE_B else ""):
            self.breach("M2", f"{job}: locked to another co-signer than ours")
        if lock.refund in (lock.cosigner, lock.key):
            self.breach("M2", f"{job}: a key of the main path can take the refund path")
        if payment.mode == MODE_A:
            self._shown(purchase, "locked for")

    def _shown(self, purchase: Purchase, what: str) -> None:
        """The sealed result that the money is for was published by its seller, and fits what is signed of it."""
        payment, job = purchase.payment, purchase.job_id
        assert payment is not None
        msg = self.world.log.get(purchase.sealed)
        if msg is None or msg.author != payment.seller or msg.signer != msg.author or type(msg.body) is not Seal:
            return self.breach("M6", f"{job}: {what} before its sealed result is here")
        if not msg.body.fits or msg.body.hash != payment.hash:
            self.breach("M6", f"{job}: {what} though the sealed result is not what was agreed")

    def cosigning(self, buyer: Any, purchase: Purchase) -> None:
        """Our signatures are about to go out: from now on the seller can take the money."""
        self.count += 1
        payment = purchase.payment
        assert payment is not None
        kept = buyer.disk[purchase.job_id]
        self._shown(kept, "signed for")
        if self.world.now > (payment.locktime - COSIGN_MARGIN_S) * 1000:
            self.breach("M2", f"{purchase.job_id}: signed for so late that the seller shows its key for nothing")

    # ---- Lightning

    def pays(self, buyer: Any, purchase: Purchase, quote: Any) -> None:
        """A payment of an invoice begins: it is the chosen seller's, in time, and for its price."""
        self.count += 1
        payment, job = purchase.payment, purchase.job_id
        assert payment is not None
        msg = self.world.log.get(payment.offer_id)
        if msg is None or msg.signer != msg.author or msg.author != payment.seller or msg.ref != purchase.request_id:
            return self.breach("M2", f"{job}: an invoice is paid that nobody offered")
        price, invoice = msg.body if type(msg.body) is tuple else (msg.body["price"], msg.body.get("invoice"))
        if invoice != payment.invoice or quote.request != invoice:
            self.breach("M2", f"{job}: another invoice is paid than was offered")
        said = read(payment.invoice)
        if said.amount_msat != price.value or payment.price != price:
            self.breach("M2", f"{job}: an invoice for {said.amount_msat} msat is paid at a price of {price.value}")
        if said.currency != MAINNET:
            self.breach("M2", f"{job}: an invoice of another network is paid")
        if said.expires_at * 1000 <= self.world.now:
            self.breach("M2", f"{job}: an invoice is paid that has ended")

    def melts(self, mint: Mint, melt: Any) -> None:
        """A mint begins to pay."""
        self.count += 1
        if melt.op in self.ended:
            self.breach("M5", f"{melt.node.name}: a payment that was given up goes out")
        stored = melt.node.purse.ops.get(melt.op)
        if stored is None:
            self.breach("M5", f"{melt.node.name}: a payment goes out that was not written down")

    def melted(self, mint: Mint, melt: Any, gross: int) -> None:
        """A mint has paid an invoice of ours."""
        self.count += 1
        self._mint_adds_up(mint)
        buyer = melt.node
        stored = buyer.purse.ops.get(melt.op)
        if stored is None or stored.subject not in self.jobs:
            return self.breach("M1", f"{buyer.name}: an invoice is paid for no job")
        job = stored.subject
        truth = self.jobs[job]
        truth.locks += 1
        truth.gross += gross
        truth.taker = "seller"
        if truth.locks > 1:
            self.breach("M1", f"{job} is paid {truth.locks} times")
        if truth.gross * 1000 > truth.limit.ceiling.value:
            self.breach("M1", f"{job}: {truth.gross} sat of {truth.limit.ceiling.value} msat reserved")
        if melt.op in truth.gave_up or melt.op in self.ended:
            self.breach("M5", f"{job}: a payment that was given up happened")

    def lightning(self, bolt11: Any) -> None:
        """An invoice was paid."""
        self.count += 1
        if bolt11.times > 1:
            self.breach("M1", f"an invoice is paid {bolt11.times} times")
