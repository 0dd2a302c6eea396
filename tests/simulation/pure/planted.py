"""Faults planted in the pure machines: the judge of the fast tier must catch each within some hundred histories.

Those that `tests/property/planted_part.py` has for the drivers' simulation, and that lie in these machines, are planted
here as they stand there. `area` is what would be lost or doubled for a user.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from core.money import Msat
from dvm import admission, buyer, buyer_rule, selection, seller
from dvm.buyer import F, Rule, S
from dvm.job import Funds, Purchase
from tests.property.planted_part import PLANTED as IN_DRIVERS
from tests.simulation.pure import buyer as buyers
from tests.simulation.pure import planted_balance as bank
from tests.simulation.pure import planted_credit as credit
from tests.simulation.pure import planted_way as new
from tests.simulation.pure import way
from tests.simulation.pure.cast import HONEST, Crash, Plot
from tests.simulation.pure.plot import locked, plain
from wallet import payment, verification
from wallet.payment import Coins, Effect, LookedUp, NeverSent, Signed, State


@dataclass(frozen=True)
class Planted:
    """A fault, the rule that it breaks, and what else must go wrong in a history for it to show soon."""

    rule: str
    name: str
    plant: Callable[[MonkeyPatch], None]
    faults: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    way: Callable[[Plot, random.Random], Plot] | None = None
    rogue: str = ""
    crash: str = ""
    down: int = 200

    def plot(self, seed: int) -> Plot:
        if self.way is None:
            script = locked(seed)
        else:
            chance = random.Random(seed)
            script = self.way(plain(seed, chance), chance)
        if self.rogue and script.stalls:
            first = replace(script.stalls[0], style=self.rogue, price=1_000, mints=3)
            script = replace(script, stalls=(first, *script.stalls[1:]))
        crashes = (Crash(self.crash, False, self.down),) if self.crash else script.crashes
        faults, strangers = self.faults or script.faults, self.strangers or script.strangers
        return replace(script, faults=faults, strangers=strangers, crashes=crashes)


def _rows(patch: MonkeyPatch, table: Any, where: Any, change: Callable[[Any], Any]) -> None:
    patch.setitem(table, where, tuple(change(rule) for rule in table[where]))


def _saga(patch: MonkeyPatch, name: str, **changes: Any) -> None:
    rows = tuple(replace(row, **changes) if row.name == name else row for row in payment.TRANSITIONS)
    patch.setattr(payment, "TRANSITIONS", rows)


# -- the buyer


def _expired_quote(patch: MonkeyPatch) -> None:
    """A quote is accepted, and its money handed out, though it has expired."""
    patch.setattr(selection, "_stands", lambda offer, now: True)
    _rows(patch, buyer.TRANSITIONS, (S.PAYING, buyer.LockDone), lambda rule: replace(rule, when=buyer_rule.locked))


def _above_quote(patch: MonkeyPatch) -> None:
    """The seller gets more than it quoted."""

    def begin(job: Any, event: Any) -> Any:
        after, effects = buyer_rule.begin_lock(job, event)
        paying = replace(after.payment, price=after.payment.price + Msat(1_000))
        return replace(after, payment=paying), [
            replace(one, payment=paying) if isinstance(one, buyer.Lock) else one for one in effects
        ]

    patch.setitem(buyer.TRANSITIONS, (F.NONE, buyer.Chosen), (Rule(F.LOCKING, begin),))


def _above_reservation(patch: MonkeyPatch) -> None:
    """Nobody compares a quote with what is reserved."""
    old = selection._refusal
    patch.setattr(selection, "_refusal", lambda offer, ceiling, now, deadline: old(offer, Msat(1 << 50), now, deadline))

    def begin(job: Any, event: Any) -> Any:
        wide = replace(job, limit=replace(job.limit, ceiling=Msat(1 << 50)))
        after, effects = buyer_rule.begin_lock(wide, event)
        return replace(after, limit=job.limit), effects

    patch.setitem(buyer.TRANSITIONS, (F.NONE, buyer.Chosen), (Rule(F.LOCKING, begin),))


def _no_refund(patch: MonkeyPatch) -> None:
    """Nobody takes money back."""
    patch.setitem(buyer.TRANSITIONS, (F.LOCKED, buyer.LocktimePassed), ())


def _forgets(kind: type) -> Callable[[MonkeyPatch], None]:
    """After a restart one thing that was under way is not taken up again."""

    def plant(patch: MonkeyPatch) -> None:
        old = buyer.resumed
        patch.setattr(buyer, "resumed", lambda job, now: [one for one in old(job, now) if not isinstance(one, kind)])

    return plant


def _refund_forgotten(patch: MonkeyPatch) -> None:
    """A refund that was under way is not taken up again, neither by the job nor by the wallet's background work."""
    _forgets(buyer.Refund)(patch)
    patch.setattr(
        buyers.Buyer, "op_ended", lambda self, stored: None if stored.kind == "refund" else _op_ended(self, stored)
    )


