"""A seller's thin driver over `dvm.seller` and `dvm.admission`; `wallet.verification` itself judges payments."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

from core.effect import EffectClass, Intent
from core.identifier import PubKey
from core.money import Msat
from dvm import admission
from dvm import seller as machine
from dvm.error import VoucherRefused
from dvm.lending import Lending
from dvm.parcel import Packed
from dvm.record import decode, encode
from dvm.sale import CLAIM_MARGIN_S, GIVE_UP_S, MAX_PAYMENTS
from dvm.seller import ENDED, UNSIGNED_S, Sale, State
from dvm.settlement import CLAIM_NEED_S, COSIGN_MARGIN_S, MODE_A, MODE_B
from node.gate import compile as gate
from relays.nip90 import PayMethod
from tests.simulation.pure.appraisal import appraised, unspent
from tests.simulation.pure.billing import CREDIT, LABELS, Beside, Billing, Rows
from tests.simulation.pure.buyer import LIMITS, WRIT
from tests.simulation.pure.cast import INVOICED, LENT, ORDERED, PREPAID, SEALED, Stall
from tests.simulation.pure.custodian import Custodian
from tests.simulation.pure.gift import Gifts
from tests.simulation.pure.mint import Mint, Unlock, hash_of
from tests.simulation.pure.paper import key_of
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.sealing import OFFER, ORDER, preimage_of, sealed, signatures
from tests.simulation.pure.world import FREE, Msg, World
from wallet.error import TokenRejected
from wallet.model import VerifyTerms
from wallet.payment import Kind
from wallet.payment import State as Op

ETA_S = 10
ALLOWED = admission.Limits(open_per_customer=4, free_per_customer=4, burst=16, per_second=2.0, pow_bits_full=0)
ROOM = 32
TAKEN = frozenset({admission.MakeQuote, admission.Serve})
NOTHING, UNTAKEN = Msat(0), admission.Load()


_ROOMS: tuple[Callable[[Any], tuple[tuple[Mint, ...], tuple[str, ...]]], ...] = (
    lambda mints: ((), ()),
    lambda mints: (mints[:1], (mints[0].url,)),
    lambda mints: (mints[1:], (mints[1].url,)),
    lambda mints: (mints, (mints[0].url, mints[1].url)),
)


class Seller(Billing):
    """One node that sells."""

    role = "seller"

    def __init__(self, world: World, name: str, key: str, stall: Stall) -> None:
        self.world, self.name, self.key, self.stall = world, name, key, stall
        self.life = 0
        self.disk: dict[str, Sale] = {}
        self.known = self.disk
        self.made: dict[str, Msg] = {}  # the bytes that a sale's `answer` names
        self.incoming: dict[str, str] = {}  # a coin, and the one quote that it pays
        self.outbox: dict[str, Msg] = {}
        self.quotes: dict[str, str] = {}
        self.open: dict[str, int] = {}
        self.places = 0
        self.wallet_key = key_of(name)
        self.price = Msat(stall.price)
        self.mints, self.urls = _ROOMS[stall.mints](world.mints)
        self.purse = Purse(world, self, "seller", self.op_ended)
        self.custodian = Custodian(self) if stall.way == PREPAID else None
        self.meter = admission.Meter(ALLOWED.burst, ALLOWED.per_second)
        self.declines = admission.Meter(10, 5.0)
        self.looked_at: dict[str, set[str]] = {}
        self.clumsy = "clumsy provider" in world.faults
        self.way = stall.way
        self.settlement = ORDER if self.way == ORDERED else OFFER
        self.sold_to: dict[str, list[str]] = {}  # by customer: its requests
        self.gifts = Gifts(self) if world.plot.gifts else None
        self._rows = Rows(self)
        self._lending = Lending(self._rows, CREDIT, self._open_sales)

    # ---- life

    def forget(self) -> None:
        """The process died."""
        self.looked_at, self.open, self.quotes, self.places = {}, {}, {}, 0
        self.meter = admission.Meter(ALLOWED.burst, ALLOWED.per_second)
        self.purse.forget()
        for part in (self.custodian, self.gifts):
            if part is not None:
                part.forget()

    def restart(self) -> None:
        world = self.world
        for request_id, kept in self.disk.items():
            if kept.state in ENDED:
                continue
            sale = decode(Sale, encode(kept))
            if sale != kept:
                world.judge.breach("M4", f"a sale of {self.name} did not survive its way through the database")
            self._take_place(sale)
            self.act(request_id, machine.resumed(sale))
            if sale.state is State.QUOTED:
                self._watch_expiry(sale)
            if sale.invoice_id:
                world.soon(self, 1, self._tell_invoice, request_id)
        for msg in list(self.outbox.values()):
            world.send(self, msg)
        for part in (self.custodian, self.gifts):
            if part is not None:
                part.restart()
        self.purse.recover()

    def _take_place(self, sale: Sale) -> None:
        if sale.state is State.LAPSED:
            return
        self.open[sale.customer] = self.open.get(sale.customer, 0) + 1
        self.places += 1
        if sale.quote_id:
            self.quotes[sale.quote_id] = sale.request_id

    # ---- what comes in

    def hear(self, msg: Msg) -> None:
        if msg.signer != msg.author:
            return
        if msg.kind == "request":
            self._requested(msg)
        elif msg.kind == "wrap":
            self._paid(msg)
        elif msg.kind == "prepaid":
            if self.custodian is not None:
                self.custodian.hear(msg)
        elif msg.kind == "voucher":
            self._drawn(msg)
        elif msg.kind == "nutzap":
            if self.gifts is not None:
                self.gifts.hear(msg)
        elif msg.kind == "order":
            self._ordered(msg)
        elif msg.kind == "cosign":
            self._signed(msg)
        elif msg.kind == "cancel" and msg.ref in self.disk:
            self.tell(msg.ref, machine.Cancelled(msg.author))

    def _requested(self, msg: Msg) -> None:
        world = self.world
        if not self.meter.take(msg.author, world.now / 1000):
            world.coverage.actors["a request above the rate of one key"] += 1
            return
        if msg.id in self.disk:
            return self.tell(msg.id, machine.AskedAgain(world.now // 1000))
        request = msg.body
        kind = request.kind % 100_000
        free = kind == FREE
        offering = admission.Offering(
            NOTHING if free else self.price, () if free else self.urls, ROOM - self.places,
            invoices=self.way in (INVOICED, LENT) and not free,
        )  # fmt: skip
        taken = self.open.get(request.customer, 0)
        now, kinds = world.now // 1000, (request.kind,)
        expired = request.deadline is not None and request.deadline <= now
        if expired or admission.screen(request.raw, ourselves=PubKey(self.key), now=now, kinds=kinds, limits=ALLOWED):
            return
        load = admission.Load(taken, taken) if taken else UNTAKEN
        decision = admission.judge(request, offering, load, ALLOWED, now=now)
        if type(decision) in TAKEN and any(item.type != "text" for item in request.inputs):
            world.coverage.actors["a reference that is not fetched"] += 1
            decision = admission.Decline("references are not served")
        if type(decision) is admission.Decline:
            if self.declines.take("", world.now / 1000):
                self._say("word", request, f"declined {msg.id}", "error")
            return
        if type(decision) is admission.Ignore:
            return
        self._begin(msg, offering.price, decision)

    def _begin(self, msg: Msg, price: Msat, decision: Any) -> None:
        world, request = self.world, msg.body
        asked = msg.id, world.now // 1000
        allowed = world.allowed.get(asked)  # each seller's gate is asked the same, and it is pure
        if allowed is None:
            intent = Intent(f"customer:{request.customer}", "/serve/5050", msg.id, b"", EffectClass.EXTERNAL, msg.id)
            decided = gate.judge(intent, WRIT, LIMITS["uusd"], gate.Facts(asked[1], False))
            allowed = world.allowed[asked] = type(decided) is gate.Allow
        if not allowed:
            return
        mints = decision.mints if price else ()
        sale = Sale(msg.id, msg.id, request.customer, request.kind, msg.id, price, mints=mints)
        if not price:
            return self.step(sale, machine.Admitted())
        if self.way in (INVOICED, LENT) or self.gifts is not None:
            self.sold_to.setdefault(sale.customer, []).append(sale.request_id)
            owed = self._owed(sale)
            if owed is not None:
                return self.step(sale, machine.CreditTaken(sale.price, owed[0]), owed[1])
        if decision.invoice and self.way == LENT and self._lends(sale):
            return self.step(sale, machine.Lent())
        if decision.invoice and self.way in (INVOICED, LENT):
            return self.step(sale, machine.InvoiceWanted())
        self.step(sale, self._quoted(sale, None))
        self._watch_expiry(self.disk[msg.id])

    def _quoted(self, sale: Sale, stored: Stored | None) -> Any:
        """The signed quote: payable by an invoice, or with ecash, perhaps for a sealed result."""
        world, customer = self.world, sale.customer
        request_id = sale.request_id
        expires = world.now // 1000 + (20 if world.plot.seed & 4 else 60)
        body: dict[str, Any] = {
            "id": f"q {self.name} {request_id}",
            "price": sale.price,
            "expires": expires,
            "eta": ETA_S,
            "mints": sale.mints,
            "key": self.wallet_key,
        }
        mode = hash_ = invoice = ""
        if stored is not None:
            bolt11 = stored.terms
            expires = body["expires"] = min(expires, bolt11.expires_at)
            invoice = body["invoice"] = bolt11.text
            body["mints"] = ()
        elif self.way in (SEALED, ORDERED):
            mode = self._mode(sale)
        elif self.custodian is not None:
            body["prepaid"] = self._balance(self.custodian, sale, expires)
        if mode:
            hash_ = hash_of(preimage_of(self.name, request_id))
            body |= {"mode": mode, "hash": hash_, "seal_key": self.wallet_key}
        quote = Msg(f"quote {self.name} {request_id}", "quote", self.key, request_id, customer, body)
        self.made[quote.id] = quote
        name = stored.id if stored is not None else ""
        return machine.Quoted(body["id"], expires, quote.id, invoice, name, mode, hash_)

    def _balance(self, custodian: Custodian, sale: Sale, expires: int) -> PayMethod | None:
        """As `dvm.quoting`: the customer's deposit here, if the job can be drawn from it."""
        found = custodian.offer(sale.customer, sale.price, expires + ETA_S)
        if found is None:
            return None
        total = (found.held if found.busy else found.total).value
        return PayMethod("prepaid", found.mint, "sat", self.wallet_key, deposit=found.id, seq=found.seq, total=total)

    def _mode(self, sale: Sale) -> str:
        """As `dvm.quoting`: mode A only for who has not had work done for nothing, and not often at once (M7)."""
        request = self.world.log[sale.request_id].body
        if not request.seal_key or not request.cosign_key:
            return ""
        theirs = [one for one in self.disk.values() if one.customer == sale.customer]
        banned = any(one.state is State.LOST and one.paid_by == MODE_A and not one.paid for one in theirs)
        open_ = sum(one.mode == MODE_A and not one.paid and one.state not in ENDED for one in theirs)
        trusted = not banned and open_ < self.settlement.orders_per_customer
        return self.settlement.mode_for(sale.price, request.modes, trusted=trusted)

    def _say(self, kind: str, request: Any, id_: str, content: str) -> None:
        """An answer of a sort that nothing is remembered of but the outbox."""
        msg = Msg(f"{id_} {self.name}", kind, self.key, request.event_id, request.customer, None, content)
        self.outbox[msg.id] = msg
        self.world.send(self, msg)

    # ---- the machine

    def tell(self, request_id: str, event: Any) -> None:
        self.step(self.disk[request_id], event)

    def step(self, sale: Sale, event: Any, beside: tuple[Beside, ...] = ()) -> None:
        """Step, persist (with what changes in the same commit), act."""
        after, effects = machine.step(sale, event)
        if after is sale and not effects:
            return
        if after.deposit and self.custodian is not None:
            counts = [effect for effect in effects if type(effect) is machine.CountVoucher]
            beside += tuple([self.custodian.ended(after.deposit, after.request_id, one.ok) for one in counts])
        world = self.world
        request_id = after.request_id
        new = request_id not in self.disk
        label = LABELS[after.state]
        if after is not sale:
            world.before(self, label)
            for name, _ in beside:
                world.before(self, name)
            self.disk[request_id] = after
            world.judge.sale(self, sale, after, type(event))
        posts = [self._written(after, effect) for effect in effects]
        for _, write in beside:
            write()
        if new:
            self._take_place(after)
        elif after.state is not sale.state:
            self._places(sale, after)
        if after is not sale:
            world.after(self, label)
            for name, _ in beside:
                world.after(self, name)
        for msg in posts:
            if msg is not None:
                world.send(self, msg)
        self.act(request_id, effects)

    def _places(self, sale: Sale, after: Sale) -> None:
        """A sale that is over, or whose quote is, takes nobody's place."""
        if (after.state in ENDED or after.state is State.LAPSED) and sale.state not in ENDED:
            if sale.state is not State.LAPSED:
                self.open[after.customer] -= 1
                self.places -= 1
                self.quotes.pop(after.quote_id, None)
        elif sale.state is State.LAPSED:
            self.open[after.customer] = self.open.get(after.customer, 0) + 1
            self.places += 1

    def _written(self, after: Sale, effect: Any) -> Msg | None:
        kind = type(effect)
        if kind is machine.Send:
            msg = self.made[after.answer]
        elif kind is machine.SendWord or kind is machine.SendReceipt:
            status = effect.status if kind is machine.SendWord else "success"
            id_ = f"{status} {self.name} {after.request_id}"
            msg = Msg(id_, "word", self.key, after.request_id, after.customer, None, status)
        else:
            return None
        self.outbox[msg.id] = msg
        return msg

    def act(self, request_id: str, effects: list[Any]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is machine.Work:
                sale = self.disk[request_id]
                if sale.locktime and sale.locktime - _needs(sale) <= self.world.now // 1000:
                    self.world.soon(self, 1, self.tell, request_id, machine.WorkFailed("the time is over"))
                    continue
                self.world.judge.works(self, sale)
                self.world.soon(self, 300 + int(self.world.turn() * 2_000), self._worked, request_id)
            elif kind is machine.Ship:
                self.world.soon(self, 500, self._shipped, request_id)
            elif kind is machine.Claim:
                self._claim(request_id)
            elif kind is machine.MakeInvoice:
                self._make_invoice(request_id)
            elif kind is machine.AwaitSignatures:
                self._await_signatures(request_id)
            elif kind is machine.LookAtInvoice:
                self._look_at_invoice(request_id)

    def _worked(self, request_id: str) -> None:
        sale = self.disk[request_id]
        if self.clumsy and self.world.turn() < 0.5:
            self.world.coverage.faults["clumsy provider"] += 1
            return self.tell(request_id, machine.WorkFailed("no"))
        if sale.price and not sale.lent and self._lot(request_id) % 6 == 0:  # no draw: old seeds tell the same
            return self.tell(request_id, machine.WorkPacked(Packed(request_id, request_id, 1, "text/plain")))
        self._deliver(request_id)

    def _lot(self, request_id: str) -> int:
        return self.world.plot.seed + crc32(request_id.encode())

    def _shipped(self, request_id: str) -> None:
        """The file servers took a large result, or none of them did."""
        if self._lot(request_id) % 18 == 0:
            return self.tell(request_id, machine.WorkFailed("no server took it"))
        self._deliver(request_id)

    def _deliver(self, request_id: str) -> None:
        sale = self.disk[request_id]
        if sale.lent:
            return self._bill(request_id)
        result = self._result(sale)
        if not sale.price:
            result.body = Msat(0)
        elif sale.paid_by:
            result.body = sealed(self.name, request_id, result.content)
            result.content = "sealed"
        self.made[result.id] = result
        self.tell(request_id, machine.WorkDone(result.id, self.world.now // 1000))

    def _result(self, sale: Sale) -> Msg:
        name = f"result {self.name} {sale.request_id}"
        return Msg(name, "result", self.key, sale.request_id, sale.customer, None, f"by {self.name}")

    def _watch_expiry(self, sale: Sale) -> None:
        self.world.at(max(self.world.now, sale.expires_at * 1000) + 500, self, self._lapse, sale.request_id)

    def _lapse(self, request_id: str) -> None:
        sale = self.disk[request_id]
        if sale.state is not State.QUOTED:
            self.world.events -= 1
        elif sale.invoice:
            self.tell(request_id, machine.QuoteLapsed(self.world.now // 1000))
            self._tell_invoice(request_id)
        elif self.looked_at.get(request_id, set()) - {""}:
            self.world.soon(
                self, 1_000, self._lapse, request_id
            )  # a payment that came in time is still being looked at
        else:
            self.tell(request_id, machine.QuoteLapsed(self.world.now // 1000))

    # ---- payments

    def _paid(self, msg: Msg) -> None:
        body = msg.body
        request_id = self.quotes.get(body["quote"])
        if request_id is None or msg.ref != request_id:
            return
        sale = self.disk[request_id]
        if msg.author != sale.customer or not _open_to_pay(sale, body.get("mode", "")):
            return
        tried = self.looked_at.setdefault(request_id, set())
        if msg.id in tried or len(tried) >= MAX_PAYMENTS:
            return
        tried.add(msg.id)
        self._verify(request_id, msg, self.world.now // 1000, 500)

    def _verify(self, request_id: str, msg: Msg, came_at: int, pause: int) -> None:
        """What `Wallet.verify` does, with the product's own checks."""
        sale = self.disk[request_id]
        body = msg.body
        mode = body.get("mode", "")
        if not _open_to_pay(sale, mode):
            return
        try:
            mint, names, net, locktime = appraised(self, body, self._wanted(sale, came_at, mode))
        except TokenRejected as error:
            self.world.coverage.checks[f"payment refused: {error.code}"] += 1
            return self._refuse(request_id, msg, error.code)

        def heard(word: str, free: bool) -> None:
            if word != "ok":
                self.world.soon(self, pause, self._verify, request_id, msg, came_at, min(pause * 2, 30_000))
            elif not free:
                self._refuse(request_id, msg, "spent")
            else:
                self._accept(request_id, msg, came_at, mint, names, net, locktime)

        self.world.ask(self, lambda: unspent(mint, names), heard)

    def _refuse(self, request_id: str, msg: Msg, code: str) -> None:
        self.looked_at.get(request_id, set()).discard(msg.id)
        self.looked_at.setdefault(request_id, set()).add("")
        self.tell(request_id, machine.PaymentRefused(msg.author, code))

    def _accept(
        self, request_id: str, msg: Msg, came_at: int, mint: Mint, names: tuple[str, ...], net: Msat, locktime: int
    ) -> None:
        sale = self.disk[request_id]
        if any(self.incoming.get(name, sale.quote_id) != sale.quote_id for name in names):
            return self._refuse(request_id, msg, "reused")
        self.world.before(self, "seller incoming coins")
        for name in names:
            self.incoming[name] = sale.quote_id
        self.world.after(self, "seller incoming coins")
        verified = machine.PaymentVerified(
            came_at, msg.id, msg.id, msg.author, mint.url, names, net, locktime, msg.body.get("mode", "")
        )
        self.tell(request_id, verified)
        self.looked_at.pop(request_id, None)

    def _wanted(self, sale: Sale, came_at: int, mode: str) -> VerifyTerms:
        needs = COSIGN_MARGIN_S + CLAIM_NEED_S if mode == MODE_B else CLAIM_MARGIN_S
        cosigner = self.world.log[sale.request_id].body.cosign_key if mode == MODE_B else ""
        return VerifyTerms(
            sale.quote_id, sale.price, sale.mints, self.wallet_key,
            came_at + (0 if mode == MODE_A else ETA_S) + needs, sale.hash if mode else "", cosigner,
        )  # fmt: skip

    def _drawn(self, msg: Msg) -> None:
        """A voucher: taken with the price of this sale in one commit, or refused."""
        request_id = self.quotes.get(msg.body["quote"])
        sale = self.disk.get(request_id) if request_id is not None else None
        if sale is None or msg.author != sale.customer or sale.state is not State.QUOTED or self.custodian is None:
            return
        try:
            kept, held = self.custodian.take(msg.body["voucher"], msg.author, sale.request_id, sale.price)
        except VoucherRefused as error:
            self.world.coverage.checks[f"voucher refused: {error.code}"] += 1
            return self.tell(sale.request_id, machine.PaymentRefused(msg.author, error.code))
        until = kept.due_at + CLAIM_MARGIN_S
        now = self.world.now // 1000
        self.step(sale, machine.VoucherTaken(now, msg.author, kept.id, kept.mint, until), (held,))

    # ---- sealed results

    def _ordered(self, msg: Msg) -> None:
        request_id = self.quotes.get(msg.body["quote"])
        if request_id is not None and msg.ref == request_id:
            self.tell(request_id, machine.Ordered(self.world.now // 1000, msg.author))

    def _signed(self, msg: Msg) -> None:
        """The customer's signatures: taken if each is good for its coin."""
        request_id = self.quotes.get(msg.body["quote"])
        sale = self.disk.get(request_id) if request_id is not None else None
        if sale is None or request_id is None or sale.state is not State.SEALED or msg.author != sale.customer:
            return
        good = signatures(self.world.log[request_id].body.cosign_key, sale.ys)
        if msg.body["signed"] != good:
            self.world.coverage.checks["co-signature refused"] += 1
            return
        self.tell(request_id, machine.Cosigned(msg.author, good))

    def _await_signatures(self, request_id: str) -> None:
        sale, world = self.disk[request_id], self.world
        world.at(max(world.now, (sale.locktime + UNSIGNED_S) * 1000) + 500, self, self._unsigned, request_id)

    def _unsigned(self, request_id: str) -> None:
        if self.disk[request_id].state is not State.SEALED:
            self.world.events -= 1
            return
        self.tell(request_id, machine.Unsigned(self.world.now // 1000))

    # ---- claiming

    def _claim(self, request_id: str) -> None:
        sale = self.disk[request_id]
        if sale.state is not State.DELIVERED:
            return
        id_ = f"claim {self.name} {request_id}"
        stored = self.purse.ops.get(id_)
        if stored is not None and stored.op.state is not Op.REFUSED:
            if stored.op.state is Op.DONE:
                self.op_ended(stored)
            else:
                self.purse.resume(stored)
            return
        mint = next(mint for mint in self.mints if mint.url == sale.mint)
        worth = sum(mint.signed[name].amount for name in sale.ys)
        unlock = Unlock(preimage_of(self.name, request_id), sale.cosigned) if sale.paid_by else None
        self.purse.begin(id_, Kind.CLAIM, mint, sale.ys, worth, self.wallet_key, request_id, None, unlock=unlock)

    def op_ended(self, stored: Stored) -> None:
        request_id = stored.subject
        if stored.kind is Kind.DEPOSIT:
            return self._tell_invoice(stored.key)
        if self.gifts is not None and request_id in self.gifts.disk:
            return self.gifts.op_ended(stored)
        if self.custodian is not None and request_id in self.custodian.disk:
            return self.custodian.op_ended(stored)
        if stored.op.state is Op.DONE:
            net = sum(output.amount for output in stored.outputs)
            return self.tell(request_id, machine.Claimed(Msat.of_sat(net)))
        sale = self.disk[request_id]
        late = self.world.now // 1000 >= sale.locktime + GIVE_UP_S
        if stored.reason == "lost_race" or late:
            self.tell(request_id, machine.ClaimRefused(stored.reason))
        else:
            self.world.soon(self, 2_000, self._claim, request_id)

    def waits(self, stored: Stored) -> None:
        """Nobody needs to know."""


def _open_to_pay(sale: Sale, mode: str) -> bool:
    """Whether a payment is looked at now: before the work, or in mode A after it."""
    if mode and mode != sale.mode:
        return False
    return sale.state is (State.SEALED if mode == MODE_A else State.QUOTED)


def _needs(sale: Sale) -> int:
    """Seconds that the claim needs of the locktime."""
    return COSIGN_MARGIN_S + CLAIM_NEED_S if sale.paid_by else CLAIM_MARGIN_S
