"""Compares Lightning rows, journal and wallet. What the wallet has beside ours is told, and is no difference.

A wallet over NWC may be shared, so its balance proves nothing about our books. What must agree: the journal with our
rows, to zero; and each of our rows that has ended with what the wallet says of its payment hash.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.error import VendoError
from relays.nip47 import Transaction
from wallet.journal import Account, balances
from wallet.lightning import GIVEN_UP, Direction, Found, Stage, paid_in, paid_out
from wallet.lightning_record import UNIT, LightningBook, Order

log = logging.getLogger(__name__)

PAGE = 50
MAX_PAGES = 20
MAX_LOOK_UPS = 200


class Source(Protocol):
    """What is asked of the wallet: `wallet.lightning_engine.LightningEngine`."""

    @property
    def name(self) -> str:
        """The journal's name for it."""

    async def transactions(self, offset: int, limit: int) -> list[Transaction]:
        """A page of what the wallet has, newest first."""

    async def transaction(self, payment_hash: str) -> Transaction | None:
        """One of them; None if the wallet knows of none."""

    async def balance(self) -> int:
        """What the wallet says it has, in msat."""


@dataclass(frozen=True, slots=True)
class LightningAudit:
    """Whether rows, journal and wallet agree. Amounts in msat.

    Attributes:
        wallet: the journal's name for it.
        paid, fees, received: sums of our rows.
        open: how many have not ended.
        balance: what the wallet says it has; None if it does not say. For information.
        others: transactions of the wallet that are not ours. For information.
        differences: every way in which they do not agree.
    """

    wallet: str
    paid: int = 0
    fees: int = 0
    received: int = 0
    open: int = 0
    balance: int | None = None
    others: int = 0
    journal: Mapping[str, int] = field(default_factory=dict)
    differences: tuple[str, ...] = ()


async def audit(book: LightningBook, source: Source) -> LightningAudit:
    """Compare everything."""
    known = await _known(source)
    rows = await book.all()
    ours = [order for order in rows if order.wallet == source.name]
    looked, differences = await _looked_up(ours, known, source)
    for order in ours:
        differences += _against_wallet(order, looked.get(order.payment_hash))
    for order in rows:
        if order.wallet != source.name and order.payment.stage in (Stage.SENT, Stage.UNKNOWN):
            differences.append(f"{order.id} is in doubt at {order.wallet}, which is not connected any more")
    sums = _sums(ours)
    accounts: Mapping[Account, int] = balances(await book.posted(source.name)).get((source.name, UNIT), {})
    journal = {str(name): amount for name, amount in sorted(accounts.items())}
    differences += _against_journal(source.name, sums, accounts)
    others = len(known.keys() - {order.payment_hash for order in ours})
    still = sum(order.payment.stage not in (Stage.PAID, Stage.FAILED) for order in ours)
    return LightningAudit(
        source.name, *sums, still, await _balance(source), others, journal, tuple(dict.fromkeys(differences))
    )


async def _balance(source: Source) -> int | None:
    try:
        return await source.balance()
    except VendoError:
        return None


async def _known(source: Source) -> dict[str, Transaction]:
    """The wallet's newest transactions by payment hash. A wallet that gives no list is asked for each of ours."""
    found: dict[str, Transaction] = {}
    try:
        for page in range(MAX_PAGES):
            some = await source.transactions(page * PAGE, PAGE)
            fresh = [one for one in some if one.payment_hash not in found]
            found |= {one.payment_hash: one for one in fresh}
            if len(some) < PAGE or not fresh:
                break
    except VendoError as error:  # each of ours is looked up all the same
        log.info("a Lightning wallet gives no list", extra={"action": "lightning_no_list", "code": error.code})
    return found


async def _looked_up(
    orders: Sequence[Order], known: Mapping[str, Transaction], source: Source
) -> tuple[dict[str, Transaction | None], list[str]]:
    """What the wallet says of each of these; those that its list left out are asked for, the newest first."""
    out: dict[str, Transaction | None] = {}
    asked = 0
    for order in reversed(orders):
        if order.payment_hash in known:
            out[order.payment_hash] = known[order.payment_hash]
            continue
        if asked >= MAX_LOOK_UPS:
            continue
        asked += 1
        try:
            out[order.payment_hash] = await source.transaction(order.payment_hash)
        except VendoError as error:
            return out, [f"{source.name} gave no usable answer ({error.code})"]
    return out, []


def _against_wallet(order: Order, said: Transaction | None) -> list[str]:
    stage = order.payment.stage
    if order.payment.direction is Direction.INVOICE:
        found = Found.ABSENT if said is None else paid_in(said, order.payment_hash)
        if stage is Stage.FAILED and found is Found.SETTLED:
            return [f"{order.id}: an invoice that is called unpaid was paid at the wallet"]
        return []
    found = Found.ABSENT if said is None else paid_out(said, order.payment_hash)
    if stage is Stage.FAILED and found in (Found.SETTLED, Found.UNPROVEN):
        return [f"{order.id}: a payment that is called failed was paid by the wallet"]
    if stage is Stage.UNKNOWN and found is Found.SETTLED:
        return [f"{order.id}: a payment that is in doubt was paid by the wallet"]
    if stage is Stage.PAID and order.reason == GIVEN_UP and found in (Found.FAILED, Found.EXPIRED):
        return [f"{order.id}: a payment that was given up, and counts as paid, is called {found.value} by the wallet"]
    if stage is not Stage.PAID or said is None or found is not Found.SETTLED:
        return []
    differences = []
    if said.amount is not None and said.amount != order.amount:
        differences.append(f"{order.id}: {order.amount} msat were paid, and the wallet says {said.amount}")
    if said.fees_paid is not None and said.fees_paid != order.fee:
        differences.append(f"{order.id}: a fee of {order.fee} msat is booked, and the wallet says {said.fees_paid}")
    if order.fee > order.fee_limit:
        differences.append(f"{order.id}: the wallet took {order.fee} msat as its fee, above the {order.fee_limit}")
    return differences


def _sums(orders: Sequence[Order]) -> tuple[int, int, int]:
    paid = [order for order in orders if order.payment.stage is Stage.PAID]
    out = [order for order in paid if order.payment.direction is Direction.PAY]
    received = sum(order.amount for order in paid if order.payment.direction is Direction.INVOICE)
    return sum(order.amount for order in out), sum(order.fee for order in out), received


def _against_journal(name: str, sums: tuple[int, int, int], accounts: Mapping[Account, int]) -> list[str]:
    paid, fees, received = sums
    found, held, booked = [], received - paid - fees, accounts.get(Account.WALLET, 0)
    if sum(accounts.values()):
        found.append(f"{name}: the journal does not sum to zero")
    if booked != held:
        found.append(f"{name}: {held} msat by its rows, {booked} by the journal")
    if accounts.get(Account.FEES, 0) != fees:
        found.append(f"{name}: {fees} msat of fees by its rows, {accounts.get(Account.FEES, 0)} by the journal")
    return found