_op_ended = buyers.Buyer.op_ended


def _free_claim(patch: MonkeyPatch) -> None:
    """What a seller took is booked as if it had cost nothing."""
    old = Purchase.cost
    assert old.fget is not None
    cost = old.fget
    patch.setattr(Purchase, "cost", property(lambda job: Msat(0) if job.money is Funds.CLAIMED else cost(job)))


def _refund_at_no_gain(patch: MonkeyPatch) -> None:
    """What came back is not counted."""
    _rows(
        patch,
        buyer.TRANSITIONS,
        (F.REFUNDING, buyer.RefundDone),
        lambda rule: replace(rule, do=lambda job, event: (job, [])),
    )


def _refund_is_claim(patch: MonkeyPatch) -> None:
    """Our own refund passes for the seller's claim."""
    _rows(patch, buyer.TRANSITIONS, (F.REFUNDING, buyer.RefundDone), lambda rule: replace(rule, to=F.CLAIMED))


def _offer_twice(patch: MonkeyPatch) -> None:
    """An answer that comes again counts again."""
    patch.setattr(Purchase, "offer", lambda self, event_id: None)


# -- the seller


def _claim_first(patch: MonkeyPatch) -> None:
    """The money is taken before there is a result."""

    def take(sale: Any, event: Any) -> Any:
        after, effects = seller._take_payment(sale, event)
        return after, [*effects, seller.Claim()]

    rule = seller.Rule(seller.State.DELIVERED, take, seller._in_time)
    patch.setitem(seller.TRANSITIONS, (seller.State.QUOTED, seller.PaymentVerified), (rule,))


def _anybody_cancels(patch: MonkeyPatch) -> None:
    """A deletion counts whoever signed it."""
    where = (seller.State.QUOTED, seller.Cancelled)

    def open_to_all(rule: Any) -> Any:
        return replace(rule, when=lambda sale, event: True) if rule.when is seller._is_customer else rule

    _rows(patch, seller.TRANSITIONS, where, open_to_all)


def _late_payment(patch: MonkeyPatch) -> None:
    """A payment is taken though the quote has expired."""
    where = (seller.State.QUOTED, seller.PaymentVerified)
    _rows(patch, seller.TRANSITIONS, where, lambda rule: replace(rule, when=lambda sale, event: True))


def _works_again(patch: MonkeyPatch) -> None:
    """A request that comes again is worked again."""
    for state in (seller.State.QUOTED, seller.State.WORKING, seller.State.DONE):
        rule = seller.Rule(state, lambda sale, event: (sale, [seller.Work()]))
        patch.setitem(seller.TRANSITIONS, (state, seller.AskedAgain), (rule,))


