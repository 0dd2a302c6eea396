"""Effects that are closed, with everything that names them: what may go of them, and the writes that take it away.

An effect is closed when it has ended, holds nothing of a budget, its jobs and sales have ended with their money at its
end, its operations are done or refused, what it paid over Lightning is known, and no coin is reserved or locked by one
of them. As long as one of these is not so, nothing of it goes. What its operations posted is carried forward in one row
per account, so that the books stay what they were.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Write
from dvm.job import ENDED as JOB_ENDED
from dvm.job import FINAL
from dvm.seller import ENDED as SALE_ENDED
from dvm.seller import State as SaleState
from dvm.tip import ENDED as TIP_ENDED
from dvm.tip import owner_of
from wallet.lightning import ENDED as LIGHTNING_ENDED
from wallet.payment import State

CARRIED = "carried"  # the operation under which sums of deleted postings stand
EFFECT_ENDED = Among(("commit", "fail"))
_JOB_ENDED = Among(tuple(state.value for state in JOB_ENDED))
_JOB_FINAL = Among(tuple(funds.value for funds in FINAL))
# What is owed to a customer is money, however long ago its sale ended.
_SALE_ENDED = Among(tuple(state.value for state in SALE_ENDED - {SaleState.OWED}))
_OPERATION_ENDED = Among((str(State.DONE), str(State.REFUSED)))
_LIGHTNING_ENDED = Among(tuple(str(stage) for stage in LIGHTNING_ENDED))
_TIP_ENDED = Among(tuple(state.value for state in TIP_ENDED))
_TIED = Among(("reserved", "locked"))


@dataclass(slots=True)
class Members:
    """What names one effect."""

    effect: Row
    purchases: list[Row] = field(default_factory=list)
    sales: list[Row] = field(default_factory=list)
    operations: list[Row] = field(default_factory=list)
    holds: int = 0
    tied: int = 0
    lightning: list[Row] = field(default_factory=list)
    tips: list[Row] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether nothing of its money is open."""
        return (
            self.effect["state"] in EFFECT_ENDED.values
            and not self.holds
            and not self.tied
            and all(row["state"] in _JOB_ENDED.values and row["money"] in _JOB_FINAL.values for row in self.purchases)
            and all(row["state"] in _SALE_ENDED.values for row in self.sales)
            and all(row["state"] in _OPERATION_ENDED.values for row in self.operations)
            and all(row["state"] in _LIGHTNING_ENDED.values for row in self.lightning)
            and all(row["state"] in _TIP_ENDED.values and not row["beside"] for row in self.tips)
        )

    @property
    def moved_money(self) -> bool:
        """Whether the wallet did anything for it."""
        return bool(self.operations or self.lightning)

    @property
    def rows(self) -> int:
        """How many rows go with it, the postings aside."""
        return 1 + len(self.purchases) + len(self.sales) + len(self.operations) + len(self.tips)


async def gather(unit: UnitOfWork, effects: Sequence[Row]) -> list[Members]:
    """The families of some effects, each read by its index."""
    found = {row["id"]: Members(row) for row in effects}
    mine: dict[str, Condition] = {"effect_id": Among(tuple(found))}
    for row in await unit.select("hold", mine, columns=("effect_id",)):
        found[row["effect_id"]].holds += 1
    for row in await unit.select("purchase", mine, columns=("id", "effect_id", "state", "money")):
        found[row["effect_id"]].purchases.append(row)
    for row in await unit.select("sale", mine, columns=("id", "effect_id", "state", "quote_id")):
        found[row["effect_id"]].sales.append(row)
    for row in await unit.select("lightning", mine, columns=("effect_id", "state")):
        found[row["effect_id"]].lightning.append(row)
    for row in await unit.select("tip", mine, columns=("id", "effect_id", "state", "beside")):
        found[row["effect_id"]].tips.append(row)
    owner = {}
    for row in await unit.select("operation", mine, columns=("id", "effect_id", "state")):
        found[row["effect_id"]].operations.append(row)
        owner[row["id"]] = row["effect_id"]
    if owner:
        tied: dict[str, Condition] = {"operation": Among(tuple(owner)), "state": _TIED}
        for row in await unit.select("proof", tied, columns=("operation",)):
            found[owner[row["operation"]]].tied += 1
    return list(found.values())


async def removal(unit: UnitOfWork, members: Sequence[Members], now: int) -> list[Write]:
    """The writes that take closed families away, in one unit. If anything of them changed meanwhile, it conflicts."""
    operations = tuple(row["id"] for one in members for row in one.operations)
    writes: list[Write] = []
    if operations:
        writes += await _carried(unit, operations, now)
        spent: dict[str, Condition] = {"operation": Among(operations), "state": "spent"}
        writes.append(Delete("proof", spent))
    quotes = tuple(f"quote:{row['quote_id']}" for one in members for row in one.sales if row["quote_id"])
    quotes += tuple(owner_of(row["id"]) for one in members for row in one.tips)
    if quotes:  # coins that were shown to us, and are the mint's business now
        shown: dict[str, Condition] = {"operation": Among(quotes), "state": Among(("incoming", "spent"))}
        writes.append(Delete("proof", shown))
    for one in members:
        mine: dict[str, Condition] = {"effect_id": one.effect["id"]}
        if one.operations:
            writes.append(Delete("operation", {**mine, "state": _OPERATION_ENDED}, len(one.operations)))
        if one.purchases:
            ended = {"state": _JOB_ENDED, "money": _JOB_FINAL}
            writes.append(Delete("purchase", {**mine, **ended}, len(one.purchases)))
        if one.sales:
            writes.append(Delete("sale", {**mine, "state": _SALE_ENDED}, len(one.sales)))
        if one.tips:
            writes.append(Delete("tip", {**mine, "state": _TIP_ENDED}, len(one.tips)))
        writes.append(Delete("effect", {"id": one.effect["id"], "state": EFFECT_ENDED}, 1))
    return writes


async def _carried(unit: UnitOfWork, operations: Sequence[str], now: int) -> list[Write]:
    """The postings of these operations, summed into one row per mint, unit and account."""
    rows = await unit.select("posting", {"operation": Among(tuple(operations))})
    if not rows:
        return []
    numbers: dict[str, Condition] = {"n": Among(tuple(row["n"] for row in rows))}
    known = await unit.select("posting", {"operation": CARRIED})
    return [Delete("posting", numbers, len(rows)), *_sums(rows, known, now)]


def _sums(rows: Iterable[Row], known: Iterable[Row], now: int) -> Iterable[Write]:
    sums: Mapping[tuple[str, str, str], int] = defaultdict(int, _total(rows))
    numbers = {(row["mint"], row["unit"], row["account"]): row["n"] for row in known}
    for (mint, money, account), amount in sorted(sums.items()):
        number = numbers.get((mint, money, account))
        if not amount:
            continue
        if number is not None:
            yield Update("posting", {"n": number, "operation": CARRIED}, add={"amount": amount})
            continue
        yield Insert(
            "posting",
            {"operation": CARRIED, "mint": mint, "unit": money, "account": account, "amount": amount, "at": now},
        )


def _total(rows: Iterable[Row]) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        found[row["mint"], row["unit"], row["account"]] += row["amount"]
    return found
