"""Deposits of customers (ADR 27): the thin driver over `dvm.custody`, as `dvm.custodian`.

Terms, and which deposit stands in a quote, are said by `dvm.custodian` itself; coins are judged by
`wallet.verification`.
"""

from typing import Any

from core.money import Msat
from dvm import prepaid
from dvm.admission import Meter
from dvm.custodian import BURST, GIVE_UP_S, LATEST_S, PER_SECOND
from dvm.custodian import Custodian as Product
from dvm.custody import (
    ENDED,
    Claimed,
    ClaimRefused,
    CloseAsked,
    Custody,
    Due,
    Returned,
    ReturnRefused,
    State,
    StatusAsked,
    Tell,
    VoucherShown,
    WorkEnded,
    fault,
    step,
)
from dvm.error import VoucherDeposit
from dvm.prepaid import Statement, Terms, Voucher
from dvm.record import decode, encode
from tests.simulation.pure.appraisal import appraised, unspent
from tests.simulation.pure.billing import Beside
from tests.simulation.pure.depositor import Purses, rules_of
from tests.simulation.pure.purse import Stored
from tests.simulation.pure.world import Msg
from wallet.cashu.curve import is_point
from wallet.error import TokenRejected
from wallet.model import VerifyTerms
from wallet.payment import Kind
from wallet.payment import State as Op

LABELS = {state: f"seller balance {state}" for state in State}