def _claim_forgotten(patch: MonkeyPatch) -> None:
    """A delivered job's money is not asked for after a restart."""
    old = seller.resumed
    patch.setattr(seller, "resumed", lambda sale: [one for one in old(sale) if not isinstance(one, seller.Claim)])


def _unlimited(patch: MonkeyPatch) -> None:
    """A key may have any number of open quotes."""
    patch.setattr(admission, "most_open", lambda *_: 1 << 30)


# -- what a payment is worth


def _first_coin_only(patch: MonkeyPatch) -> None:
    """A coin that carries no proof of the mint's signature ends the check, and passes (as in nutshell 0.20.2)."""
    old = verification.check_coins

    async def check(paid: Any, book: Any, *, needs_dleq: bool = True) -> Any:
        shown = tuple(proof for proof in paid.proofs if proof.dleq is not None)
        await old(replace(paid, proofs=shown), book)
        return paid.proofs

    patch.setattr(verification, "check_coins", check)


def _any_lock(patch: MonkeyPatch) -> None:
    """Nobody looks to whom coins are locked."""
    old = verification.check_locks

    def check(paid: Any, terms: Any) -> int:
        key = verification.read_lock(paid.proofs[0].secret).pubkey
        return old(paid, replace(terms, wallet_pubkey=key))

    patch.setattr(verification, "check_locks", check)


def _short_lock(patch: MonkeyPatch) -> None:
    """Nobody looks for how long coins are locked."""
    old = verification.check_locks
    patch.setattr(verification, "check_locks", lambda paid, terms: old(paid, replace(terms, min_locktime=0)))


def _uncounted(patch: MonkeyPatch) -> None:
    """Nobody counts the coins."""
    old = verification.check_locks
    patch.setattr(verification, "check_locks", lambda paid, terms: old(paid, replace(terms, price=Msat(1))))
    patch.setattr(verification, "check_worth", lambda coins, book, terms, locktime: terms.price)


# -- the wallet


def _absent_is_no(patch: MonkeyPatch) -> None:
    """What the mint does not know of yet is given up, though the request may still be on its way."""

    def absent(operation: Any, event: Any) -> bool:
        return isinstance(event, LookedUp) and event.outputs is Signed.NONE and event.inputs is Coins.UNSPENT

    _saga(patch, "never_happened", when=absent)


def _pending_is_no(patch: MonkeyPatch) -> None:
    """Coins that the mint is working on are called free."""
    _saga(patch, "in_progress", to=State.REFUSED, effect=Effect.RELEASE)


def _unreachable_is_no(patch: MonkeyPatch) -> None:
    """A mint that cannot be reached now is taken for one that was never asked."""
    rows = tuple(
        replace(row, to=State.REFUSED, effect=Effect.RELEASE)
        if row.event is NeverSent and row.name == "still_unreachable"
        else row
        for row in payment.TRANSITIONS
    )
    patch.setattr(payment, "TRANSITIONS", rows)


def _lost_is_won(patch: MonkeyPatch) -> None:
    """Coins that somebody else was first to spend are booked as ours."""
    _saga(patch, "lost_race", to=State.DONE, effect=Effect.BOOK)


def _unsent_is_booked(patch: MonkeyPatch) -> None:
    """Coins are counted that nobody was asked for."""
    _saga(patch, "never_sent", to=State.DONE, effect=Effect.BOOK)


_SHARED = (
    "pays the next seller too", "locks to the identity key", "takes the dearest", "closes while money is locked",
    "silence is taken for a no", "doubt is taken for a failure", "anybody's result counts", "ceilings are rounded up",
    "the rate of a job moves", "costs are booked in another unit",
)  # fmt: skip
_MORE = {"anybody's result counts": ("impostor",)}
_THERE = {one.name: Planted(one.rule, one.name, one.plant, (), _MORE.get(one.name, ())) for one in IN_DRIVERS}

