"""A Lightning wallet of the owner's over NWC (NIP-47), and the thin driver over `wallet.lightning`.

The wallet's ledger is a fact: the judge reads it, the node only what it answers. What an answer and a look-up prove is
judged by the product.
"""

from hashlib import sha256
from typing import Any

from core.identifier import OperationId
from relays.nip47 import Code, Transaction
from tests.simulation.pure.cast import NWC_FAULTS
from tests.simulation.pure.lightning import Bolt11
from wallet import lightning as saga
from wallet.lightning import (
    ENDED,
    Begun,
    Direction,
    Effect,
    Found,
    LookedUp,
    LookUpFailed,
    NeverSent,
    Payment,
    Proven,
    Rejected,
    Restarted,
    Silent,
    Stage,
    paid_in,
    paid_out,
    proves,
)

LABELS = {stage: f"buyer nwc {stage}" for stage in Stage}
TAKEN_FOR_S = 120  # a request is taken by the wallet for so long
LASTS_S = 300
START = 1_000_000  # msat at the wallet
WRONG = "ab" * 32


class Entry:
    """What the wallet knows of one payment or invoice."""

    __slots__ = ("direction", "hidden_until", "msat", "shown", "state")

    def __init__(self, direction: str, msat: int) -> None:
        self.direction, self.msat, self.state = direction, msat, "pending"
        self.shown = ""  # what it says instead
        self.hidden_until = 0  # its preimage, that is


class Stored:
    """One operation as it is persisted; `busy` and `pause` only its driver in memory knows."""

    __slots__ = ("bolt11", "busy", "pause", "payment")

    def __init__(self, payment: Payment, bolt11: Bolt11) -> None:
        self.payment, self.bolt11 = payment, bolt11
        self.busy, self.pause = False, 1_000


