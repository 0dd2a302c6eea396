"""Every table of the node's database, as SQLModel rows. Schema only: reads and writes go through `UnitOfWork`.

Money columns name their unit. Times are Unix seconds unless a name says otherwise. `version` columns are
compared and set. Bytes named `sealed` are encrypted under a key that is not in the database (DESIGN §6).
"""

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint
from sqlmodel import Field

from node.storage.column import METADATA, Table, big, numbered, some, word
from node.storage.market_table import DepositRow, LightningRow, PurchaseRow, RateRow, ReceiptRow, SaleRow, TipRow

__all__ = [
    "METADATA",
    "AgentRow",
    "AlarmRow",
    "AnnouncementRow",
    "BlobRow",
    "BudgetRow",
    "CounterRow",
    "CursorRow",
    "DepositRow",
    "EffectRow",
    "EntryRow",
    "GoalRow",
    "HandledRow",
    "HoldRow",
    "HookRow",
    "IdentityRow",
    "InboxRow",
    "InterestRow",
    "ItemRow",
    "LeaseRow",
    "LightningRow",
    "LogRow",
    "MarkRow",
    "MessageRow",
    "MetaRow",
    "OperationRow",
    "OutboxRow",
    "PostingRow",
    "ProofRow",
    "PurchaseRow",
    "RateRow",
    "ReceiptRow",
    "RecordingRow",
    "RelayFactRow",
    "RelayListRow",
    "RelayPaymentRow",
    "SaleRow",
    "SecretRow",
    "SeenRow",
    "TickRow",
    "TipRow",
]


class MetaRow(Table, table=True):
    """Facts about the node itself: `paused`, `run` (the ledger's), `node` (its public key)."""

    __tablename__ = "meta"
    key: str = Field(primary_key=True)
    value: str


class EffectRow(Table, table=True):
    """One effect that passed the gate. `state`: begun, commit, fail or unknown."""

    __tablename__ = "effect"
    __table_args__ = (some("effect_ended", "ended_at", where="ended_at IS NOT NULL"),)
    id: str = Field(primary_key=True)
    caller: str
    path: str
    key: str
    digest: str  # sha256 of the body: the same key with another digest is refused
    subject: str = Field(index=True)
    effect: int
    state: str = Field(index=True)
    unit: str | None = None  # uusd or msat; null when the effect can cost nothing
    reserved: int = Field(default=0, sa_column=big(0))
    cost: int = Field(default=0, sa_column=big(0))
    begun_at: int = Field(sa_column=big())
    ended_at: int | None = None


class BudgetRow(Table, table=True):
    """A limit: held + spent never pass the ceiling. Names: `day:2026-01-31`, `seller:<pubkey>:2026-01-31`."""

    __tablename__ = "budget"
    name: str = Field(primary_key=True)
    unit: str
    ceiling: int = Field(sa_column=big())
    held: int = Field(default=0, sa_column=big(0))
    spent: int = Field(default=0, sa_column=big(0))


class HoldRow(Table, table=True):
    """What an open effect holds of a budget. Gone once the effect is settled for good."""

    __tablename__ = "hold"
    effect_id: str = Field(primary_key=True)
    budget: str = Field(primary_key=True)
    amount: int = Field(sa_column=big())


class EntryRow(Table, table=True):
    """One signed ledger entry; `raw` is the whole Nostr event as JSON, chained by `prev`."""

    __tablename__ = "entry"
    __table_args__ = (UniqueConstraint("run", "seq"),)
    n: int | None = Field(default=None, sa_column=numbered())
    run: str
    seq: int = Field(sa_column=big())
    id: str = Field(unique=True)
    prev: str
    type: str
    effect_id: str = Field(index=True)
    raw: str


