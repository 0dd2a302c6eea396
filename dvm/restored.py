"""Purchases as a start finds them, and those that only an old copy of the database knows: drives `dvm.copy`."""

from core.effect import Outcome, OutcomeState
from core.identifier import EffectId
from core.money import Msat
from core.unit import Among, Row, UnitOfWork, Update, Value, Write
from dvm.balance import BUYER
from dvm.copy import set_aside
from dvm.desk import Desk
from dvm.job import ENDED, Funds, Purchase, State
from dvm.opening import TABLE
from dvm.record import decode, encode
from dvm.view import PurchaseView

_OPEN_STATES = tuple(state.value for state in State if state not in ENDED)
_OPEN_MONEY = (Funds.LOCKING.value, Funds.LOCKED.value, Funds.REFUNDING.value)


async def open_rows(unit: UnitOfWork) -> list[Row]:
    """Jobs that have not ended, and those whose money is out."""
    rows = await unit.select(TABLE, {"state": Among(_OPEN_STATES)})
    ended = {"state": Among(tuple(state.value for state in ENDED)), "money": Among(_OPEN_MONEY)}
    return [*rows, *await unit.select(TABLE, ended)]


async def adopt_copy(desk: Desk) -> int:
    """End the jobs that may have been paid since the copy was made. Whoever asked for one is told, in the same commit.

    How many there were.
    """
    count = 0
    for row in await open_rows(desk.unit):
        purchase = decode(Purchase, row["body"])
        paid = purchase.payment
        begun = paid is not None and await desk.wallet.find(paid.op_id) is not None
        after = set_aside(purchase, desk.clock.millis(), begun=begun)
        if after is not None:
            await desk.unit.commit(await _ended(desk, purchase, after, int(row["version"])))
            count += 1
    return count


async def nothing_was_paid(desk: Desk) -> int:
    """Every mint has shown that no money moved since the copy: the jobs that were ended for it cost nothing.

    Not so if something lay at a seller: vouchers move no money at a mint, and what was signed since is not known here.
    """
    if await desk.unit.select("deposit", {"side": BUYER}, columns=("id",), limit=1):
        return 0
    count = 0
    for effect in await desk.unit.select("effect", {"state": OutcomeState.UNKNOWN.value}):
        for row in await desk.unit.select(TABLE, {"effect_id": effect["id"]}):
            purchase = decode(Purchase, row["body"])
            if purchase.copied and purchase.closed and purchase.money is Funds.NONE:
                cost = purchase.limit.cost(Msat(0))
                outcome = Outcome(OutcomeState.FAIL, cost, {"job": purchase.job_id, "reason": "never paid"})
                await desk.unit.commit(await desk.gate.settle(EffectId(effect["id"]), outcome))
                count += 1
    return count


async def _ended(desk: Desk, before: Purchase, after: Purchase, version: int) -> list[Write]:
    change: dict[str, Value] = {
        "state": after.state.value,
        "money": after.money.value,
        "body": encode(after),
        "updated_at": desk.clock.now(),
        "version": version + 1,
    }
    writes: list[Write] = [Update(TABLE, {"id": after.job_id, "version": version}, change)]
    if before.state not in ENDED and after.seat is None:
        for callback in desk.finished:
            writes += await callback(PurchaseView(after, version + 1))
    if after.closed:
        outcome = Outcome(OutcomeState.UNKNOWN, detail={"job": after.job_id, "reason": "restored"})
        writes += await desk.gate.settle(EffectId(after.effect_id), outcome)
    return writes
