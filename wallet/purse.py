"""The wallet's rows: coins, counters and operations, read from the database and turned into writes. Calls no mint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.clock import Clock
from core.identifier import EffectId, OperationId
from core.unit import Among, Insert, Row, UnitOfWork, Update, Value, Write
from wallet.cashu.derive import Derivation
from wallet.cashu.proof import Output, Proof
from wallet.payment import Kind, Operation, State
from wallet.record import Plan, Vault

_CHUNK = 200
HELD = Among(("live", "reserved", "locked", "incoming"))
OPEN = Among((str(State.PREPARED), str(State.UNKNOWN)))

# Why an operation is unknown, if its mint says that it is still at it.
PENDING = frozenset({"in_flight", "in_progress"})


@dataclass(frozen=True, slots=True)
class Stored:
    """An operation's row, opened. `amount` and `fee` are in the mint's unit."""

    op: Operation
    plan: Plan
    mint: str
    unit: str
    effect_id: EffectId
    amount: int
    fee: int
    reason: str
    updated_at: int
    version: int
    result: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Coin:
    """A coin's row. `proof` is there for coins that can still be spent."""

    y: str
    mint: str
    unit: str
    amount: int
    state: str
    operation: str
    proof: Proof | None = field(default=None, repr=False)


class Purse:
    """Everything the wallet reads from or writes to the database.

    Args:
        unit: the database.
        vault: seals what is secret.
        derive: makes outputs from counters.
        clock: stamps rows.

    `on_coin` is told the mint, unit and keyset of every coin that is about to be written down.
    """

    def __init__(self, unit: UnitOfWork, vault: Vault, derive: Derivation, clock: Clock) -> None:
        self._unit = unit
        self._vault = vault
        self._derive = derive
        self._clock = clock
        self._watchers: list[Callable[[], None]] = []
        self.on_coin: Callable[[str, str, str], None] = lambda mint, unit, keyset: None

    def on_commit(self, watcher: Callable[[], None]) -> None:
        """Have it called after each commit of the wallet's."""
        self._watchers.append(watcher)

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply as one unit. Raises Conflict or StoreUncertain, as `UnitOfWork.commit` does."""
        await self._unit.commit(writes)
        for watcher in self._watchers:
            watcher()

    # ------------------------------------------------------------------ coins

    async def coins(self, **where: str | Among) -> list[Coin]:
        """Coins whose columns are so, in a stable order."""
        rows = await self._unit.select("proof", where, order=("amount", "y"))
        return [self._coin(row) for row in rows]

    async def known(self, ys: Sequence[str]) -> dict[str, Coin]:
        """Those of these coins that have a row."""
        found: dict[str, Coin] = {}
        for start in range(0, len(ys), _CHUNK):
            for coin in await self.coins(y=Among(tuple(ys[start : start + _CHUNK]))):
                found[coin.y] = coin
        return found

    def _coin(self, row: Row) -> Coin:
        sealed = bytes(row["sealed"])
        proof = self._vault.open_proof(sealed, row["y"]) if sealed else None
        return Coin(row["y"], row["mint"], row["unit"], row["amount"], row["state"], row["operation"], proof)

    def insert(self, proof: Proof, mint: str, unit: str, state: str, operation: str) -> Insert:
        """A new coin."""
        self.on_coin(mint, unit, proof.keyset)
        row: dict[str, Value] = {
            "y": proof.y,
            "mint": mint,
            "unit": unit,
            "keyset": proof.keyset,
            "amount": proof.amount,
            "state": state,
            "operation": operation,
            "sealed": self._vault.seal_proof(proof),
        }
        return Insert("proof", row)

    @staticmethod
    def spend(coin: Coin) -> Update:
        """The coin is spent for good; its secret is forgotten."""
        where = {"y": coin.y, "state": coin.state, "operation": coin.operation}
        return Update("proof", where, {"state": "spent", "sealed": b""})

    @staticmethod
    def move(coin: Coin, state: str, operation: str) -> Update:
        """Reserve or release a coin, if it is as we saw it."""
        where = {"y": coin.y, "state": coin.state, "operation": coin.operation}
        return Update("proof", where, {"state": state, "operation": operation})

    # ------------------------------------------------------------------ counters

    async def counter(self, keyset: str) -> int | None:
        """The next counter of a keyset; None before its first use."""
        rows = await self._unit.select("counter", {"keyset": keyset})
        return int(rows[0]["next"]) if rows else None

    @staticmethod
    def count(keyset: str, old: int | None, new: int) -> list[Write]:
        """Raise a counter. It is never lowered: a counter used twice would ask for two signatures on one secret."""
        if new <= (old or 0):
            return []
        if old is None:
            return [Insert("counter", {"keyset": keyset, "next": new})]
        return [Update("counter", {"keyset": keyset, "next": old}, {"next": new})]

    async def outputs(self, keyset: str, amounts: Sequence[int], *, gives: int = 0) -> tuple[list[Output], list[Write]]:
        """Outputs from the next counters, and the writes that use those up. The first `gives` are for somebody else."""
        old = await self.counter(keyset)
        first = old or 0
        made = [
            self._derive.output(keyset, first + place, amount, gives=place < gives)
            for place, amount in enumerate(amounts)
        ]
        return made, self.count(keyset, old, first + len(made))

    # ------------------------------------------------------------------ operations

    async def find(self, id_: str) -> Stored | None:
        """An operation by its id."""
        rows = await self._unit.select("operation", {"id": id_})
        return self._stored(rows[0]) if rows else None

    async def operations(self, **where: str | Among) -> list[Stored]:
        """Operations whose columns are so, oldest first."""
        rows = await self._unit.select("operation", where, order=("created_at", "id"))
        return [self._stored(row) for row in rows]

    def _stored(self, row: Row) -> Stored:
        id_ = OperationId(row["id"])
        plan = Plan.from_json(self._vault.open(bytes(row["plan"]), f"plan/{id_}"))
        result = self._vault.open_result(bytes(row["result"]), id_) if row["result"] else None
        kind, state = Kind(row["kind"]), State(row["state"])
        return Stored(
            Operation(id_, kind, state, plan.attempt, copied=plan.copied, loose=plan.loose),
            plan,
            row["mint"],
            row["unit"],
            EffectId(row["effect_id"]),
            row["amount"],
            row["fee"],
            row["reason"],
            row["updated_at"],
            row["version"],
            result,
        )

    def begin(self, stored: Stored, result: Mapping[str, Any] | None = None) -> Insert:
        """A new operation's row; with its result if it is done, as one that was found."""
        now = self._clock.now()
        row: dict[str, Value] = {
            "id": stored.op.id,
            "kind": str(stored.op.kind),
            "state": str(stored.op.state),
            "mint": stored.mint,
            "unit": stored.unit,
            "effect_id": stored.effect_id,
            "amount": stored.amount,
            "fee": stored.fee,
            "plan": self._vault.seal(stored.plan.to_json(), f"plan/{stored.op.id}"),
            "result": b"" if result is None else self._vault.seal_result(result, stored.op.id),
            "reason": stored.reason,
            "created_at": now,
            "updated_at": now,
            "version": stored.version,
        }
        return Insert("operation", row)

    def change(self, old: Stored, new: Stored) -> Update:
        """The operation's next version, if nobody changed it meanwhile."""
        new = replace(new, plan=replace(new.plan, loose=new.op.loose))
        result = b"" if new.result is None else self._vault.seal_result(new.result, new.op.id)
        columns: dict[str, Value] = {
            "state": str(new.op.state),
            "amount": new.amount,
            "fee": new.fee,
            "plan": self._vault.seal(new.plan.to_json(), f"plan/{new.op.id}"),
            "result": result,
            "reason": new.reason,
            "updated_at": self._clock.now(),
            "version": old.version + 1,
        }
        return Update("operation", {"id": old.op.id, "version": old.version}, columns)

    async def posted(self) -> list[Row]:
        """Every posting."""
        return await self._unit.select("posting")
