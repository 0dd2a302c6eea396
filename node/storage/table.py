"""Every table of the node's database, as SQLModel rows. Schema only: reads and writes go through `UnitOfWork`.

Money columns name their unit. Times are Unix seconds unless a name says otherwise. `version` columns are
compared and set. Bytes named `sealed` are encrypted under a key that is not in the database (DESIGN §6).
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, UniqueConstraint
from sqlmodel import Field, SQLModel

METADATA = MetaData()


class _Table(SQLModel):
    metadata = METADATA


def _big(default: int | None = None) -> Column[int]:
    return Column(BigInteger, nullable=False, server_default=None if default is None else str(default))


def _numbered() -> Column[int]:
    """A key that counts up by itself; SQLite does that only for the exact type INTEGER."""
    return Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


class MetaRow(_Table, table=True):
    """Facts about the node itself: `paused`, `run` (the ledger's), `node` (its public key)."""

    __tablename__ = "meta"
    key: str = Field(primary_key=True)
    value: str


class EffectRow(_Table, table=True):
    """One effect that passed the gate. `state`: begun, commit, fail or unknown."""

    __tablename__ = "effect"
    id: str = Field(primary_key=True)
    caller: str
    path: str
    key: str
    digest: str  # sha256 of the body: the same key with another digest is refused
    subject: str = Field(index=True)
    effect: int
    state: str = Field(index=True)
    unit: str | None = None  # uusd or msat; null when the effect can cost nothing
    reserved: int = Field(default=0, sa_column=_big(0))
    cost: int = Field(default=0, sa_column=_big(0))
    begun_at: int = Field(sa_column=_big())
    ended_at: int | None = None


class BudgetRow(_Table, table=True):
    """A limit: held + spent never pass the ceiling. Names: `day:2026-01-31`, `seller:<pubkey>:2026-01-31`."""

    __tablename__ = "budget"
    name: str = Field(primary_key=True)
    unit: str
    ceiling: int = Field(sa_column=_big())
    held: int = Field(default=0, sa_column=_big(0))
    spent: int = Field(default=0, sa_column=_big(0))


class HoldRow(_Table, table=True):
    """What an open effect holds of a budget. Gone once the effect is settled for good."""

    __tablename__ = "hold"
    effect_id: str = Field(primary_key=True)
    budget: str = Field(primary_key=True)
    amount: int = Field(sa_column=_big())


class EntryRow(_Table, table=True):
    """One signed ledger entry; `raw` is the whole Nostr event as JSON, chained by `prev`."""

    __tablename__ = "entry"
    __table_args__ = (UniqueConstraint("run", "seq"),)
    n: int | None = Field(default=None, sa_column=_numbered())
    run: str
    seq: int = Field(sa_column=_big())
    id: str = Field(unique=True)
    prev: str
    type: str
    effect_id: str = Field(index=True)
    raw: str


class OutboxRow(_Table, table=True):
    """One event on its way to one relay. `state`: pending, sent or refused. A time-out leaves it pending."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_due", "state", "next_at_ms"),)
    event_id: str = Field(primary_key=True)
    relay: str = Field(primary_key=True)
    raw: str
    effect_id: str  # the effect or standing purpose under which it goes out
    state: str = "pending"
    tries: int = 0
    next_at_ms: int = Field(default=0, sa_column=_big(0))
    reason: str = ""


class CursorRow(_Table, table=True):
    """How far a subscription has read on a relay: the greatest verified created_at, never later than our clock."""

    __tablename__ = "cursor"
    relay: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    high: int = Field(sa_column=_big())


class SeenRow(_Table, table=True):
    """An event that was acted on, kept so that it is never acted on twice. Written with what it caused."""

    __tablename__ = "seen"
    event_id: str = Field(primary_key=True)
    at: int = Field(sa_column=_big())


class AnnouncementRow(_Table, table=True):
    """The newest NIP-89 handler event per (author, d)."""

    __tablename__ = "announcement"
    id: str = Field(primary_key=True)  # pubkey:d
    pubkey: str = Field(index=True)
    created_at: int = Field(sa_column=_big())
    raw: str


class PurchaseRow(_Table, table=True):
    """A job we buy. `body` is the buyer machine's state as JSON; the columns are for looking things up."""

    __tablename__ = "purchase"
    id: str = Field(primary_key=True)
    effect_id: str = Field(index=True)
    request_id: str = Field(index=True)
    caller: str
    kind: int
    state: str = Field(index=True)
    money: str = Field(index=True)
    body: str
    created_at: int = Field(sa_column=_big())
    updated_at: int = Field(sa_column=_big())
    version: int = 0


class SaleRow(_Table, table=True):
    """A job we sell; the id is the request event's id. `body` is the seller machine's state as JSON."""

    __tablename__ = "sale"
    id: str = Field(primary_key=True)
    effect_id: str = Field(index=True)
    quote_id: str = Field(index=True)
    customer: str = Field(index=True)
    kind: int
    state: str = Field(index=True)
    body: str
    expires_at: int = Field(sa_column=_big())
    created_at: int = Field(sa_column=_big())
    updated_at: int = Field(sa_column=_big())
    version: int = 0


class ProofRow(_Table, table=True):
    """One Cashu proof of ours. `state`: live, reserved (an input of `operation`), locked (sent away) or spent."""

    __tablename__ = "proof"
    y: str = Field(primary_key=True)
    mint: str
    unit: str
    keyset: str
    amount: int = Field(sa_column=_big())
    state: str = Field(index=True)
    operation: str = Field(index=True)  # the saga that made it, or that has it reserved
    sealed: bytes  # secret, C, DLEQ


class OperationRow(_Table, table=True):
    """One wallet saga: `plan` holds what is needed to finish it after a crash, written before the mint is called."""

    __tablename__ = "operation"
    id: str = Field(primary_key=True)
    kind: str
    state: str = Field(index=True)
    mint: str
    unit: str
    effect_id: str = Field(index=True)
    amount: int = Field(sa_column=_big())  # in the mint's unit
    fee: int = Field(default=0, sa_column=_big(0))
    plan: bytes  # sealed
    result: bytes  # sealed; empty until done
    reason: str = ""
    created_at: int = Field(sa_column=_big())
    updated_at: int = Field(sa_column=_big())
    version: int = 0


class CounterRow(_Table, table=True):
    """The next NUT-13 counter of a keyset. Never lowered."""

    __tablename__ = "counter"
    keyset: str = Field(primary_key=True)
    next: int = Field(default=0, sa_column=_big(0))


class PostingRow(_Table, table=True):
    """One side of a double-entry posting; the amounts of an operation sum to zero per mint and unit."""

    __tablename__ = "posting"
    n: int | None = Field(default=None, sa_column=_numbered())
    operation: str = Field(index=True)
    mint: str
    unit: str
    account: str
    amount: int = Field(sa_column=_big())
    at: int = Field(sa_column=_big())


class RateRow(_Table, table=True):
    """A rate that was used, kept as history."""

    __tablename__ = "rate"
    n: int | None = Field(default=None, sa_column=_numbered())
    micro_usd: int = Field(sa_column=_big())
    msat: int = Field(sa_column=_big())
    taken_at: int = Field(sa_column=_big())
    source: str


class AgentRow(_Table, table=True):
    """An agent: its state as JSON with a schema version, and the row version that a tick compares and sets."""

    __tablename__ = "agent"
    name: str = Field(primary_key=True)
    program: str
    pubkey: str = Field(index=True)
    status: str  # active or quarantined
    state_version: int
    state: str
    ticks: int = 0
    last_tick_at: int | None = None
    last_cause: str = ""
    created_at: int = Field(sa_column=_big())
    version: int = 0


class InboxRow(_Table, table=True):
    """A trigger that waits for an agent. `state`: new, done or dead. Unique by envelope id, for months."""

    __tablename__ = "inbox"
    __table_args__ = (Index("inbox_next", "agent", "state", "n"), UniqueConstraint("agent", "envelope_id"))
    n: int | None = Field(default=None, sa_column=_numbered())
    agent: str
    envelope_id: str
    cause: str  # message, event, manual, initialize, alarm
    source: str
    sender: str
    payload: str
    state: str = "new"
    tries: int = 0
    error: str = ""
    at: int = Field(sa_column=_big())
    next_at_ms: int = Field(default=0, sa_column=_big(0))


class TickRow(_Table, table=True):
    """A tick that was committed or that failed."""

    __tablename__ = "tick"
    id: str = Field(primary_key=True)
    agent: str = Field(index=True)
    envelope_id: str
    cause: str
    at_ms: int = Field(sa_column=_big())
    duration_ms: int = Field(sa_column=_big())
    error: str = ""


class GoalRow(_Table, table=True):
    """One goal of an agent, as the JSON that was written."""

    __tablename__ = "goal"
    agent: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    body: str
    updated_at: int = Field(sa_column=_big())


class LogRow(_Table, table=True):
    """One record of an agent's trace; `n` is the cursor of watchers."""

    __tablename__ = "log"
    __table_args__ = (Index("log_agent", "agent", "n"),)
    n: int | None = Field(default=None, sa_column=_numbered())
    agent: str
    at_ms: int = Field(sa_column=_big())
    type: str
    data: str


class HandledRow(_Table, table=True):
    """An event that a subscription's handler has finished with, so that a restart does not hand it over again."""

    __tablename__ = "handled"
    __table_args__ = (Index("handled_when", "name", "created_at"),)
    name: str = Field(primary_key=True)  # the subscription's
    event_id: str = Field(primary_key=True)
    created_at: int = Field(sa_column=_big())


class RelayFactRow(_Table, table=True):
    """What a relay said of itself (NIP-11, JSON), and what we found out by trying (JSON)."""

    __tablename__ = "relay_fact"
    url: str = Field(primary_key=True)
    information: str = ""
    traits: str = "{}"
    at: int = Field(sa_column=_big())


class RelayListRow(_Table, table=True):
    """A person's newest list of one kind: 10002 (NIP-65), 10050 (NIP-17). An empty `raw`: we asked, there is none."""

    __tablename__ = "relay_list"
    pubkey: str = Field(primary_key=True)
    kind: int = Field(primary_key=True)
    created_at: int = Field(sa_column=_big())
    raw: str
    fetched_at: int = Field(sa_column=_big())


class IdentityRow(_Table, table=True):
    """One key of one agent. Rotation makes a new epoch; an old key is kept to decrypt what still comes for it.

    `source`: derived, imported or remote. `state`: next (a rotation has begun), active, retired or deleted.
    """

    __tablename__ = "identity"
    name: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    pubkey: str = Field(index=True)
    source: str
    sealed: bytes  # an imported secret, or how to reach the remote signer; empty for derived ones
    state: str
    created_at: int = Field(sa_column=_big())
    retired_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))


