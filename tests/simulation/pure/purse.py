"""A model wallet: coins by name, and the driver of the product's payment saga (`wallet.payment`).

What is persisted is the operation, its inputs and outputs, and the coins; what is only in memory (a look-up under way,
how often something was sent) is lost when its node dies, and every open operation is then `Restarted`.
"""

from collections.abc import Callable
from typing import Any

from core.identifier import OperationId
from tests.simulation.pure.mint import ISSUED_QUOTE, PAID_QUOTE, UNPAID_QUOTE, Lock, Mint, Output, Unlock
from tests.simulation.pure.world import World
from wallet import payment as saga
from wallet.cashu.port import MeltQuote, MeltState
from wallet.error import MintLied
from wallet.melt import blank_count, receipt
from wallet.payment import (
    Answered,
    Coins,
    Effect,
    InFlight,
    Kind,
    LookedUp,
    LookUpFailed,
    NeverSent,
    Operation,
    QuoteExpired,
    QuotePaid,
    Rejected,
    Restarted,
    Signed,
    Silent,
    State,
)

LABELS = {
    (role, kind, state): f"{role} {kind} {state}" for role in ("buyer", "seller") for kind in Kind for state in State
}
MAX_SUBMISSIONS = 2
ANSWERED, SILENT, NEVER_SENT, RESTARTED, NO_LOOK = Answered(), Silent(), NeverSent(), Restarted(), LookUpFailed()
IN_FLIGHT = InFlight()
LATE_MS = 600_000  # `wallet.engine`: after an invoice's end, or the last request
DEPOSIT_LATE_MS = 3_600_000  # `wallet.keeper`: so long after its end an invoice is asked for


class Stored:
    """One operation as it is persisted; what only its driver in memory knows is `drive`, `sent`, `busy`, `pause`."""

    __slots__ = (
        "busy",
        "drive",
        "expires",
        "id",
        "inputs",
        "key",
        "kind",
        "mint",
        "op",
        "outputs",
        "past",
        "pause",
        "reason",
        "sent",
        "subject",
        "terms",
        "unlock",
        "updated",
        "worth",
    )

    def __init__(
        self, id: str, kind: Kind, mint: Mint, inputs: tuple[str, ...], worth: int, key: str, subject: Any, terms: Any
    ) -> None:
        self.id, self.kind, self.mint, self.inputs, self.worth, self.key = id, kind, mint, inputs, worth, key
        self.subject, self.terms = subject, terms
        state = State.WAITING if kind is Kind.DEPOSIT else State.PREPARED
        self.op = Operation(OperationId(id), kind, state)
        self.drive = self.op
        self.outputs: tuple[Output, ...] = ()
        self.past: list[tuple[Output, ...]] = []
        self.reason = ""
        self.sent = 0
        self.busy = False
        self.pause = 500
        self.expires = 0  # of an invoice, in milliseconds
        self.updated = 0
        self.unlock: Unlock | None = None

    @property
    def fee(self) -> int:
        """Of a melt, as `wallet.melt` asks its plan."""
        return self.mint.fee(len(self.inputs))


