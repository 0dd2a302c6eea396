"""M1 to M8 (DESIGN §6) from facts: what was published and by whom it was really signed, and what the mints did.

Every check is made when its fact comes to be, so that each event is judged and none costs more than a look or two.
The nodes' own values are only what is judged.
"""

from typing import Any

from core.money import Msat
from dvm.job import ENDED, FINAL, Funds, Purchase
from dvm.job import State as Job
from dvm.policy import MARKET
from dvm.sale import CLAIM_MARGIN_S
from dvm.seller import ENDED as SALE_ENDED
from dvm.seller import Claimed, CreditSpent, CreditTaken, InvoicePaid, Sale, State
from dvm.settlement import CLAIM_NEED_S, COSIGN_MARGIN_S, MODE_A, MODE_B, Method
from tests.simulation.pure.lightning import read
from tests.simulation.pure.mint import Mint, Output, hash_of
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.sealing import ORDER, Seal
from tests.simulation.pure.seller import ALLOWED, ETA_S
from tests.simulation.pure.world import Msg, World
from wallet.cashu.port import MeltState
from wallet.invoice import MAINNET
from wallet.payment import Kind
from wallet.payment import State as Op

SOLD = SALE_ENDED | {State.SEEN}
RULES = ("M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8")


class Truth:
    """What really became of one job's money."""

    __slots__ = (
        "back",
        "chosen_at",
        "gave_up",
        "gross",
        "limit",
        "locks",
        "melts",
        "price",
        "request",
        "result",
        "taker",
        "wraps",
    )

    def __init__(self, limit: Any) -> None:
        self.limit = limit
        self.locks = self.gross = self.back = 0  # sat
        self.taker = ""
        self.wraps: list[Msg] = []
        self.gave_up: set[str] = set()
        self.chosen_at = 0
        self.melts = 0


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.breaches: list[tuple[str, str]] = []
        self.jobs: dict[str, Truth] = {}
        self.quotes: dict[tuple[str, str], Msg] = {}
        self.refunds: dict[str, str] = {}  # refund key: job
        self.wraps: dict[str, list[Msg]] = {}  # by request
        self.results: set[tuple[str, str]] = set()
        self.payers: dict[str, str] = {}  # coin: the request that a seller worked for it
        self.claims: dict[str, tuple[str, str]] = {}  # coin: seller and request that it pays
        self.waiting: dict[tuple[str, str], int] = {}  # quotes open for a key at a seller
        self.worked: dict[tuple[str, str], list[int]] = {}
        self.ended: set[str] = set()  # melts that were given up
        self.unpaid: dict[tuple[str, str], int] = {}  # orders that a seller works unpaid, by customer
        self.count = 0

    def breach(self, rule: str, text: str) -> None:
        self.breaches.append((rule, text))
        if self.world.story is not None:
            self.world.tell(f"*** {rule} is broken: {text}")

    # ---- published

    def stored(self, msg: Msg) -> None:
        self.count += 1
        kind = msg.kind
        if kind == "quote":
            if msg.signer == msg.author:
                self.quotes[msg.author, msg.body["id"]] = msg
        elif kind == "wrap":
            self.wraps.setdefault(msg.ref, []).append(msg)
        elif kind == "result":
            seller = self.world.by_key.get(msg.author)
            if seller is not None and seller.role == "seller" and msg.signer == msg.author:
                if (msg.author, msg.ref) in self.results:
                    self.breach("M6", f"{seller.name} said two results to {msg.ref}")
                self.results.add((msg.author, msg.ref))

    # ---- the mints

    def minted(self, mint: Mint, node: Any, outputs: tuple[Output, ...]) -> None:
        self._mint_adds_up(mint)

    def _mint_adds_up(self, mint: Mint) -> None:
        if mint.circulating + mint.taken + mint.paid_out != mint.issued:
            self.breach("M3", f"{mint.url} owes {mint.circulating} of {mint.issued} issued, took {mint.taken}")

    def swapped(
        self, mint: Mint, who: Any, coins: tuple[Output, ...], outputs: tuple[Output, ...], key: str, op: str
    ) -> None:
        self.count += 1
        self._mint_adds_up(mint)
        for coin in coins:
            lock = coin.lock
            if lock is None:
                continue
            job = self.refunds.get(lock.refund)
            if job is not None:
                truth = self.jobs[job]
                truth.taker = "refund" if key == lock.refund else "seller"
                if key == lock.refund:
                    truth.back += sum(output.amount for output in outputs)
            if who.role == "seller" and key == who.wallet_key:
                self._claims(who, coin)
            if lock.hash and key == lock.key and coin.name not in mint.shown:
                self.breach("M2", f"{mint.url}: money for a sealed result is taken without its key")
            if lock.hash and key == lock.cosigner:
                self.breach("M2", f"{mint.url}: {who.name} takes back money with the customer's co-signature")
        if who.role == "buyer":
            for output in outputs:
                if output.lock is not None:
                    self._locks(mint, who, coins, outputs, output, op)

    def _claims(self, seller: Any, coin: Output) -> None:
        """An honest seller takes money: its result must be out or on its way, under the same bytes."""
        request = self.payers.get(coin.name)
        sale = seller.disk.get(request) if request is not None else None
        result = f"result {seller.name} {request}"
        if sale is None or not (result in seller.outbox or result in self.world.log):
            self.breach("M6", f"{seller.name} takes money before its result is on the way")

    def _locks(
        self, mint: Mint, buyer: Any, coins: tuple[Output, ...], outputs: tuple[Output, ...], locked: Output, op: str
    ) -> None:
        stored = buyer.purse.ops[op]
        purchase: Purchase = buyer.disk[stored.subject]
        job = purchase.job_id
        truth = self.jobs[job]
        lock = locked.lock
        assert lock is not None
        self.refunds[lock.refund] = job
        gross = sum(coin.amount for coin in coins) - sum(output.amount for output in outputs if output.lock is None)
        truth.locks += 1
        truth.gross += gross
        if truth.locks > 1:
            self.breach("M1", f"{job} is paid {truth.locks} times")
        if truth.gross * 1000 > truth.limit.ceiling.value:
            self.breach("M1", f"{job}: {truth.gross} sat of {truth.limit.ceiling.value} msat reserved")
        if op in truth.gave_up:
            self.breach("M5", f"{job}: a payment that was given up happened")
        payment = purchase.payment
        if payment is None:
            return self.breach("M2", f"{job}: money is locked that nobody chose")
        self._against_quote(mint, buyer, purchase, locked)

    def _against_quote(self, mint: Mint, buyer: Any, purchase: Purchase, locked: Output) -> None:
        payment, lock, job = purchase.payment, locked.lock, purchase.job_id
        assert payment is not None
        assert lock is not None
        quote = self.quotes.get((payment.seller, payment.quote_id))
        if quote is None or quote.ref != purchase.request_id:
            return self.breach("M2", f"{job}: money is locked for somebody who has not quoted")
        body = quote.body
        if quote.to and quote.to != buyer.key:
            self.breach("M6", f"{job}: a quote that was for somebody else is paid")
        if payment.mode:
            self._atomic(buyer, purchase, lock, body)
        elif lock.hash:
            self.breach("M2", f"{job}: locked to a hash that nobody asked for")
        if lock.key != body["key"]:
            self.breach("M2", f"{job}: locked to a key that the quote does not name")
        if mint.url not in body["mints"] or mint.url not in purchase.mints:
            self.breach("M2", f"{job}: paid at a mint that was not agreed")
        if locked.amount - mint.fee(1) != body["price"].sat_up():
            self.breach("M2", f"{job}: {locked.amount} sat for a price of {body['price'].value} msat")
        if lock.refund != buyer.refund_key(payment.op_id):
            self.breach("M2", f"{job}: refundable to another key than ours")
        if lock.locktime <= purchase.deadline:
            self.breach("M2", f"{job}: the lock ends before the seller's time")
        offers = [one for one in purchase.offers if one.best is not None and not one.refusal]
        cheapest = min((one.best.gross.value for one in offers if one.best is not None), default=0)
        mine = next((one.best.gross.value for one in offers if one.event_id == payment.offer_id and one.best), None)
        if (
            mine is not None
            and mine > cheapest
            and not any(
                one.best is not None and one.best.gross.value < mine and one.expires_at <= self._chosen_at(purchase) + 5
                for one in offers
            )
        ):
            self.breach("M2", f"{job}: a cheaper admissible quote was passed over")

    def _atomic(self, buyer: Any, purchase: Purchase, lock: Any, body: Any) -> None:
        """Money for the key of a sealed result: it can be taken for that key alone, and in mode A for one that is here."""
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

    def _chosen_at(self, purchase: Purchase) -> int:
        return self.jobs[purchase.job_id].chosen_at // 1000

    # ---- wallets

    def booked(self, node: Any, purse: Purse, stored: Stored) -> None:
        self.count += 1
        mint = stored.mint
        if stored.kind is Kind.MELT and mint.melts[stored.terms["quote"]].state is not MeltState.PAID:
            self.breach("M5", f"{node.name}: an invoice was booked as paid, and nobody was paid")
        if not all(output.name in mint.signed for output in stored.outputs):
            self.breach("M5", f"{node.name}: a {stored.kind} was booked, and did not happen")
        self._conserved(node, purse, mint)

    def released(self, node: Any, purse: Purse, stored: Stored) -> None:
        self.count += 1
        mint = stored.mint
        if stored.op.state is Op.REFUSED:
            for group in (stored.outputs, *stored.past):
                if group and all(output.name in mint.signed for output in group):
                    self.breach("M5", f"{node.name}: a {stored.kind} was given up, and had happened")
            if stored.kind is Kind.MELT:
                self.ended.add(stored.id)
                if mint.melts[stored.terms["quote"]].state is not MeltState.UNPAID:
                    self.breach("M5", f"{node.name}: a payment was given up that had happened, or still may")
            if stored.kind in (Kind.LOCK, Kind.MELT):
                truth = self.jobs.get(stored.subject)
                if truth is not None:
                    truth.gave_up.add(stored.id)
        self._conserved(node, purse, mint)

    def _conserved(self, node: Any, purse: Purse, mint: Mint) -> None:
        """With nothing else under way, what a wallet counts is what the mint owes it."""
        for stored in purse.ops.values():
            if stored.mint is mint and stored.op.state in (Op.PREPARED, Op.UNKNOWN):
                return
        held, owed = purse.held(mint), mint.balance.get(node.name, 0)
        if held != owed:
            self.breach("M3", f"{node.name} counts {held} sat at {mint.url}, which owes it {owed}")

    # ---- purchases

    def takes_back(self, buyer: Any, payment: Any) -> None:
        """The mint is asked to give locked money back."""
        self.count += 1
        if self.world.now < payment.locktime * 1000:
            self.breach("M4", f"{buyer.name}: money is asked back before its locktime")

    def staged(self, buyer: Any, purchase: Purchase) -> None:
        limit = purchase.limit
        self.jobs[purchase.job_id] = Truth(limit)
        if limit.cost(limit.ceiling).value > limit.value:
            self.breach("M8", f"{purchase.job_id}: its ceiling is above its reservation")
        if limit.unit != buyer.unit:
            self.breach("M8", f"{purchase.job_id}: reserved in {limit.unit}")

    def paying(self, buyer: Any, purchase: Purchase, msg: Msg) -> None:
        """The token is about to be handed out."""
        truth, job, payment = self.jobs[purchase.job_id], purchase.job_id, purchase.payment
        assert payment is not None
        if any(one.id != msg.id or one.body != msg.body for one in truth.wraps):
            self.breach("M1", f"{job}: two payments are handed out")
        if truth.wraps:
            self.breach("M6", f"{job}: its payment is handed out twice")
        truth.wraps.append(msg)
        quote = self.quotes.get((msg.to, msg.body["quote"]))
        if quote is None:
            return self.breach("M2", f"{job}: a token goes to somebody who has not quoted")
        if self.world.now >= quote.body["expires"] * 1000 and payment.mode != MODE_A:  # whose result is here already
            self.breach("M2", f"{job}: a token goes out after the quote has expired")
        coins = msg.body["coins"]
        if not coins or any(coin.name not in buyer.mint_at(payment.mint).signed for coin in coins):
            self.breach("M2", f"{job}: a token that the mint did not sign")

    def purchase(self, buyer: Any, before: Purchase, after: Purchase) -> None:
        self.count += 1
        job = after.job_id
        truth = self.jobs[job]
        if before.closed or (before.state in ENDED and after.state is not before.state):
            self.breach("M4", f"{job} goes on after its end")
        if after.limit is not truth.limit and after.limit != truth.limit:
            self.breach("M8", f"{job}: its rate or its limit changed")
        if after.payment is not before.payment and after.chosen != before.chosen:
            truth.chosen_at = self.world.now
        if after.money is not before.money:
            self._money(job, truth, before, after)
        if after.closed:
            self._closed(job, truth, after)
        if after.result_id and after.result_id != before.result_id:
            msg = self.world.log.get(after.result_id)
            if msg is None or msg.author != after.seller or msg.signer != msg.author:
                self.breach("M6", f"{job}: a result that is not the chosen seller's")
        if after.state is not before.state and after.state is Job.DELIVERED and after.provider == MARKET:
            self._delivered(job, after)
        if after.offers is not before.offers and len(after.offers) > len(before.offers):
            self._offer(buyer, job, after)

    def _delivered(self, job: str, after: Purchase) -> None:
        """What the caller gets is what its author signed, and good."""
        msg = self.world.log.get(after.result_id)
        if msg is None:
            return self.breach("M6", f"{job}: a result that nobody published")
        seal = msg.body
        paid = after.payment
        if type(seal) is Seal and paid is not None and paid.atomic and after.preimage:
            right = seal.fits and seal.signed and hash_of(after.preimage) == seal.under and seal.text.strip()
            if not right or after.result != seal.text:
                self.breach("M6", f"{job}: a sealed result is used that is not what its seller signed, or empty")
        elif msg.content != after.result or after.result == "junk":
            self.breach("M6", f"{job}: a result is used that is not what its seller signed, or empty")
        if paid is not None and paid.method is Method.INVOICE_AFTER and after.money is Funds.CLAIMED:
            if after.result_id != paid.offer_id:
                self.breach("M2", f"{job}: it paid for one result and uses another")

    def _offer(self, buyer: Any, job: str, after: Purchase) -> None:
        offer = after.offers[-1]
        msg = self.world.log.get(offer.event_id)
        if msg is None or msg.author != offer.seller or msg.signer != msg.author:
            self.breach("M6", f"{job}: an offer that nobody made")
        elif (msg.to and msg.to != buyer.key) or msg.ref != after.request_id:
            self.breach("M6", f"{job}: an offer that was for somebody else")
        if any(one.event_id == offer.event_id for one in after.offers[:-1]):
            self.breach("M6", f"{job}: an offer twice")

    def _money(self, job: str, truth: Truth, before: Purchase, after: Purchase) -> None:
        money = after.money
        if money is Funds.NONE and truth.locks:
            self.breach("M5", f"{job}: its payment was called off, and had happened")
        elif money is Funds.NONE and before.payment is not None:
            truth.gave_up.add(before.payment.op_id)
        elif money is Funds.CLAIMED and truth.taker != "seller":
            self.breach("M4", f"{job}: called claimed, and taken by {truth.taker or 'nobody'}")
        elif money is Funds.REFUNDED and truth.taker != "refund":
            self.breach("M4", f"{job}: called refunded, and taken by {truth.taker or 'nobody'}")

    def _closed(self, job: str, truth: Truth, after: Purchase) -> None:
        if after.state not in ENDED or after.money not in FINAL:
            self.breach("M4", f"{job} closes in {after.state} while its money is {after.money}")
        if truth.locks and not truth.taker:
            self.breach("M4", f"{job} closes while money is out")
        method = after.payment.method if after.money is not Funds.NONE and after.payment is not None else None
        if method is None and after.provider == "dvm":
            self.world.coverage.methods["free"] += 1
        elif method is not None:
            self.world.coverage.methods[method.value] += 1

    def finished(self, buyer: Any, after: Purchase, cost: Msat) -> None:
        truth = self.jobs[after.job_id]
        spent = truth.gross - truth.back
        if cost.value != spent * 1000:
            self.breach("M4", f"{after.job_id}: {cost.value} msat are booked, and it cost {spent} sat")
        if after.limit.cost(cost).value > after.limit.value:
            self.breach("M8", f"{after.job_id}: it cost more than was reserved")
        if buyer.held < 0:
            self.breach("M4", f"{after.job_id}: its reservation was given back twice")
        if buyer.held + buyer.spent > buyer.limits.per_day.value:
            self.breach("M8", f"{buyer.name} is over its day's limit")

    # ---- sales

    def sale(self, seller: Any, before: Sale, after: Sale, event: type) -> None:
        self.count += 1
        world, request_id = self.world, after.request_id
        if before.state is not after.state:
            self._places(seller, before, after)
        if event is Claimed:
            self._earned(seller, after)
        if after.state is State.CANCELLED:
            own = any(
                msg.kind == "cancel" and msg.ref == request_id and msg.author == msg.signer == after.customer
                for msg in world.log.values()
            )
            if not own:
                self.breach("M6", f"{seller.name}: a request was cancelled by somebody else")
        if after.payment and not before.payment:
            self._paid(seller, after)
        if event is InvoicePaid:
            self._invoiced(seller, after)
        elif event is CreditTaken or event is CreditSpent:
            self._credit(seller, after)

    def _invoiced(self, seller: Any, after: Sale) -> None:
        """Its invoice's money is in the seller's wallet, and is worked for, or owed, as often as it came."""
        stored = seller.purse.ops.get(after.invoice_id)
        got = 0 if stored is None else sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)
        if after.claimed.value != got * 1000 or not got:
            self.breach("M3", f"{seller.name} books {after.claimed.value} msat of an invoice, and got {got} sat")

    def _credit(self, seller: Any, after: Sale) -> None:
        owed = sum(one.owed.value for one in seller.disk.values() if one.customer == after.customer)
        if owed < 0 or after.owed.value < 0:
            self.breach("M7", f"{seller.name}: more is served than is owed")

    def _places(self, seller: Any, before: Sale, after: Sale) -> None:
        place = seller.name, after.customer
        if after.state is State.QUOTED:
            self.waiting[place] = self.waiting.get(place, 0) + 1
            if self.waiting[place] > ALLOWED.open_per_customer:
                self.breach("M7", f"{seller.name}: {self.waiting[place]} quotes for one key")
        elif before.state is State.QUOTED:
            self.waiting[place] -= 1
        if after.paid_by == MODE_A and after.state is State.WORKING:
            self.unpaid[place] = self.unpaid.get(place, 0) + 1
            if self.unpaid[place] > ORDER.orders_per_customer:
                self.breach("M7", f"{seller.name}: works on {self.unpaid[place]} unpaid orders of one key")
        elif before.state is State.SEALED and after.paid_by == MODE_A and after.paid:
            self.unpaid[place] -= 1  # who leaves without paying keeps its place: it gets no other order

    def _earned(self, seller: Any, after: Sale) -> None:
        stored = seller.purse.ops[f"claim {seller.name} {after.request_id}"]
        got = sum(output.amount for output in stored.outputs if output.name in stored.mint.signed)
        if after.claimed.value != got * 1000:
            self.breach("M3", f"{seller.name} books {after.claimed.value} msat, and got {got} sat")

    def _paid(self, seller: Any, after: Sale) -> None:
        """A payment is taken for good: it must be the customer's, for this request, in time, and enough."""
        msg = self.world.log.get(after.payment_id)
        if msg is None or msg.signer != msg.author or msg.author != after.customer or msg.to != seller.key:
            return self.breach("M6", f"{seller.name}: a payment that is not the customer's")
        if msg.ref != after.request_id or msg.body["quote"] != after.quote_id:
            self.breach("M2", f"{seller.name}: a payment for another quote is taken")
        if msg.at >= after.expires_at * 1000 and msg.body.get("mode") != MODE_A:
            self.breach("M2", f"{seller.name}: a payment for an expired quote is taken")
        least = msg.at // 1000 + ETA_S + CLAIM_MARGIN_S
        mode = msg.body.get("mode", "")
        if mode:
            least += COSIGN_MARGIN_S + CLAIM_NEED_S - CLAIM_MARGIN_S if mode == MODE_B else -ETA_S
            self._paid_sealed(seller, after, msg, mode)
        if any(coin.lock is not None and coin.lock.locktime < least for coin in msg.body["coins"]):
            self.breach("M7", f"{seller.name}: takes money that can be taken back before it is claimed")
        for name in after.ys:
            if self.payers.setdefault(name, after.request_id) != after.request_id:
                self.breach("M7", f"{seller.name}: one coin pays for two jobs")

    def _paid_sealed(self, seller: Any, after: Sale, msg: Msg, mode: str) -> None:
        request = self.world.log[after.request_id].body
        cosigner = request.cosign_key if mode == MODE_B else ""
        for coin in msg.body["coins"]:
            if coin.lock is None or (coin.lock.hash, coin.lock.cosigner) != (after.hash, cosigner):
                self.breach("M7", f"{seller.name}: takes money for a sealed result that its key does not open")

    def works(self, seller: Any, sale: Sale) -> None:
        """A provider begins: for a priced job its money must be there, and the seller's to take."""
        self.count += 1
        times = self.worked.setdefault((seller.name, sale.request_id), [0, -1])
        if times[1] == seller.life:
            self.breach("M7", f"{seller.name}: works again and again for {sale.request_id}")
        times[0], times[1] = times[0] + 1, seller.life
        if not sale.price or sale.paid_by == MODE_A:  # an order: see `_places`
            return
        if sale.by_invoice:
            paid = sum(
                one.claimed.value for one in seller.disk.values() if one.customer == sale.customer and one.invoice
            )
            used = sum(
                one.price.value
                for one in seller.disk.values()
                if one.customer == sale.customer and one.by_invoice and one.state not in (State.OWED, State.REPAID)
            )
            if paid < used:
                self.breach("M7", f"{seller.name}: works for {used} msat, and {paid} were paid by invoice")
            return
        mint = next((mint for mint in self.world.mints if mint.url == sale.mint), None)
        if mint is None:
            return self.breach("M7", f"{seller.name}: works unpaid")
        coins = [mint.signed.get(name) for name in sale.ys]
        worth = 0
        for coin in coins:
            if coin is None or coin.lock is None or coin.lock.key != seller.wallet_key:
                return self.breach("M7", f"{seller.name}: works for coins that are not its own to take")
            worth += coin.amount
        if not coins or (worth - mint.fee(len(coins))) * 1000 < sale.price.value:
            self.breach("M7", f"{seller.name}: works for {worth} sat at a price of {sale.price.value} msat")

    # ---- the end

    def finish(self) -> None:
        """All is over: nothing is open, and all money is where the wallets say."""
        world = self.world
        self.count += 1
        for node in world.nodes:
            if node.role == "buyer":
                for job_id, purchase in node.disk.items():
                    if purchase is not None and not purchase.closed:
                        self.breach("M4", f"{job_id} never closed: {purchase.state}, {purchase.money}")
                if node.held:
                    self.breach("M4", f"{node.name} still holds {node.held} {node.unit}")
            else:
                for sale in node.disk.values():
                    if sale.state not in SOLD:
                        self.breach("M4", f"{node.name}: a sale never ended: {sale.state}")
            for stored in node.purse.ops.values():
                if stored.op.state in (Op.PREPARED, Op.UNKNOWN):
                    self.breach("M4", f"{node.name}: a {stored.kind} never ended")
            for mint in world.mints:
                self._conserved(node, node.purse, mint)
