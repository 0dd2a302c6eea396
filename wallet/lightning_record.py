"""Rows of Lightning payments and invoices: read from table `lightning` and turned into writes. Asks no wallet.

What is needed to go on after a crash (the invoice, the request's own bytes, the preimage once there is one) is sealed,
as the coins are: the bytes of a request are as good as the money, as long as the wallet takes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from core.clock import Clock
from core.identifier import EffectId, OperationId
from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from wallet.lightning import ENDED, Direction, Payment, Stage
from wallet.payment import State
from wallet.record import Vault

TABLE = "lightning"
UNIT = "msat"
SHOWS = "lightning/shows/"  # and a wallet's name: the key in table `meta`
SILENT = "lightning/silent/"  # and an operation: how often its wallet was silent to who gives up, and when last
OPEN = Among(tuple(str(stage) for stage in Stage if stage not in ENDED))
_STATES = {
    Stage.PREPARED: State.PREPARED,
    Stage.SENT: State.PREPARED,
    Stage.UNKNOWN: State.UNKNOWN,
    Stage.WAITING: State.WAITING,
    Stage.PAID: State.DONE,
    Stage.FAILED: State.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Order:
    """A payment's or an invoice's row, opened. Amounts in msat.

    Attributes:
        payment: the machine's state.
        wallet: `nwc:` and eight digits that stand for the connection; the journal's name for it.
        payment_hash: of the invoice; no two rows have the same.
        effect_id: the gate's.
        amount: what the payee gets.
        fee_limit: what the fee may be; None of NIP-47's fields can hold a wallet to it.
        fee: what the wallet says that it took on top.
        reason: the transition that ended it, or the wallet's last error code.
        invoice: BOLT-11.
        request: the signed event that asks for the payment, as JSON.
        preimage: the proof that it was paid, or empty.
        note: what the invoice is for, in its maker's words.
        purpose: empty, or `deposit`: it pays a mint of ours.
    """

    payment: Payment
    wallet: str
    payment_hash: str
    effect_id: EffectId
    amount: int
    fee_limit: int
    invoice: str = field(repr=False)
    request: str = field(default="", repr=False)
    preimage: str = field(default="", repr=False)
    note: str = ""
    purpose: str = ""
    fee: int = 0
    reason: str = ""
    created_at: int = 0
    version: int = 0

    @property
    def id(self) -> OperationId:
        """The operation."""
        return self.payment.id

    @property
    def most(self) -> int:
        """What counts against the day, in msat: all of it while it may still be paid."""
        if self.payment.direction is Direction.INVOICE or self.payment.stage is Stage.FAILED:
            return 0
        return self.amount + (self.fee if self.payment.stage is Stage.PAID else max(self.fee, self.fee_limit))


@dataclass(frozen=True, slots=True)
class LightningView:
    """A payment or an invoice as its owner may see it. Amounts in msat, times in Unix seconds.

    `state` is in the words of the wallet's other operations; `stage` is this saga's own.
    """

    id: OperationId
    kind: Direction
    state: State
    stage: Stage
    wallet: str
    effect_id: EffectId
    amount: int
    fee: int
    reason: str
    payment_hash: str
    expires_at: int
    created_at: int
    invoice: str = field(repr=False)
    preimage: str = field(default="", repr=False)
    note: str = ""
    purpose: str = ""


def view_of(order: Order) -> LightningView:
    """What is shown of a row."""
    payment = order.payment
    return LightningView(
        payment.id, payment.direction, _STATES[payment.stage], payment.stage, order.wallet, order.effect_id,
        order.amount, order.fee, order.reason, order.payment_hash, payment.expires_at, order.created_at,
        order.invoice, order.preimage, order.note, order.purpose,
    )  # fmt: skip


class LightningBook:
    """Everything that is read from or written to the table.

    Args:
        unit: the database.
        vault: seals what is secret.
        clock: stamps rows.
    """

    def __init__(self, unit: UnitOfWork, vault: Vault, clock: Clock) -> None:
        self._unit, self._vault, self._clock = unit, vault, clock

    async def find(self, op_id: str) -> Order | None:
        """A row by its operation."""
        return await self._one({"id": op_id})

    async def of_hash(self, payment_hash: str) -> Order | None:
        """A row by its payment hash."""
        return await self._one({"payment_hash": payment_hash})

    async def pays(self, payment_hash: str) -> OperationId | None:
        """The operation that pays an invoice, has paid it, or may have; one of which nothing left us has not."""
        order = await self.of_hash(payment_hash)
        if order is None or order.payment.direction is not Direction.PAY or order.payment.stage is Stage.FAILED:
            return None
        return order.id

    async def _one(self, where: Mapping[str, Condition]) -> Order | None:
        rows = await self._unit.select(TABLE, where)
        return self._order(rows[0]) if rows else None

    async def open(self) -> list[Order]:
        """Those that have not ended, oldest first."""
        return [self._order(row) for row in await self._unit.select(TABLE, {"state": OPEN}, order=("created_at", "id"))]

    async def all(self) -> list[Order]:
        """Every row, oldest first."""
        return [self._order(row) for row in await self._unit.select(TABLE, order=("created_at", "id"))]

    async def latest(self, limit: int) -> list[Order]:
        """The newest rows, newest first."""
        return [self._order(row) for row in await self._unit.select(TABLE, order=("-created_at", "-id"), limit=limit)]

    async def spent_since(self, since: int) -> int:
        """What left, or may leave, in payments begun or paid since then and in all that are open, in msat."""
        before = Within(None, since)
        out: dict[str, Condition] = {"kind": str(Direction.PAY)}
        recent = await self._unit.select(TABLE, {**out, "created_at": Within(since)})
        older = await self._unit.select(TABLE, {**out, "state": OPEN, "created_at": before})
        paid: dict[str, Condition] = {**out, "state": str(Stage.PAID), "created_at": before}
        late = await self._unit.select(TABLE, {**paid, "updated_at": Within(since)})
        return sum(self._order(row).most for row in (*recent, *older, *late))

    async def has_ended(self, effect_id: EffectId) -> bool:
        """Whether an effect is not open any more."""
        rows = await self._unit.select("effect", {"id": effect_id})
        return all(row["state"] not in ("begun", "unknown") for row in rows)

    async def shows_payments(self, wallet: str) -> bool:
        """Whether a look-up at this wallet has ever found a payment that it made. Some find invoices alone."""
        return bool(await self._unit.select("meta", {"key": SHOWS + wallet}))

    def showed(self, wallet: str) -> Write:
        """A look-up at this wallet has found a payment that it made."""
        return Insert("meta", {"key": SHOWS + wallet, "value": str(self._clock.now())}, or_ignore=True)

    async def silence(self, op_id: str) -> tuple[int, int]:
        """How often a wallet was silent to its owner who gives this payment up, and when it last was (Unix seconds)."""
        rows = await self._unit.select("meta", {"key": SILENT + op_id})
        tries, _, last = rows[0]["value"].partition(" ") if rows else ("0", "", "0")
        return int(tries), int(last)

    def silent(self, op_id: str, tries: int, now: int) -> list[Write]:
        """It was silent so often, this time included."""
        return [self.heard(op_id), Insert("meta", {"key": SILENT + op_id, "value": f"{tries} {now}"})]

    def heard(self, op_id: str) -> Write:
        """It has answered, or nobody asks any more."""
        return Delete("meta", {"key": SILENT + op_id})

    def _order(self, row: Row) -> Order:
        id_ = OperationId(row["id"])
        body: dict[str, Any] = orjson.loads(self._vault.open(bytes(row["sealed"]), f"lightning/{id_}"))
        payment = Payment(
            id_, Direction(row["kind"]), Stage(row["state"]), row["expires_at"], body["until"], body["sends"],
            body["rejected"], body["since"], body["copied"], body.get("relays", 1),
        )  # fmt: skip
        return Order(
            payment, row["wallet"], row["payment_hash"], EffectId(row["effect_id"]), row["amount"], row["fee_limit"],
            body["invoice"], body["request"], body["preimage"], body["note"], body["purpose"], row["fee"],
            row["reason"], row["created_at"], row["version"],
        )  # fmt: skip

    def _sealed(self, order: Order) -> bytes:
        payment = order.payment
        body = {
            "invoice": order.invoice,
            "request": order.request,
            "preimage": order.preimage,
            "note": order.note,
            "purpose": order.purpose,
            "until": payment.until,
            "sends": payment.sends,
            "rejected": payment.rejected,
            "since": payment.since,
            "copied": payment.copied,
            "relays": payment.relays,
        }
        return self._vault.seal(orjson.dumps(body), f"lightning/{order.id}")

    def begin(self, order: Order) -> tuple[Insert, Order]:
        """A new row, and the order as it will be read."""
        now = self._clock.now()
        order = replace(order, created_at=now)
        row: dict[str, Value] = {
            "id": order.id,
            "kind": str(order.payment.direction),
            "state": str(order.payment.stage),
            "wallet": order.wallet,
            "payment_hash": order.payment_hash,
            "effect_id": order.effect_id,
            "amount": order.amount,
            "fee_limit": order.fee_limit,
            "fee": order.fee,
            "sealed": self._sealed(order),
            "reason": order.reason,
            "expires_at": order.payment.expires_at,
            "created_at": now,
            "updated_at": now,
            "version": order.version,
        }
        return Insert(TABLE, row), order

    def change(self, old: Order, new: Order) -> tuple[Update, Order]:
        """The row's next version, if nobody changed it meanwhile, and the order as it will be read."""
        new = replace(new, version=old.version + 1)
        columns: dict[str, Value] = {
            "state": str(new.payment.stage),
            "fee": new.fee,
            "sealed": self._sealed(new),
            "reason": new.reason,
            "updated_at": self._clock.now(),
            "version": new.version,
        }
        return Update(TABLE, {"id": old.id, "version": old.version}, columns), new

    async def posted(self, wallet: str) -> list[Row]:
        """Every posting of one wallet."""
        return await self._unit.select("posting", {"mint": wallet})