class Purse:
    """One node's wallet. `ended(stored)` is told of what is over, `booking(stored)` adds to the commit of a lock."""

    def __init__(
        self,
        world: World,
        node: Any,
        role: str,
        ended: Callable[[Stored], None],
        booking: Callable[[Stored], Any] | None = None,
    ) -> None:
        self.world, self.node, self.role, self.ended, self.booking = world, node, role, ended, booking
        self.coins: dict[str, list[Any]] = {}  # name: amount, mint, the operation that reserves it
        self.ops: dict[str, Stored] = {}
        self.count = 0
        self.keysets = dict.fromkeys(world.mints, 0)

    # ---- coins

    def held(self, mint: Mint) -> int:
        return sum(coin[0] for coin in self.coins.values() if coin[1] is mint)

    def _output(
        self, mint: Mint, amount: int, owner: str = "", lock: Lock | None = None, *, gives: bool = False
    ) -> Output:
        self.count += 1
        name = f"{self.node.name}/{self.count}"
        return Output(name, amount, owner or self.node.name, self.keysets[mint], lock, gives)

    def choose(self, mint: Mint, amount: int) -> tuple[tuple[str, ...], int] | None:
        """Free coins that cover an amount and the fee for spending them, and their sum."""
        free = [(coin[0], name) for name, coin in self.coins.items() if coin[1] is mint and coin[2] is None]
        free.sort(reverse=True)
        names: list[str] = []
        worth = 0
        for value, name in free:
            names.append(name)
            worth += value
            if worth >= amount + mint.fee(len(names)):
                return tuple(names), worth
        return None

    # ---- beginning

    def begin(
        self,
        id: str,
        kind: Kind,
        mint: Mint,
        inputs: tuple[str, ...],
        worth: int,
        key: str,
        subject: Any,
        terms: Any,
        *,
        expires: int = 0,
        unlock: Unlock | None = None,
    ) -> None:
        """Persist the plan and what it reserves, then ask the mint."""
        stored = Stored(id, kind, mint, inputs, worth, key, subject, terms)
        stored.expires, stored.unlock, stored.updated = expires, unlock, self.world.now
        label = LABELS[self.role, kind, stored.op.state]
        old = self.ops.get(id)
        if old is not None:  # taken up again, as `wallet.teller` does: with the same outputs, if they still fit
            stored.outputs, stored.past = old.outputs, old.past
        self.world.before(self.node, label)
        if not stored.outputs or any(output.keyset != self.keysets[mint] for output in stored.outputs):
            self.plan(stored)
        self.ops[id] = stored
        for name in inputs:
            if name in self.coins:
                self.coins[name][2] = id
        self.world.after(self.node, label)
        if kind is Kind.DEPOSIT:
            self._poll(stored)
        else:
            self._act(stored, Effect.SUBMIT)

    def plan(self, stored: Stored) -> None:
        """Outputs under the keyset that is known; a waiting deposit has none yet."""
        mint, kind = stored.mint, stored.kind
        if stored.outputs:
            stored.past.append(stored.outputs)
        if kind is Kind.LOCK or kind is Kind.SEND:
            token, lock, owner = stored.terms
            change = stored.worth - token - mint.fee(len(stored.inputs))
            outputs = (self._output(mint, token, owner, lock, gives=True),)
            stored.outputs = (*outputs, self._output(mint, change)) if change else outputs
        elif kind is Kind.MELT:
            blanks = blank_count(stored.worth - mint.fee(len(stored.inputs)) - stored.terms["amount"])
            stored.outputs = tuple([self._output(mint, 0) for _ in range(blanks)])
        elif kind is Kind.DEPOSIT:
            stored.outputs = () if stored.op.state is State.WAITING else (self._output(mint, stored.worth),)
        else:
            stored.outputs = (self._output(mint, stored.worth - mint.fee(len(stored.inputs))),)

    # ---- the saga

    def forget(self) -> None:
        """The process died."""
        for stored in self.ops.values():
            stored.drive, stored.busy, stored.pause = stored.op, False, 500

    def recover(self) -> None:
        for stored in list(self.ops.values()):
            self.resume(stored)

    def resume(self, stored: Stored) -> None:
        """Take up an operation that nobody drives."""
        if stored.busy:
            return
        if stored.op.state is State.WAITING:
            self._poll(stored)
        elif stored.op.state in (State.PREPARED, State.UNKNOWN):
            stored.sent = 0
            self._move(stored, RESTARTED)

    def _move(self, stored: Stored, event: Any) -> None:
        stored.busy = False
        op, effect, name = saga.step(stored.drive, event)
        if effect is None:
            return
        world = self.world
        world.coverage.transitions["wallet: " + name] += 1
        old = stored.op
        stored.drive = op
        if effect is Effect.BOOK:
            self._book(stored, op)
            return
        if effect is Effect.RELEASE:
            self._release(stored, op, name)
            return
        if effect is Effect.REPLAN:
            self.keysets[stored.mint] = stored.mint.keyset
        if op.state is not old.state or op.loose is not old.loose or type(event) is Silent or effect is Effect.REPLAN:
            label = LABELS[self.role, stored.kind, op.state]
            world.before(self.node, label)
            if effect is Effect.REPLAN:
                self.plan(stored)
                stored.sent = 0
            stored.op, stored.reason, stored.updated = op, name, world.now
            if stored.kind is Kind.DEPOSIT and not stored.outputs:
                self.plan(stored)
            world.after(self.node, label)
        self._act(stored, Effect.SUBMIT if effect is Effect.REPLAN else effect)

    def _act(self, stored: Stored, effect: Effect) -> None:
        if effect is Effect.SUBMIT and stored.sent < MAX_SUBMISSIONS:
            stored.sent += 1
            stored.busy = True
            swap, outputs = self._swap, stored.outputs
            self.world.ask(
                self.node,
                lambda: swap(stored, outputs),
                lambda word, code: self._submitted(stored, word, code),
                swap=True,
            )
        elif effect is Effect.LOOK_UP:
            stored.busy = True
            self.world.ask(
                self.node, lambda: self._look(stored), lambda word, found: self._looked_up(stored, word, found)
            )
        else:
            self._wait(stored)

    def _wait(self, stored: Stored) -> None:
        self.node.waits(stored)
        stored.pause = min(stored.pause * 2, 30_000)
        self.world.soon(self.node, stored.pause, self.resume, stored)

    def _submitted(self, stored: Stored, word: str, code: int | None) -> None:
        if stored.kind is Kind.MELT and word == "ok" and code == 0:
            return self._move(stored, self._melted(stored))
        if word == "ok" and code == 0:
            event: Any = ANSWERED
        elif word == "ok" and code is not None and code > 0:
            event = Rejected(code)
        elif word == "refused":
            event = Rejected(12_001)
        elif word == "busy":
            event = Rejected(0)
        elif word == "unsent":
            event = NEVER_SENT
        else:
            event = SILENT
        self._move(stored, event)

    def _looked_up(self, stored: Stored, word: str, found: Any) -> None:
        if word not in ("ok", "part") or found is None:
            return self._move(stored, NO_LOOK)
        signed, coins = found
        if word == "part" and signed is Signed.ALL:
            signed = Signed.SOME
        if stored.kind is Kind.MELT:
            if stored.drive.rejected is not None:
                self.keysets[stored.mint] = stored.mint.keyset
            return self._move(stored, LookedUp(signed, coins, late=self.world.now > stored.expires + LATE_MS))
        stale = signed is Signed.NONE and stored.drive.rejected is not None and self._stale(stored)
        self._move(stored, LookedUp(signed, coins, stale, self.world.now > stored.updated + LATE_MS))

    def _stale(self, stored: Stored) -> bool:
        return any(output.keyset != stored.mint.keyset for output in stored.outputs)

    # ---- what the mint does when it is asked

    def _swap(self, stored: Stored, outputs: tuple[Output, ...]) -> int:
        """At the mint: the code of its refusal, or 0; -1 if it will answer nothing in time."""
        mint, world = stored.mint, self.world
        if stored.kind is Kind.DEPOSIT:
            code = mint.mint(stored.subject, outputs)
            if code == 0:
                world.judge.minted(mint, self.node, outputs)
            return code
        if stored.kind is Kind.MELT:
            return world.lightning.melt(mint, self.node, stored.id, stored.terms["quote"], stored.inputs, outputs)
        code = mint.refusal(world.now, stored.inputs, stored.key, outputs, stored.unlock)
        if code:
            return code
        if mint.stalled:
            mint.pending.update(stored.inputs)
            world.soon(None, 9_000, self._stalled, stored, outputs)
            return -1
        self.swap_at(mint, stored.inputs, stored.key, outputs, stored.id, stored.unlock)
        return 0

    def _stalled(self, stored: Stored, outputs: tuple[Output, ...]) -> None:
        mint = stored.mint
        if mint.stalled:
            return self.world.soon(None, 3_000, self._stalled, stored, outputs)
        mint.pending.difference_update(stored.inputs)
        if not mint.refusal(self.world.now, stored.inputs, stored.key, outputs, stored.unlock):
            self.swap_at(mint, stored.inputs, stored.key, outputs, stored.id, stored.unlock)

    def swap_at(
        self,
        mint: Mint,
        inputs: tuple[str, ...],
        key: str,
        outputs: tuple[Output, ...],
        op: str,
        unlock: Unlock | None = None,
    ) -> None:
        coins = mint.swap(inputs, key, outputs, unlock)
        if self.world.story is not None:
            worth = sum(coin.amount for coin in coins)
            self.world.tell(f"{mint.url}: {self.node.name} swaps {worth} sat with {key or 'no key'} ({op[:12]})")
        self.world.judge.swapped(mint, self.node, coins, outputs, key, op)

    def _look(self, stored: Stored) -> tuple[Signed, Coins]:
        """NUT-09 and NUT-07 (of a deposit: its quote), as they are now."""
        mint = stored.mint
        if stored.kind is Kind.MELT:
            return self._look_at_melt(stored)
        signed = Signed.NONE
        for group in (stored.outputs, *stored.past):
            known = [output.name in mint.signed for output in group]
            if known and all(known):
                signed = Signed.ALL
                break
            if any(known):
                signed = Signed.SOME
        if stored.kind is Kind.DEPOSIT:
            state = mint.quotes[stored.subject][0]
            return signed, {PAID_QUOTE: Coins.UNSPENT, ISSUED_QUOTE: Coins.SPENT}.get(state, Coins.PENDING)
        coins = Coins.UNSPENT
        for name in stored.inputs:
            if name in mint.spent:
                return signed, Coins.SPENT
            if name in mint.pending:
                coins = Coins.PENDING
        return signed, coins

    # ---- paying an invoice

    def _melted(self, stored: Stored) -> Any:
        """What the mint's answer to a melt says."""
        quote = self.world.lightning.shown(stored.mint, stored.mint.melts[stored.terms["quote"]])
        if quote.state is MeltState.PENDING:
            return IN_FLIGHT
        if quote.state is MeltState.UNPAID:
            return Rejected(0)
        return ANSWERED if self._proven(stored, quote) else SILENT

    def _proven(self, stored: Stored, quote: MeltQuote, *, closed: bool = False) -> bool:
        try:
            receipt(stored, quote, closed=closed)
        except MintLied:
            return False
        return True

    def _look_at_melt(self, stored: Stored) -> Any:
        mint = stored.mint
        quote = self.world.lightning.shown(mint, mint.melts[stored.terms["quote"]])
        gone = [name for name in stored.inputs if name in mint.spent]
        coins = Coins.SPENT if gone else Coins.UNSPENT
        if not gone and any(name in mint.pending for name in stored.inputs):
            coins = Coins.PENDING
        if quote.state is MeltState.PAID:
            closed = self.world.now > stored.expires + LATE_MS and len(gone) == len(stored.inputs)
            if coins is Coins.SPENT and not self._proven(stored, quote, closed=closed):
                return None  # the mint lies: as if it had not answered
            return Signed.ALL, coins
        return Signed.NONE, Coins.PENDING if quote.state is MeltState.PENDING else coins

    # ---- ends

    def _book(self, stored: Stored, op: Operation) -> None:
        world, node = self.world, self.node
        label = LABELS[self.role, stored.kind, op.state]
        world.before(node, label)
        more = self.booking(stored) if self.booking is not None else None
        stored.op = op
        signed = stored.mint.signed
        if stored.kind is Kind.MELT:
            stored.outputs = stored.mint.melts[stored.terms["quote"]].change
        elif stored.past and stored.outputs[0].name not in signed:  # an earlier plan was carried out after all
            stored.outputs = next((group for group in stored.past if group[0].name in signed), stored.outputs)
        for name in stored.inputs:
            self.coins.pop(name, None)
        for output in stored.outputs:
            if not output.gives:
                self.coins[output.name] = [output.amount, stored.mint, None]
        if more is not None:
            more()
        world.judge.booked(node, self, stored)
        world.after(node, label)
        self.ended(stored)

    def _release(self, stored: Stored, op: Operation, name: str) -> None:
        world, node = self.world, self.node
        label = LABELS[self.role, stored.kind, op.state]
        world.before(node, label)
        stored.op, stored.reason = op, name
        for coin in stored.inputs:
            if coin in self.coins:
                self.coins[coin][2] = None
        world.judge.released(node, self, stored)
        world.after(node, label)
        if op.state is State.WAITING:
            self._wait(stored)
        else:
            self.ended(stored)

    # ---- deposits

    def deposit(self, id: str, mint: Mint, amount: int, bolt11: Any = None, request: str = "") -> None:
        """Ask for an invoice; somebody may pay it, soon, late or never."""
        if id in self.ops:
            return
        quote = id if bolt11 is None else f"quote {bolt11.hash}"
        mint.quotes.setdefault(quote, [UNPAID_QUOTE])
        ends = 0 if bolt11 is None else bolt11.expires_at * 1000
        self.begin(id, Kind.DEPOSIT, mint, (), amount, request, quote, bolt11, expires=ends)

    def poll(self, stored: Stored) -> None:
        """Ask for a deposit now, since somebody is there."""
        self._poll(stored)

    def _poll(self, stored: Stored) -> None:
        if stored.busy or stored.op.state is not State.WAITING:
            return
        stored.busy = True
        mint = stored.mint
        self.world.ask(
            self.node, lambda: mint.quotes[stored.subject][0], lambda word, state: self._polled(stored, word, state)
        )

    def _polled(self, stored: Stored, word: str, state: str | None) -> None:
        stored.busy = False
        if word == "ok" and (state == PAID_QUOTE or (state == ISSUED_QUOTE and stored.outputs)):
            stored.sent = 0
            self._move(stored, QuotePaid())
        elif word == "ok" and state == UNPAID_QUOTE and self._given_up(stored):
            self._move(stored, QuoteExpired())
        else:
            stored.pause = self._patience(stored)
            self.world.soon(self.node, stored.pause, self._poll, stored)

    def _given_up(self, stored: Stored) -> bool:
        if stored.expires:
            return self.world.now > stored.expires + DEPOSIT_LATE_MS
        return stored.pause > 1_000_000

    def _patience(self, stored: Stored) -> int:
        if not stored.expires:
            return stored.pause * 2
        return min(stored.pause * 2, 4_000) if self.world.now < stored.expires else 900_000
