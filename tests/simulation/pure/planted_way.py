"""Faults planted in what pays for sealed results and invoices; see `planted`."""

from dataclasses import replace
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from core.money import Msat
from dvm import buyer, buyer_rule, seal_rule, seller, voucher_rule
from dvm import invoice as bills
from dvm.buyer import F, Rule, S
from dvm.settlement import MODE_A, Settlement
from tests.simulation.pure import buyer as buyers
from tests.simulation.pure import purse
from tests.simulation.pure.lightning import read
from wallet import payment
from wallet.invoice import MAINNET
from wallet.payment import Effect, State

Table = Any


def rows(patch: MonkeyPatch, table: Table, where: Any, **changes: Any) -> None:
    """The rules of one place, with changes."""
    patch.setitem(table, where, tuple(replace(rule, **changes) for rule in table[where]))


def saga(patch: MonkeyPatch, name: str, **changes: Any) -> None:
    """A row of the wallet's saga, with changes."""
    changed = tuple(replace(row, **changes) if row.name == name else row for row in payment.TRANSITIONS)
    patch.setattr(payment, "TRANSITIONS", changed)


def pays_again(patch: MonkeyPatch) -> None:
    """After a restart an invoice whose payment is in doubt is paid under another name."""
    old = buyer.resumed

    def resumed(job: Any, now: int) -> Any:
        return [
            replace(one, payment=replace(one.payment, op_id=f"{one.payment.op_id}-{now}"))
            if isinstance(one, buyer.Pay)
            else one
            for one in old(job, now)
        ]

    patch.setattr(buyer, "resumed", resumed)


def in_flight_is_no(patch: MonkeyPatch) -> None:
    """A payment that is still under way is called failed."""
    saga(patch, "in_flight", to=State.REFUSED, effect=Effect.RELEASE)
    saga(patch, "in_progress", to=State.REFUSED, effect=Effect.RELEASE)


def unknown_is_failed(patch: MonkeyPatch) -> None:
    """One copy of a request to pay was refused; that another may still arrive is not thought of."""
    saga(patch, "may_arrive", to=State.REFUSED, effect=Effect.RELEASE)


def early_refund(patch: MonkeyPatch) -> None:
    """Money is asked back before its locktime."""
    patch.setattr(voucher_rule, "refund_from_ms", lambda paid: paid.locktime * 1000 - 60_000)
    rows(patch, buyer.TRANSITIONS, (F.LOCKED, buyer.LocktimePassed), when=buyer_rule.always)


def signs_late(patch: MonkeyPatch) -> None:
    """A co-signature is given though the seller may come too late with its key."""
    patch.setattr(seal_rule, "safe_until_ms", lambda paid: 1 << 60)


def unverified(patch: MonkeyPatch) -> None:
    """What the key opened, or did not open, is delivered as it is."""
    done = Rule(S.DELIVERED, seal_rule.deliver_opened)
    patch.setitem(buyer.TRANSITIONS, (S.SEALED, buyer.KeyShown), (done,))


def signs_unseen(patch: MonkeyPatch) -> None:
    """Nobody compares the ciphertext with the hash that is signed."""
    where = (S.WORKING, buyer.SealedArrived)
    kept = Rule(S.SEALED, seal_rule.keep_sealed, buyer_rule.from_chosen)
    patch.setitem(buyer.TRANSITIONS, where, (kept,))


def pays_before_it_is_there(patch: MonkeyPatch) -> None:
    """An order is paid at once, as if the seller could be held to it."""
    patch.setattr(buyer_rule, "mode_of", lambda offer: "")


def no_hash(patch: MonkeyPatch) -> None:
    """Money for a sealed result is locked to the seller's key alone."""

    def begin(job: Any, event: Any) -> Any:
        after, effects = buyer_rule.begin_lock(job, event)
        bare = replace(after.payment, hash="")
        return replace(after, payment=bare), [
            replace(one, payment=bare) if isinstance(one, buyer.Lock) else one for one in effects
        ]

    patch.setitem(buyer.TRANSITIONS, (F.NONE, buyer.Chosen), (Rule(F.LOCKING, begin),))


def one_key(patch: MonkeyPatch) -> None:
    """The key that signs beside the seller is also the one that takes the money back."""
    patch.setattr(buyers.Buyer, "refund_key", lambda self, op_id: self.cosign_key)


def any_amount(patch: MonkeyPatch) -> None:
    """What the invoice asks for is not compared with what was quoted."""
    old = bills.Checkout.bill

    def bill(self: Any, text: str, price: Msat, *rest: Any) -> Any:
        return old(self, text, Msat(read(text).amount_msat or 0), *rest)

    patch.setattr(bills.Checkout, "bill", bill)


def any_network(patch: MonkeyPatch) -> None:
    """Nobody looks on which network an invoice is to be paid."""
    old = bills.Checkout.bill
    both = frozenset({MAINNET, "bcrt"})
    patch.setattr(bills.Checkout, "bill", lambda self, *rest: old(replace(self, currencies=both), *rest))


def no_receipt(patch: MonkeyPatch) -> None:
    """The mint's word that it paid is enough."""
    patch.setattr(purse, "receipt", lambda plan, quote, **more: "")


def works_unpaid(patch: MonkeyPatch) -> None:
    """The invoice is out, so the work begins."""

    def quote(sale: Any, event: Any) -> Any:
        after, effects = seller._quote(sale, event)
        return replace(after, by_invoice=True), [*effects, seller.Work()]

    rule = seller.Rule(seller.State.WORKING, quote)
    patch.setitem(seller.TRANSITIONS, (seller.State.INVOICING, seller.Quoted), (rule,))


def owed_twice(patch: MonkeyPatch) -> None:
    """What is owed to a customer is served, and stays owed."""
    rule = seller.Rule(seller.State.OWED, lambda sale, event: (sale, []))
    patch.setitem(seller.TRANSITIONS, (seller.State.OWED, seller.CreditSpent), (rule,))


def orders_without_end(patch: MonkeyPatch) -> None:
    """Whoever has not paid for an order gets the next one."""

    def mode_for(self: Any, price: Msat, modes: Any, *, trusted: bool) -> str:
        return MODE_A if MODE_A in modes else ""

    patch.setattr(Settlement, "mode_for", mode_for)


def never_seen_again(patch: MonkeyPatch) -> None:
    """A seller that was away does not wait for its customer's signatures any more."""
    old = seller.resumed
    dropped = seller.AwaitSignatures
    patch.setattr(seller, "resumed", lambda sale: [one for one in old(sale) if not isinstance(one, dropped)])


def pay_forgotten(patch: MonkeyPatch) -> None:
    """A payment that was under way is not taken up again, neither by the job nor by the wallet."""
    old = buyer.resumed
    patch.setattr(buyer, "resumed", lambda job, now: [one for one in old(job, now) if not isinstance(one, buyer.Pay)])
    ended = buyers.Buyer.op_ended
    patch.setattr(buyers.Buyer, "op_ended", lambda self, stored: None if stored.kind == "melt" else ended(self, stored))


def paid_is_free(patch: MonkeyPatch) -> None:
    """What an invoice took is booked without its fees."""
    old = buyer_rule.pay_done

    def done(job: Any, event: Any) -> Any:
        return old(job, replace(event, gross=event.amount))

    patch.setitem(buyer.TRANSITIONS, (F.LOCKING, buyer.InvoicePaid), (Rule(F.CLAIMED, done, buyer_rule.our_lock),))
