"""Receipts of jobs that were paid: gives ours to the world, and looks for others' before a seller is judged.

A receipt of somebody else counts once its coins were found taken by the seller, at a mint that we trust anyway: no
other mint is asked for anything on a stranger's word. What was found is kept coin by coin: nothing counts twice.
"""

import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from core.clock import Clock
from core.error import Conflict, Unavailable, VendoError
from core.identifier import PubKey
from core.money import Msat
from core.unit import Among, Insert, Row, UnitOfWork, Value, Write
from dvm import reputation
from dvm.fraud import FRAUD, Finding, Proof, examine, fraud_draft, read_fraud, told
from dvm.job import Funds, Purchase, State
from dvm.receipt import NAMESPACE, Receipt, Verdict, claim_text, read_receipt, receipt_draft
from dvm.renown import MOST_AGE_S, Deal, Standing, standing
from dvm.view import PurchaseView
from relays.error import MalformedEvent
from relays.event import Event
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import LABEL, is_result
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.model import Locked
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

TABLE = "receipt"
MOST_LABELS = 200  # of one seller that are asked for at once, the newest first
MOST_PAGES = 5
MOST_REFUSED = 20_000  # what did not count is not checked again, as long as the process runs
AHEAD_S = 300  # clocks differ by so much
MOST_CHECKS = 50  # so many are checked at mints in one look
FETCH_S = 3.0
FRESH_S = 3_600.0
MOST_SELLERS = 1_000


