"""M1 to M7 of prepaid balances (ADR 27), from what was signed and published, and from the mints' books."""

from abc import ABC, abstractmethod
from typing import Any

from core.money import Msat
from dvm import prepaid
from dvm.custody import CloseAsked, Custody, Due, VoucherShown, WorkEnded
from dvm.custody import State as Held
from dvm.deposit import ENDED, GRACE_S, Deposit, State
from dvm.job import Funds, Purchase
from dvm.prepaid import voucher_text
from tests.simulation.pure.mint import Lock, Mint, Output
from tests.simulation.pure.paper import signed_by
from tests.simulation.pure.world import Msg, World
from wallet.payment import State as Op

FINAL_WORDS = (prepaid.CLOSED, prepaid.RELEASED)


class Bank:
    """What really became of one deposit, and of the vouchers that were signed of it."""

    __slots__ = ("amount", "back", "charged", "gave_up", "locks", "out", "refund", "said", "seq", "taker", "terms")

    def __init__(self, amount: Msat) -> None:
        self.amount = amount
        self.locks = self.back = 0
        self.refund = self.taker = ""
        self.gave_up = False
        self.charged = self.seq = 0  # msat that jobs were charged with; the last voucher's number
        self.out: Any = None  # the voucher that is out: `dvm.deposit.Pending`
        self.said: list[Any] = []  # its seller's statements, that it really signed
        self.terms: list[Any] = []