class OutboxRow(Table, table=True):
    """One event on its way to one relay. `state`: pending, sent or refused. A time-out leaves it pending."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_due", "state", "next_at_ms"),)
    event_id: str = Field(primary_key=True)
    relay: str = Field(primary_key=True)
    raw: str
    effect_id: str  # the effect or standing purpose under which it goes out
    state: str = "pending"
    tries: int = 0
    next_at_ms: int = Field(default=0, sa_column=big(0))
    reason: str = ""


class CursorRow(Table, table=True):
    """How far a subscription has read on a relay: the greatest verified created_at, never later than our clock."""

    __tablename__ = "cursor"
    relay: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    high: int = Field(sa_column=big())


class SeenRow(Table, table=True):
    """An event that was acted on, kept so that it is never acted on twice. Written with what it caused."""

    __tablename__ = "seen"
    event_id: str = Field(primary_key=True)
    at: int = Field(sa_column=big())


class AnnouncementRow(Table, table=True):
    """The newest NIP-89 handler event per (author, d)."""

    __tablename__ = "announcement"
    id: str = Field(primary_key=True)  # pubkey:d
    pubkey: str = Field(index=True)
    created_at: int = Field(sa_column=big())
    raw: str


class ProofRow(Table, table=True):
    """One Cashu proof of ours. `state`: live, reserved (an input of `operation`), locked (sent away) or spent."""

    __tablename__ = "proof"
    y: str = Field(primary_key=True)
    mint: str
    unit: str
    keyset: str
    amount: int = Field(sa_column=big())
    state: str = Field(index=True)
    operation: str = Field(index=True)  # the saga that made it, or that has it reserved
    sealed: bytes  # secret, C, DLEQ


class OperationRow(Table, table=True):
    """One wallet saga: `plan` holds what is needed to finish it after a crash, written before the mint is called."""

    __tablename__ = "operation"
    id: str = Field(primary_key=True)
    kind: str
    state: str = Field(index=True)
    mint: str
    unit: str
    effect_id: str = Field(index=True)
    amount: int = Field(sa_column=big())  # in the mint's unit
    fee: int = Field(default=0, sa_column=big(0))
    plan: bytes  # sealed
    result: bytes  # sealed; empty until done
    reason: str = ""
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class CounterRow(Table, table=True):
    """The next NUT-13 counter of a keyset. Never lowered."""

    __tablename__ = "counter"
    keyset: str = Field(primary_key=True)
    next: int = Field(default=0, sa_column=big(0))


class PostingRow(Table, table=True):
    """One side of a double-entry posting; the amounts of an operation sum to zero per mint and unit."""

    __tablename__ = "posting"
    n: int | None = Field(default=None, sa_column=numbered())
    operation: str = Field(index=True)
    mint: str
    unit: str
    account: str
    amount: int = Field(sa_column=big())
    at: int = Field(sa_column=big())


class AgentRow(Table, table=True):
    """An agent: its state as JSON with a schema version, and the row version that a tick compares and sets.

    `status`: active, dormant (hibernated: only its row is left of it; a trigger wakes it), stopped (by its operator:
    triggers wait), quarantined (it failed too often), frozen (it was exported and lives elsewhere) or deleted.
    """

    __tablename__ = "agent"
    __table_args__ = (Index("agent_status", "status", "name"),)
    name: str = Field(primary_key=True)
    program: str
    pubkey: str = Field(index=True)
    status: str = Field(sa_column=word())
    state_version: int
    state: str
    ticks: int = 0
    last_tick_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    last_cause: str = ""
    created_at: int = Field(sa_column=big())
    version: int = 0
    code: str = ""  # sha256 of the program's code at the last tick
    config: str = "{}"
    limits: str = "{}"  # what differs from the node's limits
    inbox: str = "{}"  # what differs from the node's bound of an inbox
    failures: int = 0  # failed ticks since the last one that was committed
    reason: str = ""  # why it does not run, with a code
    day: int = 0  # days since 1970 (UTC) to which `day_us` belongs
    day_us: int = Field(default=0, sa_column=big(0))  # microseconds that it computed on that day
    rate_us: int = Field(default=0, sa_column=big(0))  # GCRA: when its ticks per minute are all there again (Unix µs)
    warned: int = 0  # bits: of which limits it was told that they are near, or reached
    stored: int = Field(default=0, sa_column=big(0))  # bytes of state, items and goals
    holder: str = ""  # the process that ticks it, where several share a database
    epoch: int = Field(default=0, sa_column=big(0))  # fencing token: rises with every claim


class InboxRow(Table, table=True):
    """A trigger for an agent. Unique by envelope id, for months: a row is kept without its payload.

    `state`: new, done, dead (it failed too often, or there was no room), dropped (no room), expired or discarded.
    `ended_at` is null while it is new or dead, since it may still be handed out; after it only the payload may go.
    """

    __tablename__ = "inbox"
    __table_args__ = (
        # with the state, so that SQLite counts and names those that wait without reading the rows themselves
        some("inbox_new", "agent", "priority", "n", "state", where="state = 'new'"),
        some("inbox_dead", "agent", "n", where="state = 'dead'"),
        some("inbox_dropped", "agent", "n", where="state = 'dropped'"),
        some("inbox_expired", "agent", "n", where="state = 'expired'"),
        some("inbox_ended", "ended_at", where="ended_at IS NOT NULL"),
        UniqueConstraint("agent", "envelope_id"),
    )
    n: int | None = Field(default=None, sa_column=numbered())
    agent: str
    envelope_id: str
    cause: str  # message, event, manual, initialize, alarm
    source: str
    sender: str
    payload: str
    state: str = Field(default="new", sa_column=word("new"))
    tries: int = 0
    error: str = ""
    at: int = Field(sa_column=big())
    next_at_ms: int = Field(default=0, sa_column=big(0))
    priority: int = 0  # lower is sooner
    expires_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))  # the source's own number
    reply_to: str = ""
    written_at: int = Field(default=0, sa_column=big(0))  # when its sender wrote it, where that orders a line
    ended_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))


class TickRow(Table, table=True):
    """A tick that was committed or that failed."""

    __tablename__ = "tick"
    __table_args__ = (Index("tick_agent", "agent", "n"),)
    n: int | None = Field(default=None, sa_column=numbered())
    id: str = Field(unique=True)
    agent: str
    envelope_id: str
    cause: str
    at_ms: int = Field(sa_column=big())
    duration_ms: int = Field(sa_column=big())
    error: str = ""
    tries: int = 0
    version: int = Field(default=0, sa_column=big(0))  # the agent's row version that it began with
    code: str = ""  # sha256 of the program's code
    usage: str = "{}"  # what it used, as JSON


class RecordingRow(Table, table=True):
    """What a committed tick read from outside and what came of it, so that it can be run again."""

    __tablename__ = "recording"
    n: int | None = Field(default=None, sa_column=numbered())
    tick_id: str = Field(unique=True)
    agent: str
    at_ms: int = Field(sa_column=big())
    body: bytes


class BlobRow(Table, table=True):
    """A large body that recordings name by its sha256."""

    __tablename__ = "blob"
    digest: str = Field(primary_key=True)
    body: bytes
    at: int = Field(index=True, sa_type=BigInteger)


class MarkRow(Table, table=True):
    """An id that an agent marked as seen; the oldest go when there are too many."""

    __tablename__ = "mark"
    __table_args__ = (Index("mark_age", "agent", "n"), UniqueConstraint("agent", "id"))
    n: int | None = Field(default=None, sa_column=numbered())
    agent: str
    id: str


class ItemRow(Table, table=True):
    """A value that an agent keeps beside its state."""

    __tablename__ = "item"
    agent: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str


class AlarmRow(Table, table=True):
    """An alarm of an agent. `kind`: once, every or cron. It fires as envelope `alarm:<id>:<due_ms>`.

    While that waits in the inbox, later times are counted in `missed` instead.
    """

    __tablename__ = "alarm"
    agent: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    kind: str
    due_ms: int = Field(index=True, sa_type=BigInteger)
    every_ms: int = Field(default=0, sa_column=big(0))
    cron: str = ""
    payload: str = "{}"
    fired_ms: int = Field(default=0, sa_column=big(0))  # the time for which it fired last; 0 before
    missed: int = 0  # times since then for which it did not fire
    created_at: int = Field(sa_column=big())


class InterestRow(Table, table=True):
    """Which events an agent wants to be told of."""

    __tablename__ = "interest"
    __table_args__ = (Index("interest_event", "event", "agent"),)
    agent: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    event: str  # the event's type, e.g. payment.received; `*` for all
    pattern: str = "{}"  # what its fields must be, as JSON
    created_at: int = Field(sa_column=big())


class HookRow(Table, table=True):
    """A way in for webhooks. Its secret derives from the node's key and the id; nothing here opens it."""

    __tablename__ = "hook"
    id: str = Field(primary_key=True)
    agent: str = Field(index=True)
    name: str
    event: str  # the type of the event that a call becomes
    scheme: str  # hmac (a signature over the body) or token (a bearer token)
    created_at: int = Field(sa_column=big())


