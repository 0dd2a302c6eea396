"""Nutzaps that a seller takes (NIP-61, ADR 29): the thin driver over `dvm.tip`, as `dvm.nutzap`.

Coins are judged by `wallet.verification`; what they then pay for is put together by `dvm.credit`.
"""

from typing import Any

from core.money import Msat
from dvm import tip as tips
from dvm.nutzap import LOCK_S, LOOK_S, SLOWEST_S
from dvm.tip import Appraised, Lapsed, PaidTwice, Redeemed, Refused, State, Tip, owner_of, step
from tests.simulation.pure.appraisal import at_once
from tests.simulation.pure.billing import Beside
from tests.simulation.pure.paper import Book, gift
from tests.simulation.pure.purse import Stored
from tests.simulation.pure.world import Msg
from wallet import verification
from wallet.error import TokenMint, TokenRejected, TokenReused, TokenTooSmall
from wallet.payment import Kind
from wallet.payment import State as Op

LABELS = {state: f"seller tip {state}" for state in State}
LOOK_MS = int(LOOK_S * 1000)
MOST = 64


class Gifts:
    """Of one seller."""

    def __init__(self, node: Any) -> None:
        self.node, self.world = node, node.world
        self.mints = node.world.mints
        self.disk: dict[str, Tip] = {}
        self.busy: set[str] = set()
        self.looks: set[str] = set()

    # ---- life

    def forget(self) -> None:
        self.busy, self.looks = set(), set()

    def restart(self) -> None:
        for id_, tip in list(self.disk.items()):
            if tips.read(self._row(tip)) != tip:
                self.world.judge.breach("M4", f"{id_} did not survive its way through the database")
            self._go_on(id_)

    def rows(self, sender: str) -> list[dict[str, Any]]:
        """What is owed to one key, as `dvm.credit` reads it."""
        return [self._row(tip) for tip in self.disk.values() if tip.sender == sender and tip.state is State.OWED]

    def _row(self, tip: Tip) -> dict[str, Any]:
        return {**tips.insert(tip, self.world.now // 1000).row, "version": tip.version}

    # ---- one that comes

    def hear(self, msg: Msg) -> None:
        """Cheapest checks first; the mint is asked for its keysets last, and for nothing that changes something."""
        body = msg.body
        if msg.author == self.node.key or not 1 <= len(body["coins"]) <= MOST or msg.id in self.disk:
            return
        if msg.id not in self.busy:
            self.busy.add(msg.id)
            self._appraise(msg)

    def _appraise(self, msg: Msg) -> None:
        body, node, world = msg.body, self.node, self.world
        mint = next((one for one in self.mints if one.url == body["mint"]), None)
        try:
            if mint is None:
                raise TokenMint
            given = gift(body)
            not_before = world.now // 1000 + LOCK_S
            verification.check_given(given, node.wallet_key, not_before, msg.author)
            self._check_unused(msg)
        except TokenRejected as error:
            return self._refuse(msg, error)

        def heard(word: str, _: Any) -> None:
            if word != "ok":
                return self._wait(msg)
            try:
                book = Book(mint)
                coins = at_once(verification.check_coins(given, book))
                self._check_unused(msg)
                if verification.net_worth(coins, book) <= 0:
                    raise TokenTooSmall
            except TokenRejected as error:
                return self._refuse(msg, error)
            self._keep(msg)

        world.ask(node, lambda: None, heard)

    def _check_unused(self, msg: Msg) -> None:
        owner = owner_of(msg.id)
        if any(self.node.incoming.get(coin.name, owner) != owner for coin in msg.body["coins"]):
            raise TokenReused

    def _refuse(self, msg: Msg, error: TokenRejected) -> None:
        self.world.coverage.checks[f"nutzap refused: {error.code}"] += 1
        self.busy.discard(msg.id)
        self.disk.pop(msg.id, None)  # nothing is kept of one whose coins were never touched

    def _new(self, msg: Msg) -> Tip:
        known = self.disk.get(msg.id)
        if known is not None:
            return known
        named = msg.body["named"]
        sale = next((one.request_id for one in self.node.disk.values() if named and self._is(one, named)), "")
        return Tip(msg.id, msg.author, msg.body["mint"], self.world.now // 1000, sale=sale, raw=msg.id)

    def _wait(self, msg: Msg) -> None:
        """Its mint does not answer: it is looked at later."""
        self.busy.discard(msg.id)
        if msg.id not in self.disk:
            self._write(None, self._new(msg))
        self.world.soon(self.node, LOOK_MS, self._go_on, msg.id)

    def _keep(self, msg: Msg) -> None:
        """Its coins count for it alone from now on; it is written down, and only then the mint is asked to swap."""
        world, node, owner = self.world, self.node, owner_of(msg.id)
        world.before(node, "seller incoming coins")
        for coin in msg.body["coins"]:
            node.incoming[coin.name] = owner
        world.after(node, "seller incoming coins")
        before = self._new(msg)
        self.busy.discard(msg.id)
        self._write(before, step(before, Appraised(msg.id)))

    def _is(self, sale: Any, named: str) -> bool:
        """Whether a nutzap names this sale: by its request, or by our answer to it."""
        return named in (sale.request_id, f"quote {self.node.name} {sale.request_id}")

    # ---- steps

    def _write(self, before: Tip | None, after: Tip) -> None:
        label = LABELS[after.state]
        self.world.before(self.node, label)
        self._put(before, after)
        self.world.after(self.node, label)
        self.world.judge.credit_adds_up(self.node, after.sender)
        self._go_on(after.id)

    def _put(self, before: Tip | None, after: Tip) -> None:
        self.disk[after.id] = after
        self.world.judge.tip(self.node, before, after)

    def tell(self, id_: str, event: Any) -> None:
        before = self.disk[id_]
        after = step(before, event)
        if after is not before:
            self._write(before, after)

    def taken(self, id_: str, columns: Any) -> Beside:
        """What takes of its credit, in the commit of a sale."""
        before = self.disk[id_]
        after = tips.read({**self._row(before), **columns})

        def write() -> None:
            self._put(before, after)
            self.world.soon(self.node, 1, self._go_on, id_)

        return LABELS[after.state], write

    # ---- what is open

    def _go_on(self, id_: str) -> None:
        tip = self.disk.get(id_)
        if tip is None:
            return
        if tip.state is State.SEEN and id_ not in self.busy:
            self.busy.add(id_)
            self._appraise(self.world.log[tip.raw])
        elif tip.state is State.TAKEN:
            self._redeem(id_)
        elif tip.state is State.OWED and tip.sale:
            self.node.take_credit(tip.sale)
        kept = self.disk.get(id_)
        if kept is not None and kept.beside:
            self._look_beside(id_)

    def _redeem(self, id_: str) -> None:
        """Swap its coins, under one name."""
        tip, purse = self.disk[id_], self.node.purse
        if tip.state is not State.TAKEN:
            return
        name = f"tip {self.node.name} {id_}"
        stored = purse.ops.get(name)
        if stored is not None and stored.op.state is not Op.REFUSED:
            if stored.op.state is Op.DONE:
                self.op_ended(stored)
            else:
                purse.resume(stored)
            return
        mint = next(one for one in self.mints if one.url == tip.mint)
        names = tuple([coin.name for coin in self.world.log[tip.raw].body["coins"]])
        worth = sum(mint.signed[coin].amount for coin in names)
        purse.begin(name, Kind.CLAIM, mint, names, worth, self.node.wallet_key, id_, None)

    def op_ended(self, stored: Stored) -> None:
        """The wallet says how the swap ended."""
        tip = self.disk[stored.subject]
        if tip.state is not State.TAKEN:
            return
        if stored.op.state is Op.DONE:
            self.tell(tip.id, Redeemed(Msat.of_sat(sum(output.amount for output in stored.outputs))))
        elif stored.reason == "lost_race":  # only this is certain
            self.tell(tip.id, Refused("token.spent"))
        else:
            wait = min(LOOK_MS << min(stored.sent, 8), int(SLOWEST_S * 1000))
            self.world.soon(self.node, wait, self._redeem, tip.id)

    def _look_beside(self, id_: str, pause: int = LOOK_MS) -> None:
        """Whether invoices for sales that it has paid were paid as well."""
        if id_ in self.looks:
            return
        ops, waits = self.node.purse.ops, False
        for deposit in self.disk[id_].beside.split():
            found = ops.get(deposit)
            if found is not None and found.op.state is Op.DONE:
                amount = Msat.of_sat(sum(output.amount for output in found.outputs))
                self.tell(id_, PaidTwice(deposit, amount))
            elif found is None or found.op.state is Op.REFUSED:
                self.tell(id_, Lapsed(deposit))
            else:
                waits = True
        if waits and self.disk[id_].beside:
            self.looks.add(id_)
            self.world.soon(self.node, pause, self._look_again, id_, min(pause * 2, 900_000))

    def _look_again(self, id_: str, pause: int) -> None:
        self.looks.discard(id_)
        if self.disk[id_].beside:
            self._look_beside(id_, pause)
