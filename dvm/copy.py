"""Jobs that were under way in an old copy of the database: what becomes of them when a node is restored from it. Pure.

Since the copy was made such a job may have been quoted, paid and delivered, and nothing here tells of it. So nothing
more is ever paid for it. What had certainly left the wallet is followed to its end as always; all else ends at once,
and its effect is parked as *unknown*: the reservation stays until somebody knows.
"""

from core.change import replace
from dvm.job import ENDED, Funds, Purchase, State
from dvm.policy import MARKET

REASON = "The node was restored from a copy that was made while this job was under way; it may have been paid since."


def set_aside(purchase: Purchase, now_ms: int, *, begun: bool) -> Purchase | None:
    """The job as it goes on after a restore; None if it goes on as it is.

    Args:
        purchase: as it stands in the copy.
        now_ms: Unix milliseconds.
        begun: the wallet of the copy had begun to lock the money.
    """
    out = purchase.money in (Funds.LOCKED, Funds.REFUNDING, Funds.CLAIMED)
    if purchase.closed or out or MARKET not in purchase.route:
        return None
    doubtful = purchase.money is Funds.LOCKING and begun
    if purchase.state in ENDED:
        if purchase.money is not Funds.LOCKING or (purchase.copied and doubtful):
            return None
        ended = purchase
    else:
        ended = replace(purchase, state=State.FAILED, error=REASON).noted(now_ms, "restored", REASON)
    if doubtful:  # the wallet looks it up, and sends nothing
        return replace(ended, copied=True)
    return replace(ended, copied=True, money=Funds.NONE, closed=True)