class Reviewing:
    """Publishes and collects receipts.

    Args:
        unit: the database.
        pool: relays that are asked for receipts.
        outbox: sends ours.
        wallet: holds what was paid with, and asks mints.
        keyring: its node key signs receipts, its refund keys say that the coins were ours.
        clock: time.
        publish: whether ours are published.
        proof: shows a fraud of a job's seller.
        condemn: told of each seller of which a fraud is found proven, and why.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        keyring: Keyring,
        clock: Clock,
        *,
        publish: bool = True,
        proof: Callable[[Purchase], Proof] | None = None,
        condemn: Callable[[str, str], None] = lambda seller, why: None,
    ) -> None:
        self._unit, self._pool, self._outbox, self._wallet = unit, pool, outbox, wallet
        self._keyring, self._clock, self._publish = keyring, clock, publish
        self._proof, self._condemn = proof, condemn
        self._looked: dict[str, float] = {}
        self._refused: dict[str, None] = {}

    # ---- ours

    async def closing(self, view: PurchaseView) -> Sequence[Write]:
        """What is committed with the end of a job's money: our receipt on its way, if the seller took the money."""
        job = view.purchase
        if job.fault == FRAUD:
            return self._accusing(job)
        paid = job.payment
        if not self._publish or job.private or paid is None or not paid.quote or job.money is not Funds.CLAIMED:
            return ()
        delivered = _delivered(view)
        if not delivered and (job.copied or job.verdict is reputation.Verdict.NONE):
            return ()  # we ended it ourselves, or may have had the result before the node was restored
        found = await self._wallet.find(paid.op_id)
        if found is None or not isinstance(found.result, Locked):
            return ()
        node = self._keyring.node
        claim = sha256(claim_text(job.request_id, node.pubkey).encode()).digest()
        try:
            draft = receipt_draft(
                verdict=Verdict.DELIVERED if delivered else Verdict.UNDELIVERED,
                kind=job.kind,
                quote=paid.quote,
                payload=found.result.payload,
                claim=self._keyring.key("refund", paid.op_id).sign_digest(claim).hex(),
                created_at=self._clock.now(),
            )
        except VendoError as error:
            log.info("No receipt was made: %s", error.code, extra={"action": "receipt_skipped"})
            return ()
        return self._outbox.rows(node.sign(draft), job.effect_id)

    def _accusing(self, job: Purchase) -> Sequence[Write]:
        """The proof of a fraud, kept and on its way to the relays, where we publish what sellers did."""
        if self._proof is None:
            return ()
        try:
            proof = self._proof(job)
            label = self._keyring.node.sign(fraud_draft(proof, self._clock.now()))
        except VendoError as error:
            log.info("No fraud was shown: %s", error.code, extra={"action": "fraud_unshown"})
            return ()
        kept = _fraud_row(examine(proof), label)
        return (kept, *(self._outbox.rows(label, job.effect_id) if self._publish else ()))

    # ---- others'

    async def standing(self, seller: PubKey) -> Standing:
        """What is thought of a seller, after a look at the relays if the last one is an hour old."""
        if self._clock.monotonic() - self._looked.get(seller, -FRESH_S) >= FRESH_S:
            await self._look(seller)
        return await self.known(seller)

    async def known(self, seller: PubKey) -> Standing:
        """The same from what was found before; nobody is asked."""
        rows = await self._unit.select(TABLE, {"seller": seller})
        deals: dict[str, Deal] = {}
        frauds = [row["y"] for row in rows if row["verdict"] == FRAUD]
        for row in rows:
            if row["verdict"] == FRAUD:
                continue
            amount = int(row["amount_msat"])
            if (deal := deals.get(row["event_id"])) is not None:
                amount += deal.amount.value
            deals[row["event_id"]] = Deal(row["buyer"], Verdict(row["verdict"]), Msat(amount), int(row["created_at"]))
        return standing(deals.values(), self._clock.now(), frauds)

    async def shown(self, seller: PubKey, look: bool) -> dict[str, Any]:
        """The same as plain values, with the receipts that count; `look`: relays and mints may be asked."""
        now = await (self.standing(seller) if look else self.known(seller))
        rows = await self._unit.select(TABLE, {"seller": seller})
        return {
            "seller": seller,
            "score": now.score,
            "delivered_msat": now.delivered.value,
            "undelivered_msat": now.undelivered.value,
            "buyers": now.buyers,
            "deals": now.deals,
            "frauds": list(now.frauds),
            "reasons": list(now.reasons),
            "receipts": _receipts(rows),
        }

    async def _look(self, seller: PubKey) -> None:
        self._looked.pop(seller, None)
        self._looked[seller] = self._clock.monotonic()
        while len(self._looked) > MOST_SELLERS:
            del self._looked[next(iter(self._looked))]
        # Asked for by their word, or who deceives could bury them under labels of his own.
        for event in await self._page(seller, self._clock.now() + AHEAD_S, FRAUD):
            await self._weigh(event, seller)
        left, until = MOST_CHECKS, self._clock.now() + AHEAD_S
        for _ in range(MOST_PAGES):
            page = await self._page(seller, until)
            for event in page:
                receipt = await self._weigh(event, seller)
                if receipt is None or await self._is_known(receipt):
                    continue
                if not left:
                    return
                left -= 1
                await self._judge(receipt)
            if len(page) < MOST_LABELS:
                return
            # Relays hold different labels: each has shown all of its own down to here, and what is newer is known.
            oldest = page[MOST_LABELS - 1].created_at
            until = oldest if oldest < until else until - 1

    async def _page(self, seller: PubKey, until: int, word: str = "") -> list[Event]:
        words = {"l": frozenset({word})} if word else {}
        wanted = Filter(
            kinds=frozenset({LABEL}),
            tags={"L": frozenset({NAMESPACE}), "p": frozenset({seller}), **words},
            since=self._clock.now() - MOST_AGE_S,
            until=until,
            limit=MOST_LABELS,
        )
        return await self._pool.fetch([wanted], FETCH_S)

    async def _judge(self, receipt: Receipt) -> None:
        try:
            await self._check(receipt)
        except Unavailable as error:
            log.info("A receipt was not checked: %s", error.code, extra={"action": "receipt_unchecked"})
        except (VendoError, MalformedEvent) as error:
            self._refuse(receipt.event_id)
            log.info("A receipt does not count: %s", error.code, extra={"action": "receipt_refused"})

    def _refuse(self, event_id: str) -> None:
        """Remember it: whoever publishes what does not count does not keep us from what does."""
        self._refused[event_id] = None
        while len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    async def _weigh(self, event: Event, seller: PubKey) -> Receipt | None:
        """A label's receipt, for the mint to judge. A proof of fraud needs nobody: it is judged here, and kept."""
        if FRAUD not in event.values("l"):
            return self._read(event, seller)
        if event.id in self._refused or event.created_at > self._clock.now() + AHEAD_S:
            return None
        self._refuse(event.id)  # whatever comes of it, it is not looked at again
        try:
            finding = read_fraud(event)
        except MalformedEvent:
            return None
        if finding.seller != seller or not finding.proven:
            log.info("A proof of fraud proves nothing", extra={"action": "fraud_refused"})
            return None
        await self._unit.commit([_fraud_row(finding, event)])
        self._condemn(seller, told(finding.result_id))
        return None

    def _read(self, event: Event, seller: PubKey) -> Receipt | None:
        if event.id in self._refused or event.created_at > self._clock.now() + AHEAD_S:
            return None
        try:
            receipt = read_receipt(event)
        except MalformedEvent:
            self._refuse(event.id)
            return None
        return receipt if receipt.seller == seller else None

    async def _is_known(self, receipt: Receipt) -> bool:
        ys = tuple(proof.y for proof in receipt.payment.proofs)
        return bool(await self._unit.select(TABLE, {"y": Among(ys)}))

    async def _check(self, receipt: Receipt) -> None:
        """Ask the mint, and keep what it confirms.

        Raises:
            NotProven, TokenRejected: it does not.
            Unavailable: it does not answer, or no relay does that could show a result.
        """
        await self._wallet.proven(receipt.payment, receipt.wallet_key)
        if receipt.verdict is Verdict.UNDELIVERED and await self._has_result(receipt):
            self._refuse(receipt.event_id)
            log.info("A result contradicts a receipt", extra={"action": "receipt_contested"})
            return
        rows = [
            Insert(
                TABLE,
                {
                    "y": proof.y,
                    "event_id": receipt.event_id,
                    "seller": receipt.seller,
                    "buyer": receipt.buyer,
                    "verdict": receipt.verdict.value,
                    "amount_msat": Msat.of_sat(proof.amount).value,
                    "mint": receipt.payment.mint,
                    "created_at": receipt.created_at,
                },
            )
            for proof in receipt.payment.proofs
        ]
        try:
            await self._unit.commit(rows)
        except Conflict:
            log.info("Coins of a receipt are known", extra={"action": "receipt_repeated"})

    async def _has_result(self, receipt: Receipt) -> bool:
        """Whether the seller's signed result stands on the relays: then one word stands against the other.

        Of whatever kind: what the accuser says of that is only his word. The receipt itself is asked for as well, since
        it shows that a relay has answered.

        Raises:
            Unavailable: none has.
        """
        told = Filter(authors=frozenset({receipt.seller}), tags={"e": frozenset({receipt.request_id})})
        found = await self._pool.fetch([told, Filter(ids=frozenset({receipt.event_id}))], FETCH_S)
        if any(is_result(one.kind) and one.pubkey == receipt.seller for one in found):
            return True
        if not any(one.id == receipt.event_id for one in found):
            raise Unavailable("No relay answered whether the seller had delivered.")
        return False


def _delivered(view: PurchaseView) -> bool:
    """Whether the seller that took the money delivered; a built-in provider that stepped in does not count for it."""
    job = view.purchase
    return job.state is State.DELIVERED and job.payment is not None and job.seller == job.payment.seller


def _fraud_row(finding: Finding, label: Event) -> Insert:
    """A proven fraud, once for each result. It stands among receipts, under the result's id."""
    row: dict[str, Value] = {
        "y": finding.result_id,
        "event_id": label.id,
        "seller": finding.seller,
        "buyer": label.pubkey,
        "verdict": FRAUD,
        "amount_msat": 0,
        "mint": "",
        "created_at": label.created_at,
    }
    return Insert(TABLE, row, or_ignore=True)


def _receipts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = found.setdefault(
            row["event_id"],
            {
                "event_id": row["event_id"],
                "buyer": row["buyer"],
                "verdict": row["verdict"],
                "amount_msat": 0,
                "mint": row["mint"],
                "created_at": int(row["created_at"]),
            },
        )
        one["amount_msat"] += int(row["amount_msat"])
    return sorted(found.values(), key=lambda one: -one["created_at"])
