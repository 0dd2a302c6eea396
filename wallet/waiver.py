"""Gives up a payment over Lightning of which its wallet will never speak again. No wallet is asked, and none is needed.

The payment may have been made, so it counts as paid, with the most that its fee may be: what is given up is the
wallet's word, never money.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from core.clock import Clock
from core.error import NotFound
from core.unit import UnitOfWork, Write
from wallet.journal import Account, postings
from wallet.lightning import ENDED, GIVE_UP_S, Direction, GivenUp, may_give_up, step
from wallet.lightning_error import NotGivenUp
from wallet.lightning_record import UNIT, LightningBook, Order

log = logging.getLogger(__name__)

SILENT_TRIES = 3
"""So often a connected wallet must have failed to answer the owner who gives up: a relay may be down for a while."""
SILENT_GAP_S = 8 * 3_600
"""A try counts so long after the one before that counted."""
_DAY_S = 86_400


def booking(order: Order, now: int) -> Sequence[Write]:
    """What a payment or an invoice that has ended as paid does to the journal, stamped `now` (Unix seconds)."""
    if order.payment.direction is Direction.INVOICE:
        moves = {Account.WALLET: order.amount, Account.RECEIPTS: -order.amount}
    else:
        where = Account.WITHDRAWALS if order.purpose else Account.PAYMENTS
        moves = {Account.WALLET: -order.amount - order.fee, where: order.amount, Account.FEES: order.fee}
        if order.fee > order.fee_limit:
            about = {"action": "lightning_fee", "operation": order.id, "fee_msat": order.fee}
            log.warning("a Lightning wallet took more than the fee that is allowed", extra=about)
    return postings(order.id, order.wallet, UNIT, now, moves)


def waivable(order: Order | None, now: int) -> Order:
    """A payment whose owner may wait no longer, if it is one.

    Raises:
        NotFound: there is no such payment.
        NotGivenUp: it has ended, or its invoice has not expired for long.
    """
    if order is None or order.payment.direction is not Direction.PAY:
        raise NotFound("There is no payment over Lightning with this id.")
    if order.payment.stage in ENDED:
        raise NotGivenUp(f"The payment is {order.payment.stage.value}: there is nothing to give up.")
    if not may_give_up(order.payment, now):
        days = GIVE_UP_S // _DAY_S
        raise NotGivenUp(f"A payment in doubt can be given up {days} days after its invoice has expired.")
    return order


async def count_silence(order: Order, unit: UnitOfWork, book: LightningBook, now: int) -> None:
    """A connected wallet could not be asked. That ends nothing before it has happened several times over a while.

    Raises:
        NotGivenUp: it may be asked later.
        StoreUncertain: whether this try was counted is not known.
    """
    tries, last = await book.silence(order.id)
    if not tries or now - last >= SILENT_GAP_S:
        tries += 1
        await unit.commit(book.silent(order.id, tries, now))
    if tries < SILENT_TRIES:
        hours = SILENT_GAP_S // 3_600
        raise NotGivenUp(
            f"The wallet cannot be asked just now (try {tries} of {SILENT_TRIES}; each counts {hours} hours after the "
            "one before)."
        )


async def waive(order: Order, unit: UnitOfWork, book: LightningBook, clock: Clock) -> Order:
    """Count it as paid, durably. `waivable` has looked at it.

    Raises:
        Conflict: somebody else has moved it meanwhile.
        StoreUncertain: the database failed; what is durable counts.
    """
    payment, _, name = step(order.payment, GivenUp(clock.now()))
    new = replace(order, payment=payment, reason=name, fee=max(order.fee, order.fee_limit))
    update, new = book.change(order, new)
    await unit.commit([update, *booking(new, clock.now()), book.heard(order.id)])
    told = {"action": "lightning_saga", "operation": order.id, "transition": name}
    log.info("lightning moved", extra=told)
    return new