class MessageRow(_Table, table=True):
    """One message of an agent, in or out, and what became of it.

    `protocol`: nip17, nip04 or public. `direction`: in or out. `state` of one that goes out: queued, sent, failed,
    seen (the other side reacted); of one that came in: received, held, dropped. `changed_ms` (Unix ms) rises strictly
    with every change of any row: it is the cursor of those who watch.
    """

    __tablename__ = "message"
    __table_args__ = (
        Index("message_talk", "agent", "peer", "created_at"),
        Index("message_watch", "agent", "changed_ms"),
    )
    agent: str = Field(primary_key=True)
    id: str = Field(primary_key=True)  # the rumor's, or the event's
    peer: str
    direction: str
    protocol: str
    kind: int
    text: str = ""
    effect_id: str = Field(default="", index=True)
    state: str
    reason: str = ""
    first: int = 0  # 1: the agent wrote before the other side ever had
    created_at: int = Field(sa_column=_big())
    changed_ms: int = Field(sa_column=_big())


class RelayPaymentRow(_Table, table=True):
    """Somebody paid for writing to the node's own relay. One row a token, so that a token counts once."""

    __tablename__ = "relay_payment"
    op_id: str = Field(primary_key=True)  # the wallet's operation that took the token
    pubkey: str = Field(index=True)
    paid_until: int = Field(sa_column=_big())
    created_at: int = Field(sa_column=_big())
