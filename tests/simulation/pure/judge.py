"""M1 to M8 (DESIGN §6) from facts: what was published and by whom it was really signed, and what the mints did.

Every check is made when its fact comes to be, so that each event is judged and none costs more than a look or two.
The nodes' own values are only what is judged.
"""

from typing import Any

from core.money import Msat
from dvm.job import ENDED, FINAL, Funds, Purchase
from dvm.job import State as Job
from dvm.policy import MARKET
from dvm.seller import ENDED as SALE_ENDED
from dvm.seller import State
from dvm.settlement import MODE_A, Method
from tests.simulation.pure.judge_gift import Gifts
from tests.simulation.pure.judge_nwc import Wallets
from tests.simulation.pure.judge_pay import Payments
from tests.simulation.pure.judge_prepaid import Balances, Bank
from tests.simulation.pure.judge_sale import Sales
from tests.simulation.pure.mint import Mint, Output, hash_of
from tests.simulation.pure.nwc import START
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.sealing import Seal
from tests.simulation.pure.world import Msg, World
from wallet.cashu.port import MeltState
from wallet.payment import Kind
from wallet.payment import State as Op

SOLD = SALE_ENDED | {State.SEEN}
RULES = ("M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8")


class Truth:
    """What really became of one job's money."""

    __slots__ = (
        "back",
        "chosen_at",
        "drawn",
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
        self.drawn = 0  # msat, of a deposit
        self.taker = ""
        self.wraps: list[Msg] = []
        self.gave_up: set[str] = set()
        self.chosen_at = 0
        self.melts = 0


class Judge(Payments, Sales, Balances, Gifts, Wallets):
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.breaches: list[tuple[str, str]] = []
        self.jobs: dict[str, Truth] = {}
        self.quotes: dict[tuple[str, str], Msg] = {}
        self.refunds: dict[str, str] = {}  # refund key: job
        self.wraps: dict[str, list[Msg]] = {}  # by request
        self.cancels: set[tuple[str, str]] = set()  # request, and who asked for its end
        self.results: set[tuple[str, str]] = set()
        self.payers: dict[str, str] = {}  # coin: the request that a seller worked for it
        self.claims: dict[str, tuple[str, str]] = {}  # coin: seller and request that it pays
        self.waiting: dict[tuple[str, str], int] = {}  # quotes open for a key at a seller
        self.worked: dict[tuple[str, str], list[int]] = {}
        self.ended: set[str] = set()  # melts that were given up
        self.unpaid: dict[tuple[str, str], int] = {}  # orders that a seller works unpaid, by customer
        self.banks: dict[str, Bank] = {}  # deposits of buyers
        self.bank_of: dict[str, str] = {}  # refund key: deposit
        self.custodies: dict[str, str] = {}  # coin: the deposit that a seller holds
        self.shown: dict[tuple[str, str, int], list[Msg]] = {}  # vouchers, by receiver, deposit and number
        self.given: dict[str, str] = {}  # coin: the nutzap in which it was taken
        self.closes: set[tuple[str, str]] = set()
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
        elif kind == "cancel":
            if msg.author == msg.signer:
                self.cancels.add((msg.ref, msg.author))
        elif kind == "wrap":
            self.wraps.setdefault(msg.ref, []).append(msg)
        elif kind == "prepaid" or kind == "voucher":
            self.told(msg)
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
            elif lock.refund in self.bank_of:
                self.balance_moved(who, coin, outputs, key)
            if who.role == "seller" and key == who.wallet_key:
                if coin.name in self.custodies:
                    self.claims_custody(who, coin)
                elif coin.name in self.given:
                    self.claims_gift(who, coin)
                else:
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
        if stored.subject in self.banks:
            return self.locks_balance(mint, buyer, locked, op)
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
            asked = stored.op.state is Op.WAITING and stored.outputs  # and a copy of it may arrive even now
            if stored.mint is mint and (asked or stored.op.state in (Op.PREPARED, Op.UNKNOWN)):
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
        by_result = paid is not None and paid.method is Method.INVOICE_AFTER and after.money is Funds.CLAIMED
        if paid is not None and by_result and after.result_id != paid.offer_id:
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
        drawn = after.payment is not None and after.payment.method is Method.PREPAID
        if drawn and money in (Funds.CLAIMED, Funds.REFUNDED):
            return self.voucher_money(after, truth)
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
        drawn = truth.drawn if after.money is Funds.CLAIMED else 0
        if cost.value != spent * 1000 + drawn:
            self.breach(
                "M4", f"{after.job_id}: {cost.value} msat are booked, and it cost {spent} sat and {drawn} drawn"
            )
        if after.limit.cost(cost).value > after.limit.value:
            self.breach("M8", f"{after.job_id}: it cost more than was reserved")
        if buyer.held < 0:
            self.breach("M4", f"{after.job_id}: its reservation was given back twice")
        if buyer.held + buyer.spent > buyer.limits.per_day.value:
            self.breach("M8", f"{buyer.name} is over its day's limit")

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
                if node.nwc is not None:
                    self.finish_nwc(node.nwc, START)
                if node.held:
                    self.breach("M4", f"{node.name} still holds {node.held} {node.unit}")
            else:
                self.finish_gifts(node)
                for sale in node.disk.values():
                    if sale.state not in SOLD:
                        self.breach("M4", f"{node.name}: a sale never ended: {sale.state}")
            self.finish_balances(node)
            for stored in node.purse.ops.values():
                if stored.op.state in (Op.PREPARED, Op.UNKNOWN):
                    self.breach("M4", f"{node.name}: a {stored.kind} never ended")
            for mint in world.mints:
                self._conserved(node, node.purse, mint)
