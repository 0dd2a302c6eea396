"""Faults planted in the product, one or more for each rule of the market, and scripts in which they must show.

Each is what a tired hand might really write. The same watch that finds nothing in the product must find these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from core.effect import Outcome
from core.error import VendoError
from core.money import Msat, Rate
from core.unit import Update
from dvm import buyer, buyer_rule, buying, selection
from dvm import purchase as purchases
from dvm.buyer import F, Rule, S
from dvm.job import Funds, Limit
from dvm.opening import limit_of
from dvm.selection import payable
from node.gate import book
from relays import delivery
from tests.simulation.script import Crash, Script, Trigger
from tests.simulation.wire import Weather
from wallet import engine, payment, planner, purse
from wallet import wallet as wallets
from wallet.payment import Effect, State

PLAIN = Script(0, known=False)


@dataclass(frozen=True)
class Planted:
    """A fault, the rule that it breaks, and where it must show."""

    rule: str
    name: str
    plant: Callable[[MonkeyPatch], None]
    scripts: Sequence[Script]


def _after(*styles: str, **more: Any) -> tuple[Script, ...]:
    return tuple(replace(PLAIN, adversaries=(style,), seed=seed, **more) for style in styles for seed in range(3))


# -- M1


def _pays_the_next(patch: MonkeyPatch) -> None:
    """When a seller breaks off, the next one is paid, though the first one's money is still out."""

    def another(job: Any, event: Any) -> bool:
        offers = [one for one in payable(job.offers, event.at_ms // 1000) if one.seller != event.seller]
        return bool(offers)

    def accept(job: Any, event: Any) -> Any:
        others = tuple(one for one in job.offers if one.seller != event.seller)
        after, effects = buyer_rule.accept(replace(job, offers=others), event)
        return replace(after, offers=job.offers), effects

    patch.setitem(buyer.TRANSITIONS, (S.WORKING, buyer.SellerFailed), (Rule(S.PAYING, accept, another),))
    patch.setitem(buyer.TRANSITIONS, (F.LOCKED, buyer.Chosen), (Rule(F.LOCKING, buyer_rule.begin_lock),))


def _new_name_after_restart(patch: MonkeyPatch) -> None:
    """A lock goes by another name after a restart: what may be out already is paid once more."""
    old = buyer.resumed

    def resumed(job: Any, now_ms: int) -> Any:
        effects = old(job, now_ms)
        return [
            replace(one, payment=replace(one.payment, op_id=f"{one.payment.op_id}-{now_ms}"))
            if isinstance(one, buyer.Lock)
            else one
            for one in effects
        ]

    patch.setattr(purchases, "resumed", resumed)
    patch.setattr("dvm.till.Till._is", lambda self, money, paying: self._owner.job.money is money)
    patch.setattr(buyer_rule, "our_lock", lambda job, event: True)
    for key, rules in list(buyer.TRANSITIONS.items()):
        if key[0] is F.LOCKING:
            patch.setitem(buyer.TRANSITIONS, key, tuple(replace(rule, when=buyer_rule.always) for rule in rules))
    patch.setitem(
        buyer.TRANSITIONS, (S.PAYING, buyer.LockDone), (Rule(S.WORKING, buyer_rule.send_payment, buyer_rule.always),)
    )


# -- M2


def _identity_key(patch: MonkeyPatch) -> None:
    """Money is locked to the seller's identity key instead of the wallet key that its quote names."""

    def begin(job: Any, event: Any) -> Any:
        after, effects = buyer_rule.begin_lock(job, event)
        paying = replace(after.payment, wallet_key="02" + after.payment.seller)
        return replace(after, payment=paying), [
            replace(one, payment=paying) if isinstance(one, buyer.Lock) else one for one in effects
        ]

    patch.setitem(buyer.TRANSITIONS, (F.NONE, buyer.Chosen), (Rule(F.LOCKING, begin),))


def _net_for_gross(patch: MonkeyPatch) -> None:
    """The claim's fee is forgotten: the seller gets less than the quote."""
    patch.setattr(planner, "with_fee", lambda amount, ppk: amount)


def _dearest_first(patch: MonkeyPatch) -> None:
    """Quotes are ranked the wrong way round."""
    old = selection._rank

    def rank(offer: Any, prefer: Any) -> Any:
        weight, name = old(offer, prefer)
        return tuple(-part for part in weight), name

    patch.setattr(selection, "_rank", rank)


# -- M3


def _coins_stay(patch: MonkeyPatch) -> None:
    """Coins that were spent stay in the wallet."""
    patch.setattr(purse.Purse, "spend", staticmethod(lambda coin: Update("proof", {"y": coin.y}, {"state": "live"})))


def _change_unbooked(patch: MonkeyPatch) -> None:
    """The journal counts what a payment takes, and forgets the mint's fee."""
    old = engine.postings

    def postings(operation: str, mint: str, unit: str, at: int, moves: Any) -> Any:
        return [row for row in old(operation, mint, unit, at, moves) if row.row["account"] != "fees"]

    patch.setattr(engine, "postings", postings)


# -- M4


def _closes_early(patch: MonkeyPatch) -> None:
    """A job that has ended closes while its money is still locked."""
    patch.setattr(buyer, "FINAL", buyer.FINAL | {Funds.LOCKED})


def _unread_is_free(patch: MonkeyPatch) -> None:
    """What a failed job cost is not booked."""
    old = book.settle

    def settle(effect: Any, holds: Any, outcome: Outcome, *rest: Any) -> Any:
        if outcome.detail.get("state") == "failed":
            outcome = replace(outcome, cost=None)
        return old(effect, holds, outcome, *rest)

    patch.setattr(book, "settle", settle)


def _believes_itself(patch: MonkeyPatch) -> None:
    """A refund that began while the mint was asked is taken for the seller's claim."""

    async def watch(self: Any, paid: Any) -> None:
        while self._is(Funds.LOCKED, paid):
            await self._pause(2.0)
            if self._is(Funds.LOCKED, paid) and await self._state(paid) == "SPENT":
                await self._owner.insist(buyer.SpentSeen(self._clock.millis()))

    patch.setattr("dvm.till.Till.watch", watch)


# -- M5


def _silence_is_no(patch: MonkeyPatch) -> None:
    """No answer is taken for a no."""
    rows = tuple(
        replace(row, to=State.REFUSED, effect=Effect.RELEASE) if row.name == "silent" else row
        for row in payment.TRANSITIONS
    )
    patch.setattr(payment, "TRANSITIONS", rows)


def _doubt_is_failure(patch: MonkeyPatch) -> None:
    """The job goes on as if nothing had been paid, when that is only not known."""
    patch.setitem(
        buyer.TRANSITIONS,
        (F.LOCKING, buyer.LockUnknown),
        (Rule(F.NONE, lambda job, event: (job, []), buyer_rule.our_lock),),
    )


# -- M6


def _unverified(patch: MonkeyPatch) -> None:
    """Signatures are not looked at."""
    patch.setattr(delivery, "_is_genuine", lambda event: True)


def _anybodys_result(patch: MonkeyPatch) -> None:
    """Whoever delivers first has delivered."""
    patch.setattr(buyer_rule, "from_chosen", lambda job, event: True)
    rules = (Rule(S.DELIVERED, buyer_rule.deliver, lambda job, event: not event.fault),)
    patch.setitem(buyer.TRANSITIONS, (S.WORKING, buyer.ResultArrived), rules)


def _for_somebody_else(patch: MonkeyPatch) -> None:
    """An answer counts whoever it is for."""
    old = purchases.translate

    def translate(event: Any, job: Any, *, ourselves: Any, **more: Any) -> Any:
        ours = replace(event, tags=(*(tag for tag in event.tags if tag[0] != "p"), ("p", ourselves)))
        return old(ours, job, ourselves=ourselves, **more)

    patch.setattr(purchases, "translate", translate)


# -- M7


def _unlocked(patch: MonkeyPatch) -> None:
    """Nobody looks to whom the coins are locked."""
    patch.setattr(wallets, "check_locks", lambda payment, terms: 1 << 40)


def _worthless(patch: MonkeyPatch) -> None:
    """Nobody counts the coins."""
    old = wallets.check_locks
    patch.setattr(wallets, "check_locks", lambda payment, terms: old(payment, replace(terms, price=Msat(1))))
    patch.setattr(wallets, "check_worth", lambda coins, book, terms, locktime: terms.price)


def _forged_coins(patch: MonkeyPatch) -> None:
    """Nobody asks whether the mint signed the coins."""

    async def check(payment: Any, book: Any, *, needs_dleq: bool = True) -> Any:
        return tuple([replace(proof, keyset=await book.expand(proof.keyset)) for proof in payment.proofs])

    patch.setattr(wallets, "check_coins", check)


def _coin_for_two(patch: MonkeyPatch) -> None:
    """One coin pays any number of quotes."""

    async def check(self: Any, coins: Any, owner: str) -> Any:
        return await self._purse.known([coin.y for coin in coins])

    patch.setattr(wallets.Wallet, "_check_unused", check)


def _quotes_for_all(patch: MonkeyPatch) -> None:
    """A key may have any number of open quotes."""
    patch.setattr("dvm.selling.Load", lambda paid, free: _NoLoad)


class _NoLoad:
    open_of_customer = free_of_customer = 0


def _fetches(patch: MonkeyPatch) -> None:
    """Addresses of strangers are taken for input."""
    patch.setattr("tests.simulation.world.Bench.check", lambda self, request: None)


# -- M8


def _rounds_up(patch: MonkeyPatch) -> None:
    """The ceiling of a job is rounded up."""
    patch.setattr(Rate, "cover", lambda self, amount: Msat(-(-amount.value * self.msat // self.micro_usd) + 1))


def _any_rate(patch: MonkeyPatch) -> None:
    """Without a price some price is taken."""
    old = buying.Buying._limit

    async def limit(self: Any, request: Any) -> Any:
        try:
            return await old(self, request)
        except VendoError:
            return limit_of(self.policy.default_max.unit, self.policy.default_max, Rate(1, 2, 0, "made up"))

    patch.setattr(buying.Buying, "_limit", limit)


def _moving_rate(patch: MonkeyPatch) -> None:
    """A job's rate follows the market while it runs."""
    old = buyer_rule.accept

    def accept(job: Any, event: Any) -> Any:
        after, effects = old(job, event)
        limit = after.limit
        moved = Limit(limit.unit, limit.value, limit.ceiling, Rate(70_000, 100_000, 1, "later"))
        return replace(after, limit=moved), effects

    for key, rules in list(buyer.TRANSITIONS.items()):
        moved = tuple(replace(rule, do=accept) if rule.do is old else rule for rule in rules)
        patch.setitem(buyer.TRANSITIONS, key, moved)


def _second_unit(patch: MonkeyPatch) -> None:
    """Costs are booked in msat, whatever the budget is kept in."""
    patch.setattr(Limit, "cost", lambda self, amount: type(self.money)(amount.value))


_LOCKING = "purchase paying/locking"
_DOUBT = tuple(replace(PLAIN, seed=seed, faults=0.6) for seed in range(6))
_REFUNDING = "purchase delivered/refunding"
_SLOW = tuple(
    replace(
        PLAIN,
        seed=seed,
        adversaries=("sleeper",),
        latency=8.0,
        triggers=(Trigger("buyer", _REFUNDING, "answer_lost"), Trigger("buyer", _REFUNDING, "blind", 15.0)),
    )
    for seed in range(8)
)
_LIES = tuple(replace(PLAIN, seed=seed, weather=Weather(forge=0.9, delay=0.3)) for seed in range(3))

PLANTED = (
    Planted("M1", "pays the next seller too", _pays_the_next, _after("quitter")),
    Planted(
        "M1",
        "a lock has a new name after a restart",
        _new_name_after_restart,
        tuple(
            replace(PLAIN, seed=seed, crashes=(Crash("buyer", label, number),))
            for seed, (label, number) in enumerate((("operation done", 1), ("operation prepared", 1), (_LOCKING, 1)))
        ),
    ),
    Planted("M2", "locks to the identity key", _identity_key, (PLAIN,)),
    Planted("M2", "forgets the claim's fee", _net_for_gross, (PLAIN,)),
    Planted("M2", "takes the dearest", _dearest_first, (PLAIN,)),
    Planted("M3", "spent coins stay", _coins_stay, (PLAIN,)),
    Planted("M3", "the fee is not booked", _change_unbooked, (PLAIN,)),
    Planted("M4", "closes while money is locked", _closes_early, _after("sleeper")),
    Planted("M4", "a failed job's cost is not booked", _unread_is_free, _after("thief", order=("dvm",))),
    Planted("M4", "our refund passes for a claim", _believes_itself, _SLOW),
    Planted("M5", "silence is taken for a no", _silence_is_no, _DOUBT),
    Planted("M5", "doubt is taken for a failure", _doubt_is_failure, _DOUBT),
    Planted("M6", "signatures are not checked", _unverified, (*_after("forger"), *_LIES)),
    Planted("M6", "anybody's result counts", _anybodys_result, _after("impostor")),
    Planted("M6", "answers for others count", _for_somebody_else, _after("impostor")),
    Planted("M7", "locks are not checked", _unlocked, _after("wrongkey")),
    Planted("M7", "coins are not counted", _worthless, _after("small")),
    Planted("M7", "signatures of coins are not checked", _forged_coins, _after("forged", "fattened")),
    Planted("M7", "one coin pays for two jobs", _coin_for_two, _after("reuse")),
    Planted("M7", "a key may have any number of quotes", _quotes_for_all, _after("flood")),
    Planted("M7", "references are taken for input", _fetches, _after("url")),
    Planted("M8", "ceilings are rounded up", _rounds_up, (PLAIN,)),
    Planted("M8", "some rate is made up", _any_rate, (replace(PLAIN, unpriced=1.0),)),
    Planted("M8", "the rate of a job moves", _moving_rate, (PLAIN,)),
    Planted("M8", "costs are booked in another unit", _second_unit, _after("thief")),
)
