"""Lightning between the mints and everybody's invoices, as books: who is paid is a fact that no node can write.

A payment succeeds at once, hangs and then succeeds or fails, or fails. A mint melts coins for it (NUT-05): it binds
them while it tries, and tells of it what it likes. Invoices are read by the product's own `dvm.invoice.Checkout` and
`wallet.melt`; in the place of BOLT-11's letters stands what they mean.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from core.money import Msat
from tests.simulation.pure.mint import (
    CONDITION,
    FUNDS,
    KEYSET,
    PENDING_CODE,
    SIGNED,
    SPENT,
    Mint,
    Output,
    hash_of,
)
from wallet.cashu.port import MeltQuote, MeltState
from wallet.error import InvoiceRejected
from wallet.invoice import MAINNET, Invoice
from wallet.melt import likely_reserve

FAILED, QUOTE_PENDING, QUOTE_PAID = 20_004, 20_005, 20_006
OPEN, HELD, PAID = "open", "held", "paid"
UNPAID = MeltState.UNPAID


def written(msat: int, hash_: str, expires_at: int, network: str = MAINNET) -> str:
    """An invoice."""
    return f"ln:{network}:{msat}:{hash_}:{expires_at}"


def read(text: str) -> Invoice:
    """In the place of `wallet.invoice.read_invoice`.

    Raises:
        InvoiceRejected: it is none.
    """
    parts = text.split(":")
    if len(parts) != 5 or parts[0] != "ln":
        raise InvoiceRejected("This is not a valid invoice.")
    return Invoice(int(parts[2]), parts[1], parts[3], int(parts[4]))


class Bolt11:
    """An invoice as its payee's node keeps it."""

    __slots__ = ("again", "expires_at", "hash", "msat", "paid", "preimage", "state", "text", "times")

    def __init__(self, name: str, msat: int, expires_at: int, paid: Callable[[], None]) -> None:
        self.preimage = sha256(name.encode()).hexdigest()
        self.hash = hash_of(self.preimage)
        self.msat, self.expires_at, self.paid = msat, expires_at, paid
        self.text = written(msat, self.hash, expires_at)
        self.state = OPEN
        self.again = False  # its payee takes the money as often as it comes
        self.times = 0  # how often it was paid: never above one


class Melt:
    """A mint's melt quote, and what it did for it."""

    __slots__ = (
        "amount",
        "blanks",
        "change",
        "denied",
        "fee",
        "hash",
        "id",
        "inputs",
        "node",
        "op",
        "preimage",
        "reserve",
        "state",
        "tells_from",
        "text",
    )  # fmt: skip

    def __init__(self, id: str, text: str, hash_: str, amount: int, reserve: int) -> None:
        self.id, self.text, self.hash, self.amount, self.reserve = id, text, hash_, amount, reserve
        self.state = UNPAID
        self.inputs: tuple[str, ...] = ()
        self.blanks: tuple[Output, ...] = ()
        self.change: tuple[Output, ...] = ()
        self.preimage = ""
        self.denied = False  # a mint that lies says that it did not pay
        self.fee = 0
        self.node: Any = None
        self.op = ""
        self.tells_from = 0