class SecretRow(Table, table=True):
    """A secret of an agent, or under the name `node` of the node itself: set by its operator, used by its name.

    No file and no archive of an agent gives it back.
    """

    __tablename__ = "secret"
    agent: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    sealed: bytes
    size: int  # bytes of what is sealed
    set_at_ms: int = Field(sa_column=big())


class LeaseRow(Table, table=True):
    """Who may act as something, until when: processes that share a database. `token` rises with every new holder."""

    __tablename__ = "lease"
    name: str = Field(primary_key=True)
    holder: str = ""
    token: int = Field(default=0, sa_column=big(0))
    until_ms: int = Field(default=0, sa_column=big(0))
    about: str = "{}"


class GoalRow(Table, table=True):
    """One goal of an agent, as a JSON object; one of an older version holds whatever its agent wrote."""

    __tablename__ = "goal"
    agent: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    body: str
    updated_at: int = Field(sa_column=big())


class LogRow(Table, table=True):
    """One record of an agent's trace; `n` is the cursor of watchers."""

    __tablename__ = "log"
    __table_args__ = (Index("log_agent", "agent", "n"),)
    n: int | None = Field(default=None, sa_column=numbered())
    agent: str
    at_ms: int = Field(sa_column=big())
    type: str
    data: str


class HandledRow(Table, table=True):
    """An event that a subscription's handler has finished with, so that a restart does not hand it over again."""

    __tablename__ = "handled"
    __table_args__ = (Index("handled_when", "name", "created_at"),)
    name: str = Field(primary_key=True)  # the subscription's
    event_id: str = Field(primary_key=True)
    created_at: int = Field(sa_column=big())