class Nwc:
    """Of one node: its operations, and its wallet."""

    def __init__(self, node: Any) -> None:
        self.node, self.world = node, node.world
        self.ops: dict[str, Stored] = {}
        self.ledger: dict[str, Entry] = {}
        self.balance = START
        self.faults = tuple(fault for fault in node.world.plot.faults if fault in NWC_FAULTS)
        self.lied: set[str] = set()  # payments of which the wallet said "failed" for longer than anybody waits

    # ---- what its owner wants

    def open(self) -> None:
        turn = self.world.turn
        for number in range(3):
            self.world.soon(None, 100 + int(turn() * 3_000), self._pay, f"pay {self.node.name} {number}")
        for number, wait in enumerate((2_000, int(turn() * 290_000), None)):
            self.world.soon(None, 50, self._invoice, f"due {self.node.name} {number}", wait)

    def _pay(self, id_: str) -> None:
        """Asked for until it is written down."""
        if id_ in self.ops:
            return
        if self.node.life < 0:
            return self.world.soon(None, 3_000, self._pay, id_)
        try:
            self._begin(id_, Direction.PAY, self._bolt11(id_))
        finally:
            self.world.soon(None, 3_000, self._pay, id_)

    def _bolt11(self, id_: str) -> Bolt11:
        msat = 1_000 * (1 + sha256(id_.encode()).digest()[0] % 9)
        return self.world.lightning.invoice(id_, msat, self.world.now // 1000 + LASTS_S, lambda: None)

    def _invoice(self, id_: str, wait: int | None) -> None:
        if self.node.life < 0 and id_ not in self.ops:
            return self.world.soon(None, 3_000, self._invoice, id_, wait)
        if id_ in self.ops:
            return
        bolt11 = self._bolt11(id_)
        bolt11.paid = lambda: self._came(bolt11)
        self.ledger.setdefault(bolt11.hash, Entry("incoming", bolt11.msat))
        if wait is not None:
            self.world.soon(None, wait, self.world.lightning.pay, bolt11.hash)
        try:
            self._begin(id_, Direction.INVOICE, bolt11)
        finally:
            self.world.soon(None, 3_000, self._invoice, id_, None)

    def _came(self, bolt11: Bolt11) -> None:
        self.ledger[bolt11.hash].state = "settled"
        self.balance += bolt11.msat

    def _begin(self, id_: str, direction: Direction, bolt11: Bolt11) -> None:
        world, now = self.world, self.world.now // 1000
        stage = Stage.PREPARED if direction is Direction.PAY else Stage.WAITING
        payment = Payment(OperationId(id_), direction, stage, bolt11.expires_at, now + TAKEN_FOR_S)
        world.before(self.node, LABELS[stage])
        stored = self.ops[id_] = Stored(payment, bolt11)
        world.after(self.node, LABELS[stage])
        if direction is Direction.PAY:
            self._move(stored, Begun(now))
        else:
            self._look(stored)

    # ---- life

    def forget(self) -> None:
        for stored in self.ops.values():
            stored.busy, stored.pause = False, 1_000

    def restart(self) -> None:
        for stored in list(self.ops.values()):
            self._resume(stored)

    def _resume(self, stored: Stored) -> None:
        stage = stored.payment.stage
        if stored.busy or stage in ENDED:
            return
        if stage is Stage.WAITING:
            self._look(stored)
        else:
            self._move(stored, Restarted(self.world.now // 1000))

    # ---- the saga

    def _move(self, stored: Stored, event: Any) -> None:
        """Step, persist, act."""
        stored.busy = False
        before = stored.payment
        after, effect, name = saga.step(before, event)
        world = self.world
        if effect is None:
            if before.stage is Stage.WAITING:  # a look-up came to nothing
                world.soon(self.node, stored.pause, self._resume, stored)
            return
        world.coverage.transitions[f"nwc: {name}"] += 1
        if after != before:
            label = LABELS[after.stage]
            world.before(self.node, label)
            stored.payment = after
            world.judge.nwc(self, stored, before)
            world.after(self.node, label)
        if effect is Effect.SEND:
            self._send(stored)
        elif effect is Effect.LOOK_UP:
            self._look(stored)
        elif effect is Effect.WAIT:
            stored.pause = min(stored.pause * 2, 100_000_000 if after.stage is Stage.WAITING else 120_000)
            world.soon(self.node, stored.pause, self._resume, stored)

    def _fault(self) -> str:
        """What goes wrong with this call."""
        world = self.world
        if not self.faults or world.now >= world.calm or world.turn() < 0.4:
            return ""
        fault = self.faults[int(world.turn() * len(self.faults))]
        world.coverage.faults[fault] += 1
        return fault

    def _send(self, stored: Stored) -> None:
        """The request leaves, or not; what the wallet does with it is not for us to see."""
        node, world, fault = self.node, self.world, self._fault()
        stored.busy = True
        lag = 20 + int(world.turn() * 200)
        if fault == "nwc: away":
            return world.soon(node, lag, self._move, stored, NeverSent())
        if fault in ("nwc: request lost", "nwc: late request"):
            if fault == "nwc: late request":
                world.soon(None, int(world.turn() * 100_000), self._arrives, stored, "")
            return world.soon(node, 15_000, self._move, stored, Silent())
        world.soon(None, lag, self._answered, stored, node.life, fault)

    def _answered(self, stored: Stored, life: int, fault: str) -> None:
        answer = self._arrives(stored, fault)
        if self.node.life == life:
            late = isinstance(answer, Silent)
            self.world.soon(self.node, 15_000 if late else 40, self._move, stored, answer)

    # ---- at the wallet

    def _arrives(self, stored: Stored, fault: str) -> Any:
        """The wallet has the request: its answer."""
        world, bolt11 = self.world, stored.bolt11
        now = world.now // 1000
        if now >= stored.payment.until:
            return Silent()
        known = self.ledger.get(bolt11.hash)
        if known is not None and known.state == "settled":
            return Proven()
        if known is not None and known.state == "pending":
            return Silent()
        if fault == "nwc: turns away":
            return Rejected(Code.INSUFFICIENT_BALANCE, now) if known is None else Silent()
        entry = self.ledger[bolt11.hash] = Entry("outgoing", bolt11.msat)
        if fault == "nwc: cannot pay":
            entry.state = "failed"
            return Rejected(Code.PAYMENT_FAILED, now)
        if fault in ("nwc: says failed and pays", "nwc: lies for long"):
            entry.shown = "failed"
            if fault == "nwc: lies for long":
                self.lied.add(stored.payment.id)
            world.soon(None, 25_000 if fault != "nwc: lies for long" else 90_000, self._settles, stored, True)
            return Rejected(Code.PAYMENT_FAILED, now)
        if fault == "nwc: pays slowly":
            world.soon(
                None, (20_000, 400_000, 2_000_000)[int(world.turn() * 3)], self._settles, stored, world.turn() < 0.5
            )
            return Silent()
        self._settles(stored, True)
        if fault == "nwc: shows another preimage":
            entry.hidden_until = world.now + 1_800_000
            return Silent()
        return Silent() if fault == "nwc: answer lost" else self._proof(stored)

    def _settles(self, stored: Stored, paid: bool) -> None:
        """The payment is over. What is on its way is not stopped by the end of its invoice."""
        bolt11, entry = stored.bolt11, self.ledger[stored.bolt11.hash]
        entry.shown, entry.state = "", "settled" if paid else "failed"
        if not paid:
            return
        self.balance -= bolt11.msat
        bolt11.state = "paid"
        bolt11.times += 1
        self.world.judge.lightning(bolt11)
        self.world.judge.nwc_paid(self, stored)
        if stored.payment.stage is Stage.FAILED:  # its answer comes after all
            self.world.soon(self.node, 500, self._move, stored, self._proof(stored))

    def _proof(self, stored: Stored) -> Any:
        return Proven() if proves(stored.bolt11.preimage, stored.bolt11.hash) else Silent()

    # ---- looking

    def _look(self, stored: Stored) -> None:
        node, world, fault = self.node, self.world, self._fault()
        stored.busy = True
        if fault == "nwc: blind":
            return world.soon(node, 10_000, self._move, stored, LookUpFailed())
        world.soon(node, 30 + int(world.turn() * 100), self._looked, stored, fault)

    def _looked(self, stored: Stored, fault: str) -> None:
        entry, now, hash_ = self.ledger.get(stored.bolt11.hash), self.world.now // 1000, stored.bolt11.hash
        out = stored.payment.direction is Direction.PAY
        if entry is None or (out and fault == "nwc: finds nothing"):
            return self._move(stored, LookedUp(Found.UNSURE if fault == "nwc: finds nothing" else Found.ABSENT, now))
        preimage = stored.bolt11.preimage if entry.state == "settled" else ""
        if self.world.now < entry.hidden_until:
            preimage = WRONG
        said = Transaction(hash_, entry.direction, entry.shown or entry.state, preimage=preimage)
        self._move(stored, LookedUp(paid_out(said, hash_) if out else paid_in(said, hash_), now))