class Custodian:
    """Of one seller."""

    offer: Any = Product.offer
    _terms: Any = Product._terms

    def __init__(self, node: Any) -> None:
        self.node, self.world = node, node.world
        self.disk: dict[str, Custody] = {}
        self._seen: dict[str, Custody] = {}  # by customer
        self._settlement = rules_of(node.world.plot)
        self._wallet = Purses(node, node.urls, node.wallet_key)
        self._turns: dict[str, int] = {}
        self._verifying: set[str] = set()
        self._meter = Meter(BURST, PER_SECOND)
        self._said = 0

    # ---- life

    def forget(self) -> None:
        self._turns, self._verifying, self._seen = {}, set(), {}
        self._meter = Meter(BURST, PER_SECOND)

    def restart(self) -> None:
        for id_, kept in list(self.disk.items()):
            if decode(Custody, encode(kept)) != kept:
                self.world.judge.breach("M4", f"{id_} did not survive its way through the database")
            if kept.state not in ENDED:
                self._seen[kept.customer] = kept
                self._go_on(id_)

    # ---- what customers say

    def hear(self, msg: Msg) -> None:
        body, id_, sender = msg.body, msg.ref, msg.author
        if not self._meter.take(sender, self.world.now / 1000):
            return
        found = self.disk.get(id_)
        if found is not None and found.customer != sender:
            return
        word = body["word"]
        if word == "ask" and found is None:
            self._say(sender, id_, "terms", terms=self._terms())
        elif word == "deposit" and found is None:
            if id_ not in self._verifying:
                self._verifying.add(id_)
                self._verify(msg, 500)
        elif word == "deposit" or (word == "status" and found is not None):
            self.tell(id_, StatusAsked(sender, body.get("seq", 0)))
        elif word == "close" and found is not None:
            self.tell(id_, CloseAsked(sender, body["seq"]))
        elif word in ("status", "close"):
            self._refuse(sender, id_)

    def _post(self, to: str, id_: str, word: str, **more: Any) -> Msg:
        self._said += 1
        name = f"{word} {self.node.name} {id_} {self._said}"
        msg = Msg(name, "prepaid", self.node.key, id_, to, {"word": word, **more})
        self.node.outbox[msg.id] = msg
        return msg

    def _say(self, to: str, id_: str, word: str, **more: Any) -> None:
        self.world.send(self.node, self._post(to, id_, word, **more))

    def _refuse(self, to: str, id_: str) -> None:
        self._say(to, id_, "account", account=Statement(prepaid.REFUSED, 0, Msat(0), False), token=None)

    # ---- one that comes

    def _verify(self, msg: Msg, pause: int) -> None:
        """As `dvm.custodian`: within our terms, and then as any payment."""
        world, body, id_ = self.world, msg.body, msg.ref
        terms: Terms = self._terms()
        amount, now = body["amount"], world.now // 1000
        try:
            if not terms.least <= amount <= terms.most or not is_point(body["key"]) or not self._has_room(msg.author):
                raise TokenRejected("It is not within our terms.")
            least = now + self._settlement.deposit_margin_s + 1
            wanted = VerifyTerms(id_, amount, self.node.urls, self.node.wallet_key, least)
            mint, names, _, locktime = appraised(self.node, body, wanted)
            if locktime > now + terms.most_s + LATEST_S:
                raise TokenRejected("It would be held for too long.")
        except TokenRejected as error:
            world.coverage.checks[f"deposit refused: {error.code}"] += 1
            return self._turned_away(msg)

        def heard(word: str, unspent_: bool) -> None:
            if word != "ok":
                return world.soon(self.node, pause, self._verify, msg, min(pause * 2, 30_000))
            taken = any(self.node.incoming.get(name, id_) != id_ for name in names)
            if not unspent_ or taken or not self._has_room(msg.author):
                return self._turned_away(msg)
            self._keep_new(msg, terms, mint.url, names, locktime)

        world.ask(self.node, lambda: unspent(mint, names), heard)

    def _turned_away(self, msg: Msg) -> None:
        self._verifying.discard(msg.ref)
        self._refuse(msg.author, msg.ref)

    def _has_room(self, customer: str) -> bool:
        """One open deposit for a customer, and so many in all."""
        open_ = [one.customer for one in self.disk.values() if one.state not in ENDED]
        return len(open_) < self._settlement.deposits and customer not in open_

    def _keep_new(self, msg: Msg, terms: Terms, mint: str, names: tuple[str, ...], locktime: int) -> None:
        node, world, id_ = self.node, self.world, msg.ref
        custody = Custody(
            id_, id_, msg.author, msg.body["key"], mint, msg.body["amount"], locktime,
            self._settlement.deposit_margin_s, terms.fee_sat, msg.id,
        )  # fmt: skip
        label = LABELS[State.OPEN]
        world.before(node, label)
        for name in names:
            node.incoming[name] = id_
        self.disk[id_] = self._seen[custody.customer] = custody
        self._verifying.discard(id_)
        world.judge.custody(node, None, custody, None)
        said = self._statement(custody)
        world.after(node, label)
        world.send(node, said)
        self._go_on(id_)

    def _statement(self, custody: Custody) -> Msg:
        token = None
        if custody.state is State.CLOSED and custody.returned_sat:
            stored = self.node.purse.ops[_rest_id(custody)]
            token = custody.mint, tuple([output for output in stored.outputs if output.gives])
        return self._post(custody.customer, custody.id, "account", account=custody.statement, token=token)

    # ---- what is drawn

    def take(self, voucher: Voucher, sender: str, request_id: str, price: Msat) -> tuple[Custody, Beside]:
        """The deposit, and what holds a job's price of it.

        Raises:
            VoucherRefused: with the reason as its type.
        """
        custody = self.disk.get(voucher.deposit)
        if custody is None:
            raise VoucherDeposit
        shown = VoucherShown(self.world.now // 1000, sender, self.node.key, voucher, request_id, price)
        if (why := fault(custody, shown)) is not None:
            raise why
        after, _ = step(custody, shown)
        return after, (LABELS[after.state], lambda: self._kept(custody, after, shown))

    def ended(self, deposit: str, request_id: str, ok: bool) -> Beside:
        """What counts a job that was drawn and has ended, or leaves it out."""
        custody, event = self.disk[deposit], WorkEnded(request_id, ok)
        after, _ = step(custody, event)
        return LABELS[after.state], lambda: self._kept(custody, after, event)

    def _kept(self, before: Custody, after: Custody, event: Any) -> None:
        self.disk[after.id] = after
        if after.state in ENDED:
            self._seen.pop(after.customer, None)
        else:
            self._seen[after.customer] = after
        self.world.judge.custody(self.node, before, after, event)
        if after.state is not before.state:
            self.world.soon(self.node, 0, self._go_on, after.id)

    # ---- steps

    def tell(self, id_: str, event: Any) -> None:
        """Step, persist, act."""
        before = self.disk.get(id_)
        if before is None:
            return
        after, effects = step(before, event)
        if not effects and after == before:
            return
        world, label = self.world, LABELS[after.state]
        changed = after != before
        if changed:
            world.before(self.node, label)
            self._kept(before, after, event)
        said = self._statement(after) if any(type(effect) is Tell for effect in effects) else None
        if changed:
            world.after(self.node, label)
        if said is not None:
            world.send(self.node, said)
        if after.returns != before.returns:
            self._go_on(id_)

    def _go_on(self, id_: str) -> None:
        """What the state implies."""
        node, world, custody = self.node, self.world, self.disk[id_]
        turn = self._turns[id_] = self._turns.get(id_, 0) + 1
        if custody.state is State.OPEN:
            world.at(max(world.now + 500, custody.due_at * 1000), node, self._due, id_, turn)
        elif custody.state is State.CLAIMING:
            self._claim(id_, turn)
        elif custody.state is State.RETURNING:
            self._return(id_, turn)

    def _due(self, id_: str, turn: int) -> None:
        if self._turns.get(id_) != turn:
            self.world.events -= 1
            return
        self.tell(id_, Due(self.world.now // 1000))

    # ---- money

    def _claim(self, id_: str, turn: int) -> None:
        """Take the coins, tried until that is certain."""
        if self._turns.get(id_) != turn:
            return
        custody, purse = self.disk[id_], self.node.purse
        name = f"custody {id_}"
        stored = purse.ops.get(name)
        if stored is not None and stored.op.state is not Op.REFUSED:
            return self._resume(stored)
        mint = next(mint for mint in self.node.mints if mint.url == custody.mint)
        coins = self.world.log[custody.payment].body["coins"]
        names = tuple([coin.name for coin in coins])
        worth = sum(mint.signed[coin].amount for coin in names)
        purse.begin(name, Kind.CLAIM, mint, names, worth, self.node.wallet_key, id_, None)

    def _return(self, id_: str, turn: int) -> None:
        """Make the token for the rest."""
        if self._turns.get(id_) != turn:
            return
        custody, purse = self.disk[id_], self.node.purse
        stored = purse.ops.get(_rest_id(custody))
        if stored is not None:
            return self._resume(stored)
        mint = next(mint for mint in self.node.mints if mint.url == custody.mint)
        chosen = purse.choose(mint, custody.rest_sat)
        if chosen is None:
            return self.world.soon(self.node, 5_000, self._return, id_, turn)
        names, worth = chosen
        terms = (custody.rest_sat, None, f"the rest of {id_}")
        purse.begin(_rest_id(custody), Kind.SEND, mint, names, worth, "", id_, terms)

    def _resume(self, stored: Stored) -> None:
        if stored.op.state is Op.DONE or stored.op.state is Op.REFUSED:
            self.op_ended(stored)
        else:
            self.node.purse.resume(stored)

    def op_ended(self, stored: Stored) -> None:
        """The wallet says how one of its operations ended."""
        id_, done = stored.subject, stored.op.state is Op.DONE
        custody = self.disk[id_]
        if stored.kind is Kind.SEND:
            if stored.id == _rest_id(custody) and custody.state is State.RETURNING:
                self.tell(id_, Returned(custody.rest_sat) if done else ReturnRefused())
        elif custody.state is State.CLAIMING:
            if done:
                self.tell(id_, Claimed(Msat.of_sat(sum(output.amount for output in stored.outputs))))
            elif stored.reason == "lost_race" or self.world.now // 1000 >= custody.locktime + GIVE_UP_S:
                self.tell(id_, ClaimRefused(stored.reason))
            else:
                self.world.soon(self.node, 2_000, self._claim, id_, self._turns.get(id_, 0))


def _rest_id(custody: Custody) -> str:
    """The wallet's name for the token; another one only after the mint has refused the last for certain."""
    return f"rest {custody.id} {custody.returns}"