PLANTED = (
    *(_THERE[name] for name in _SHARED),
    Planted("M2", "an expired quote is accepted", _expired_quote, faults=("mint: stalls",)),
    Planted("M2", "more is paid than was quoted", _above_quote),
    Planted("M1", "the reservation is not looked at", _above_reservation),
    Planted("M4", "refunds are dropped", _no_refund),
    Planted("M4", "a lock under way is forgotten over a restart", _forgets(buyer.Lock), faults=("mint: away",)),
    Planted("M4", "a refund under way is forgotten over a restart", _refund_forgotten),
    Planted("M4", "a claim costs nothing", _free_claim),
    Planted("M4", "what came back is not counted", _refund_at_no_gain),
    Planted("M4", "our refund is called the seller's claim", _refund_is_claim),
    Planted("M6", "a repeated answer counts again", _offer_twice),
    Planted("M6", "claimed before it is delivered", _claim_first),
    Planted("M6", "anybody may cancel", _anybody_cancels),
    Planted("M2", "a payment after the quote's end is taken", _late_payment),
    Planted("M7", "a repeated request is worked again", _works_again),
    Planted("M4", "a claim is forgotten over a restart", _claim_forgotten),
    Planted("M7", "any number of quotes for one key", _unlimited),
    Planted(
        "M7", "a forged coin behind one that proves nothing passes", _first_coin_only, strangers=("forged second coin",)
    ),
    Planted("M7", "a lock to another key passes", _any_lock, strangers=("lock to another key",)),
    Planted("M7", "a lock that ends too soon passes", _short_lock),
    Planted("M7", "too small a payment passes", _uncounted),
    Planted("M5", "what has not arrived is given up", _absent_is_no, faults=("mint: late request",)),
    Planted("M5", "what is pending is given up", _pending_is_no),
    Planted("M5", "what cannot be asked is given up", _unreachable_is_no, faults=("mint: late request", "mint: away")),
    Planted("M5", "a lost race is booked", _lost_is_won),
    Planted("M3", "what was never sent is booked", _unsent_is_booked, faults=("mint: away",)),
    Planted(
        "M1",
        "an invoice is paid under another name",
        new.pays_again,
        ("mint: pays slowly",),
        (),
        way.machined,
        "machine",
        "buyer melt unknown",
    ),
    Planted("M5", "what is in flight is given up", new.in_flight_is_no, ("mint: pays slowly",), way=way.machined),
    Planted(
        "M5",
        "unknown is taken for failed",
        new.unknown_is_failed,
        ("mint: late request", "mint: cannot pay"),
        way=way.machined,
    ),
    Planted("M5", "the mint's word is a receipt", new.no_receipt, ("mint: shows another preimage",), way=way.machined),
    Planted("M4", "refunds come before the locktime", new.early_refund, way=way.sealed, rogue="silent"),
    Planted(
        "M2",
        "a co-signature comes too late",
        new.signs_late,
        ("delay",),
        way=way.sealed,
        crash="buyer working/locked",
        down=312_000,
    ),
    Planted("M6", "the result is used unverified", new.unverified, way=way.sealed, rogue="other key"),
    Planted("M6", "a ciphertext is not compared", new.signs_unseen, way=way.sealed, rogue="wrong ciphertext"),
    Planted("M6", "an order is paid before it is there", new.pays_before_it_is_there, way=way.ordered),
    Planted("M2", "a sealed result is paid without its hash", new.no_hash, way=way.sealed),
    Planted("M2", "the co-signing key takes money back", new.one_key, way=way.sealed),
    Planted("M2", "any amount of an invoice is paid", new.any_amount, way=way.machined, rogue="wrong amount"),
    Planted("M2", "an invoice of any network is paid", new.any_network, way=way.machined, rogue="other network"),
    Planted("M7", "an unpaid invoice is worked for", new.works_unpaid, way=way.invoiced),
    Planted(
        "M7",
        "what is owed is served twice",
        new.owed_twice,
        ("clumsy provider",),
        ("pays and asks again",),
        way.invoiced,
    ),
    Planted("M7", "orders have no end", new.orders_without_end, (), ("orders and leaves",), way.ordered),
    Planted("M7", "a sealed result is sold for too short a lock", _short_lock, (), ("too short a lock",), way.sealed),
    Planted(
        "M4",
        "signatures are not waited for after a restart",
        new.never_seen_again,
        way=way.sealed,
        crash="seller sealed",
        strangers=("never signs",),
    ),
    Planted(
        "M4",
        "an invoice under way is forgotten over a restart",
        new.pay_forgotten,
        way=way.machined,
        rogue="machine",
        crash="buyer melt prepared",
    ),
    Planted("M4", "the fees of an invoice are not booked", new.paid_is_free, way=way.machined, rogue="machine"),
    Planted("M7", "anybody's voucher is good", bank.any_signature, (), ("voucher with another key",), way.prepaid),
    Planted("M7", "an old voucher is taken again", bank.old_voucher, (), ("voucher twice",), way.prepaid),
    Planted("M5", "silence voids a voucher", bank.silence_is_void, way=way.prepaid, rogue="draws and delivers nothing"),
    Planted("M6", "a failed job is counted", bank.counted_anyway, ("clumsy provider",), way=way.prepaid, rogue=HONEST),
    Planted("M4", "a deposit is taken back too early", bank.early, way=way.prepaid, rogue="silent with the deposit"),
    Planted("M3", "more of a deposit goes back than is left", bank.nothing_drawn, way=way.prepaid),
    Planted("M2", "a delivered job's voucher is not counted", bank.charge_forgotten, way=way.prepaid, rogue=HONEST),
    Planted("M4", "what is drawn is not booked", bank.drawn_is_free, way=way.prepaid, rogue=HONEST),
    Planted(
        "M4",
        "a deposit that comes back is forgotten over a restart",
        bank.open_for_ever,
        way=way.prepaid,
        rogue="silent with the deposit",
        crash="buyer balance refunding",
    ),
    Planted("M7", "credit that was used stays", credit.spent_stays, (), ("nutzap too large",), way.gifts),
    Planted("M6", "anybody has given a coin", credit.any_giver, (), ("nutzap in another's name",), way.gifts),
    Planted("M7", "a gift that others can take passes", credit.short_gift, (), ("nutzap that ends",), way.gifts),
    Planted(
        "M4",
        "what is paid beside a nutzap is kept",
        credit.beside_is_kept,
        (),
        ("pays by nutzap and by invoice",),
        way.gifts,
    ),
    Planted("M7", "a coin counts as often as it is shown", credit.used_again, (), ("replayed nutzap",), way.gifts),
    Planted("M3", "spent coins count", credit.face_counts, (), ("nutzap of spent coins",), way.gifts),
    Planted(
        "M4",
        "a nutzap is forgotten over a restart",
        credit.given_forgotten,
        (),
        ("pays by nutzap",),
        way.gifts,
        crash="seller tip taken",
    ),
    Planted("M7", "who has not paid is lent to again", credit.lends_again, (), ("never pays a result",), way.lent),
    Planted("M7", "strangers are lent to", credit.lends_to_all, (), ("a stranger borrows",), way.lent),
    Planted("M7", "any number of results is lent", credit.lends_more, (), ("borrows without end",), way.lent),
    Planted(
        "M4", "a result that nobody pays stays open", credit.bill_forgotten, (), ("never pays a result",), way.lent
    ),
    Planted(
        "M5",
        "what a wallet calls failed is over",
        credit.failed_is_over,
        ("nwc: says failed and pays",),
        way=way.wallets,
    ),
    Planted(
        "M5", "what a wallet has not heard of is over", credit.absent_is_over, ("nwc: late request",), way=way.wallets
    ),
    Planted("M5", "what a wallet is paying is paid", credit.pending_is_paid, ("nwc: pays slowly",), way=way.wallets),
)