class RelayFactRow(Table, table=True):
    """What a relay said of itself (NIP-11, JSON), and what we found out by trying (JSON)."""

    __tablename__ = "relay_fact"
    url: str = Field(primary_key=True)
    information: str = ""
    traits: str = "{}"
    at: int = Field(sa_column=big())


class RelayListRow(Table, table=True):
    """A person's newest list of one kind: 10002 (NIP-65), 10050 (NIP-17). An empty `raw`: we asked, there is none."""

    __tablename__ = "relay_list"
    pubkey: str = Field(primary_key=True)
    kind: int = Field(primary_key=True)
    created_at: int = Field(sa_column=big())
    raw: str
    fetched_at: int = Field(sa_column=big())


class IdentityRow(Table, table=True):
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
    created_at: int = Field(sa_column=big())
    retired_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))


class MessageRow(Table, table=True):
    """One message of an agent, in or out, and what became of it.

    `protocol`: nip17, nip04 or public. `direction`: in or out. `state` of one that goes out: queued, sent, failed,
    seen (the other side reacted); of one that came in: received, held, dropped. `changed_ms` (Unix ms) rises strictly
    with every change of any row: it is the cursor of those who watch.
    """

    __tablename__ = "message"
    __table_args__ = (
        Index("message_talk", "agent", "peer", "created_at"),
        Index("message_watch", "agent", "changed_ms"),
        Index("message_changed", "changed_ms"),
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
    created_at: int = Field(sa_column=big())
    changed_ms: int = Field(sa_column=big())


class RelayPaymentRow(Table, table=True):
    """Somebody paid for writing to the node's own relay. One row a token, so that a token counts once."""

    __tablename__ = "relay_payment"
    op_id: str = Field(primary_key=True)  # the wallet's operation that took the token
    pubkey: str = Field(index=True)
    paid_until: int = Field(sa_column=big())
    created_at: int = Field(sa_column=big())