class Balances(ABC):
    """A part of the judge."""

    world: World
    banks: dict[str, Bank]
    bank_of: dict[str, str]
    custodies: dict[str, str]
    payers: dict[str, str]
    jobs: dict[str, Any]
    quotes: dict[tuple[str, str], Msg]
    results: set[tuple[str, str]]
    shown: dict[tuple[str, str, int], list[Msg]]
    closes: set[tuple[str, str]]
    count: int

    @abstractmethod
    def breach(self, rule: str, text: str) -> None:
        """A rule is broken."""

    # ---- published

    def told(self, msg: Msg) -> None:
        """What both sides say of a deposit, and vouchers."""
        if msg.signer != msg.author:
            return
        if msg.kind == "voucher":
            shown = msg.body["voucher"]
            self.shown.setdefault((msg.to, shown.deposit, shown.seq), []).append(msg)
            return
        word, bank = msg.body["word"], self.banks.get(msg.ref)
        if word == "close":
            self.closes.add((msg.ref, msg.author))
        elif bank is not None and word == "account":
            bank.said.append((msg.author, msg.body["account"]))
        elif bank is not None and word == "terms":
            bank.terms.append((msg.author, msg.body["terms"]))

    # ---- a buyer's deposit

    def opened(self, buyer: Any, deposit: Deposit) -> None:
        self.count += 1
        self.banks[deposit.id] = Bank(deposit.amount)

    def depositing(self, buyer: Any, deposit: Deposit, lock: Lock) -> None:
        """Its coins are about to be locked."""
        bank = self.banks[deposit.id]
        bank.refund = lock.refund
        self.bank_of[lock.refund] = deposit.id

    def locks_balance(self, mint: Mint, buyer: Any, locked: Output, op: str) -> None:
        """A mint has locked coins for a deposit: once, to the seller, on the terms that it gave."""
        self.count += 1
        deposit: Deposit = buyer.balances.disk[buyer.purse.ops[op].subject]
        bank, lock = self.banks[deposit.id], locked.lock
        assert lock is not None
        bank.locks += 1
        if bank.locks > 1:
            self.breach("M1", f"{deposit.id} is locked {bank.locks} times")
        if bank.gave_up:
            self.breach("M5", f"{deposit.id}: a deposit that was given up was locked")
        terms = [one for author, one in bank.terms if author == deposit.seller and one is not None]
        if not any(lock.key == one.wallet_key and mint.url in one.mints for one in terms):
            self.breach("M2", f"{deposit.id}: locked to a key or at a mint that its seller did not name")
        if locked.amount - mint.fee(1) != deposit.amount.sat_up():
            self.breach("M2", f"{deposit.id}: {locked.amount} sat for a deposit of {deposit.amount.value} msat")
        if lock.refund != buyer.refund_key(deposit.lock_id):
            self.breach("M2", f"{deposit.id}: refundable to another key than ours")

    def balance_moved(self, who: Any, coin: Output, outputs: tuple[Output, ...], key: str) -> None:
        """Somebody takes a deposit's coins at the mint."""
        self.count += 1
        assert coin.lock is not None
        bank = self.banks[self.bank_of[coin.lock.refund]]
        bank.taker = "refund" if key == coin.lock.refund else "seller"
        if bank.taker == "refund":
            bank.back += sum(output.amount for output in outputs)

    def balance(self, buyer: Any, before: Deposit, after: Deposit, event: Any) -> None:
        """A step of a deposit."""
        self.count += 1
        bank, id_, state = self.banks[after.id], after.id, after.state
        if before.state in ENDED and state is not before.state:
            self.breach("M4", f"{id_} goes on after its end")
        if (after.heard_seq, after.heard_total) != (before.heard_seq, before.heard_total):
            said = (after.heard_seq, after.heard_total)
            if not any(who == after.seller and (one.seq, one.total) == said for who, one in bank.said):
                self.breach("M6", f"{id_}: its seller never said {said}")
        if state is before.state:
            return
        if state is State.FAILED:
            bank.gave_up = True
            if bank.locks:
                self.breach("M5", f"{id_}: called off, and it was locked")
        elif state is State.OPEN and not any(who == after.seller for who, _ in bank.said):
            self.breach("M6", f"{id_}: its seller never said that it has it")
        elif (state is State.CLOSED and bank.taker != "seller") or (state is State.REFUNDED and bank.taker != "refund"):
            self.breach("M4", f"{id_}: called {state}, and taken by {bank.taker or 'nobody'}")
        elif state is State.LOST:
            patient = self.world.now // 1000 >= after.locktime + GRACE_S
            if bank.taker != "seller" or not patient:
                self.breach("M4", f"{id_}: given up while it may come back")
        if after.returned != before.returned:
            self._came_back(buyer, bank, before, after)

    def _came_back(self, buyer: Any, bank: Bank, before: Deposit, after: Deposit) -> None:
        came = (after.returned - before.returned).value
        ops = buyer.purse.ops
        stored = ops.get(after.refund_id) if after.state is State.REFUNDED else ops.get(after.return_id)
        got = 0 if stored is None else sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)
        if came != got * 1000:
            self.breach("M3", f"{after.id}: {came} msat are booked as returned, and {got} sat came")

    # ---- vouchers

    def drawn(self, buyer: Any, job: Purchase, deposit: Deposit) -> None:
        """A voucher is written down: one is out at a time, for what is earned and this price, within the deposit."""
        self.count += 1
        bank, out, payment = self.banks[deposit.id], deposit.pending, job.payment
        assert out is not None
        assert payment is not None
        truth = self.jobs[job.job_id]
        truth.locks += 1
        if truth.locks > 1:
            self.breach("M1", f"{job.job_id} is paid {truth.locks} times")
        if bank.out is not None:
            self.breach("M1", f"{deposit.id}: two vouchers are out at once")
        if out.seq <= bank.seq:
            self.breach("M1", f"{deposit.id}: voucher {out.seq} again")
        if out.total.value != bank.charged + payment.price.value or out.price != payment.price:
            self.breach("M2", f"{job.job_id}: a voucher over {out.total.value} msat, and {bank.charged} are earned")
        if out.total > bank.amount:
            self.breach("M1", f"{deposit.id}: more is signed than was deposited")
        if payment.price.value > truth.limit.ceiling.value:
            self.breach("M1", f"{job.job_id}: {payment.price.value} of {truth.limit.ceiling.value} msat reserved")
        if deposit.seller != payment.seller:
            self.breach("M2", f"{job.job_id}: drawn at somebody who was not chosen")
        bank.out, bank.seq = out, out.seq
        truth.drawn = payment.price.value

    def hands_out(self, buyer: Any, job: Purchase, msg: Msg) -> None:
        """A voucher is about to leave."""
        self.count += 1
        shown, payment = msg.body["voucher"], job.payment
        assert payment is not None
        truth = self.jobs[job.job_id]
        if truth.wraps:
            self.breach("M6", f"{job.job_id}: its voucher is handed out twice")
        truth.wraps.append(msg)
        quote = self.quotes.get((payment.seller, msg.body["quote"]))
        if quote is None or quote.ref != job.request_id or (quote.to and quote.to != buyer.key):
            return self.breach("M2", f"{job.job_id}: a voucher for somebody who has not quoted")
        method = quote.body.get("prepaid")
        if method is None or method.deposit != shown.deposit or quote.body["price"] != payment.price:
            self.breach("M2", f"{job.job_id}: a voucher that the quote does not ask for")
        if self.world.now >= quote.body["expires"] * 1000:
            self.breach("M2", f"{job.job_id}: a voucher goes out after the quote has expired")
        if shown.request_id != job.request_id:
            self.breach("M2", f"{job.job_id}: a voucher for another request")

    def voucher_money(self, job: Purchase, truth: Any) -> None:
        """What became of a voucher is decided: by a good result, by the seller's own word, or by who has the coins."""
        payment = job.payment
        assert payment is not None
        bank = self.banks[payment.deposit]
        out, bank.out = bank.out, None
        if out is None or out.job_id != job.job_id:
            return self.breach("M1", f"{job.job_id}: a voucher is decided that is not out")
        said = [
            one
            for who, one in bank.said
            if who == payment.seller and (one.state in FINAL_WORDS or one.seq >= out.seq) and not one.busy
        ]
        if job.money is Funds.CLAIMED:
            truth.taker = "seller"
            bank.charged += payment.price.value
            good = self.world.log.get(job.result_id)
            delivered = good is not None and good.author == good.signer == payment.seller
            counted = any(one.total >= out.total for one in said)
            if not (delivered or counted or bank.taker == "seller"):
                self.breach(
                    "M4", f"{job.job_id}: charged for nothing, and its seller does not say that it has earned it"
                )
        else:
            truth.taker = "refund"
            void = any(one.total < out.total for one in said)
            if not (void or bank.taker == "refund"):
                self.breach("M5", f"{job.job_id}: its voucher is called void, and its seller has not said so")

    # ---- at the seller

    def custody(self, seller: Any, before: Custody | None, after: Custody, event: Any) -> None:
        """A step of a customer's deposit."""
        self.count += 1
        if before is None:
            return self._taken_in(seller, after)
        if type(event) is VoucherShown:
            self._held(seller, before, after)
        elif type(event) is WorkEnded:
            self._counted(seller, before, after)
        elif after.total != before.total:
            self.breach("M7", f"{seller.name}: counts more of {after.id}, and nothing was delivered")
        if after.closing and not before.closing:
            asked = (after.id, after.customer) in self.closes and type(event) is CloseAsked
            due = type(event) is Due and self.world.now >= (after.locktime - after.margin_s) * 1000
            if not (asked or due):
                self.breach("M6", f"{seller.name}: {after.id} is closed, and its customer has not asked for it")
        if after.state is Held.CLOSED and before.state is not Held.CLOSED:
            self._closed_custody(seller, after)

    def _taken_in(self, seller: Any, after: Custody) -> None:
        msg = self.world.log.get(after.payment)
        if msg is None or msg.signer != msg.author or msg.author != after.customer or msg.to != seller.key:
            return self.breach("M6", f"{seller.name}: a deposit that is not its customer's")
        mint = next(mint for mint in self.world.mints if mint.url == after.mint)
        worth = 0
        for coin in msg.body["coins"]:
            real = mint.signed.get(coin.name)
            if real is None or real.lock is None or real.lock.key != seller.wallet_key or real.lock.hash:
                return self.breach("M7", f"{seller.name}: takes a deposit that it cannot claim")
            worth += real.amount
            if real.lock.locktime < self.world.now // 1000:
                self.breach("M7", f"{seller.name}: takes a deposit that can be taken back at once")
            if self.payers.setdefault(coin.name, after.id) != after.id:
                self.breach("M7", f"{seller.name}: one coin pays for two")
            self.custodies[coin.name] = after.id
        if (worth - mint.fee(len(msg.body["coins"]))) * 1000 < after.amount.value:
            self.breach("M7", f"{seller.name}: takes {worth} sat for a deposit of {after.amount.value} msat")

    def _held(self, seller: Any, before: Custody, after: Custody) -> None:
        """A voucher is taken: its customer signed it, for this request, over what is earned and the price."""
        shown = self.shown.get((seller.key, after.id, after.seq), [])
        text = voucher_text(seller.key, after.id, after.seq, after.held, after.busy)
        right = [
            one
            for one in shown
            if one.author == after.customer and one.body["voucher"].signature == signed_by(after.key, text)
        ]
        if not right:
            self.breach("M7", f"{seller.name}: works for a voucher that nobody signed")
        if after.held > after.amount:
            self.breach("M7", f"{seller.name}: works for more than the deposit holds")
        if after.seq <= before.seq:
            self.breach("M7", f"{seller.name}: works for an old voucher")
        if before.busy:
            self.breach("M7", f"{seller.name}: two jobs are drawn from {after.id} at once")

    def _counted(self, seller: Any, before: Custody, after: Custody) -> None:
        if after.total == before.total:
            return
        result = f"result {seller.name} {before.busy}"
        if after.total != before.held or not (result in seller.outbox or result in self.world.log):
            self.breach("M6", f"{seller.name}: counts what it has not delivered")

    def _closed_custody(self, seller: Any, after: Custody) -> None:
        stored = seller.purse.ops.get(f"custody {after.id}")
        got = 0 if stored is None else sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)
        if after.claimed.value != got * 1000:
            self.breach("M3", f"{seller.name} books {after.claimed.value} msat of {after.id}, and got {got} sat")
        if after.returned_sat:
            rest = seller.purse.ops[f"rest {after.id} {after.returns}"]
            gone = sum(one.amount for one in rest.outputs if one.gives and one.name in rest.mint.signed)
            if gone != after.returned_sat:
                self.breach("M3", f"{seller.name}: {after.returned_sat} sat go back of {after.id}, and it is {gone}")
        if got * 1000 - after.returned_sat * 1000 < after.total.value:
            self.breach("M3", f"{seller.name}: gives back more of {after.id} than is left")

    def claims_custody(self, seller: Any, coin: Output) -> None:
        """An honest seller takes a deposit's coins."""
        custody: Custody = seller.custodian.disk[self.custodies[coin.name]]
        if not custody.closing:
            self.breach("M6", f"{seller.name}: takes a deposit that is still open")

    def works_drawn(self, seller: Any, sale: Any) -> None:
        """Work on a voucher: it is held for this request, and for its price."""
        custody: Custody = seller.custodian.disk[sale.deposit]
        held = custody.held - custody.total
        if custody.busy != sale.request_id or held != sale.price or custody.held > custody.amount:
            self.breach(
                "M7", f"{seller.name}: works for {held.value} msat of {custody.id}, for {custody.busy or 'none'}"
            )

    # ---- the end

    def finish_balances(self, node: Any) -> None:
        """Nothing is open, and both sides count the same."""
        if node.role == "seller":
            for custody in node.custodian.disk.values() if node.custodian is not None else ():
                if custody.state not in (Held.CLOSED, Held.RELEASED, Held.LOST):
                    self.breach("M4", f"{node.name}: {custody.id} never ended: {custody.state}")
            return
        for deposit in node.balances.disk.values() if node.balances is not None else ():
            bank, id_ = self.banks[deposit.id], deposit.id
            if deposit.state not in ENDED:
                self.breach("M4", f"{id_} never ended: {deposit.state}")
            if deposit.pending is not None or bank.out is not None:
                self.breach("M4", f"{id_}: a voucher is out for ever")
            if deposit.charged.value != bank.charged:
                self.breach("M3", f"{id_}: {deposit.charged.value} msat are counted, and jobs cost {bank.charged}")
            lock = node.purse.ops.get(deposit.lock_id)
            if bank.locks and (lock is None or lock.op.state is not Op.DONE):
                self.breach("M5", f"{id_}: it was locked, and its wallet does not know")
            seller = self.world.by_key.get(deposit.seller)
            shop = seller.custodian if seller is not None and seller.role == "seller" else None
            held = None if shop is None else shop.disk.get(id_)
            both = held is not None and held.state is Held.CLOSED and deposit.state is State.CLOSED
            if both and held is not None and held.total != deposit.charged:
                self.breach("M3", f"{id_}: {held.total.value} msat at its seller, {deposit.charged.value} here")