class Lightning:
    """One network."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.invoices: dict[str, Bolt11] = {}
        faults = world.faults
        self.slow = "mint: pays slowly" in faults
        self.never = "mint: says pending for ever" in faults
        self.fails = "mint: cannot pay" in faults
        self.lies = "mint: shows another preimage" in faults
        self.count = 0

    def invoice(self, name: str, msat: int, expires_at: int, paid: Callable[[], None]) -> Bolt11:
        """A new invoice."""
        made = Bolt11(name, msat, expires_at, paid)
        return self.invoices.setdefault(made.hash, made)

    def pay(self, hash_: str) -> bool:
        """Somebody with a node of his own pays an invoice, if it may still be paid."""
        found = self.invoices.get(hash_)
        if found is None or found.state != OPEN or self.world.now >= found.expires_at * 1000:
            return False
        self._settle(found)
        return True

    def _settle(self, found: Bolt11) -> None:
        found.state = PAID
        found.times += 1
        if self.world.story is not None:
            self.world.tell(f"lightning: {found.msat} msat for {found.hash[:8]}")
        self.world.judge.lightning(found)
        found.paid()

    # ---- what a mint does

    def quote(self, mint: Mint, text: str) -> MeltQuote:
        """A melt quote for an invoice."""
        invoice = read(text)
        assert invoice.amount_msat is not None
        sat = Msat(invoice.amount_msat).sat_up()
        self.count += 1
        ours = self.invoices.get(invoice.payment_hash)
        reserve = 0 if ours is not None and mint.quotes.get(f"quote {ours.hash}") else likely_reserve(sat)
        made = Melt(f"melt {self.count}", text, invoice.payment_hash, sat, reserve)
        mint.melts[made.id] = made
        return self.shown(mint, made)

    def shown(self, mint: Mint, melt: Melt) -> MeltQuote:
        """What the mint says of it now."""
        state, preimage = melt.state, melt.preimage
        if self.world.now < melt.tells_from:
            if self.lies and state is not UNPAID:  # that it paid, while it is still at it
                state = MeltState.PAID
                self.world.coverage.faults["mint: shows another preimage"] += 1
                preimage = "ab" * 32
            elif self.never and state is not UNPAID:
                self.world.coverage.faults["mint: says pending for ever"] += 1
                state, preimage = UNPAID if state is MeltState.PAID and melt.denied else MeltState.PENDING, ""
        return MeltQuote(melt.id, melt.amount, melt.reserve, state, None, "sat", melt.text, preimage or None)

    def melt(self, mint: Mint, node: Any, op: str, id: str, inputs: tuple[str, ...], blanks: tuple[Output, ...]) -> int:
        """Try to pay: the code of a refusal, or 0; then the quote says how it stands."""
        melt: Melt = mint.melts[id]
        if melt.state is MeltState.PAID:
            return QUOTE_PAID
        if melt.state is MeltState.PENDING:
            return QUOTE_PENDING
        code = self._refusal(mint, melt, inputs, blanks)
        if code:
            return code
        melt.inputs, melt.blanks, melt.node, melt.op = inputs, blanks, node, op
        self.world.judge.melts(mint, melt)
        found = self.invoices.get(melt.hash)
        if found is None or self.world.now >= found.expires_at * 1000 or (found.state != OPEN and not found.again):
            return FAILED
        return self._try(mint, melt, found)

    def _refusal(self, mint: Mint, melt: Melt, inputs: tuple[str, ...], blanks: tuple[Output, ...]) -> int:
        worth = 0
        for name in inputs:
            coin = mint.signed.get(name)
            if coin is None or coin.lock is not None:
                return CONDITION
            if name in mint.spent:
                return SPENT
            if name in mint.pending:
                return PENDING_CODE
            worth += coin.amount
        for blank in blanks:
            if blank.name in mint.signed:
                return SIGNED
            if blank.keyset != mint.keyset:
                return KEYSET
        return 0 if worth >= melt.amount + melt.reserve + mint.fee(len(inputs)) else FUNDS

    def _try(self, mint: Mint, melt: Melt, found: Bolt11) -> int:
        world = self.world
        turn = world.turn
        if self.fails and turn() < 0.5:
            world.coverage.faults["mint: cannot pay"] += 1
            return FAILED
        melt.state, found.state = MeltState.PENDING, HELD
        mint.pending.update(melt.inputs)
        if self.never or self.lies:
            melt.tells_from = world.now + (3_600_000 if self.never else 40_000)
            melt.denied = self.never and turn() < 0.3
        if (self.slow and turn() < 0.8) or mint.stalled:
            world.coverage.faults["mint: pays slowly"] += self.slow
            wait = (4_000, 20_000, 58_000, 500_000)[int(turn() * 4)]
            world.soon(None, wait, self._ends, mint, melt, found, turn() < 0.5)
        elif self.lies and turn() < 0.5:
            world.soon(None, 20_000, self._ends, mint, melt, found, turn() < 0.5)
        elif self.never and turn() < 0.6:
            world.soon(None, 3_500_000 if turn() < 0.5 else 2_000, self._ends, mint, melt, found, turn() < 0.6)
        else:
            self._ends(mint, melt, found, True)
        return 0

    def _ends(self, mint: Mint, melt: Melt, found: Bolt11, paid: bool) -> None:
        """The payment is over."""
        mint.pending.difference_update(melt.inputs)
        if not paid:
            melt.state, found.state = UNPAID, PAID if found.times else OPEN
            return
        world = self.world
        own = melt.reserve == 0
        fee = 0 if own else int(world.turn() * (melt.reserve + 1))
        worth = sum(mint.signed[name].amount for name in melt.inputs)
        due = mint.fee(len(melt.inputs))
        left = worth - due - melt.amount - fee
        for name in melt.inputs:
            coin = mint.signed[name]
            mint.spent[name] = "melt"
            mint.balance[coin.owner] -= coin.amount
        change, bit = [], 1
        for blank in melt.blanks:  # as many powers of two as it takes (NUT-08)
            while bit <= left and not left & bit:
                bit <<= 1
            if bit > left:
                break
            change.append(blank._replace(amount=bit))
            bit <<= 1
        melt.change = tuple(change)
        for coin in change:
            mint.signed[coin.name] = coin
            mint.balance[coin.owner] = mint.balance.get(coin.owner, 0) + coin.amount
        back = sum(coin.amount for coin in change)
        mint.circulating -= worth - back
        mint.taken += due
        mint.paid_out += worth - back - due
        melt.state = MeltState.PAID
        melt.preimage = "" if own and world.turn() < 0.5 else found.preimage
        world.judge.melted(mint, melt, worth - back)
        self._settle(found)
