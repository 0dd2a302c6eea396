"""The tables of the market and of money over Lightning; see `table` for all of them and for what columns mean."""

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from node.storage.column import Table, big, numbered


class ReceiptRow(Table, table=True):
    """One coin of a checked receipt: what a seller took, and what the buyer says of it. A coin counts once."""

    __tablename__ = "receipt"
    y: str = Field(primary_key=True)
    event_id: str
    seller: str = Field(index=True)
    buyer: str
    verdict: str
    amount_msat: int = Field(sa_column=big())
    mint: str
    created_at: int = Field(sa_column=big())


class PurchaseRow(Table, table=True):
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
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class SaleRow(Table, table=True):
    """A job we sell; the id is the request event's id. `body` is the seller machine's state as JSON."""

    __tablename__ = "sale"
    id: str = Field(primary_key=True)
    effect_id: str = Field(index=True)
    quote_id: str = Field(index=True)
    customer: str = Field(index=True)
    kind: int
    state: str = Field(index=True)
    body: str
    expires_at: int = Field(sa_column=big())
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class LightningRow(Table, table=True):
    """One payment or invoice at a Lightning wallet over NWC. `kind`: pay or invoice. A payment hash counts once."""

    __tablename__ = "lightning"
    __table_args__ = (UniqueConstraint("payment_hash"), Index("lightning_kind", "kind", "created_at"))
    id: str = Field(primary_key=True)
    kind: str
    state: str = Field(index=True)
    wallet: str
    payment_hash: str
    effect_id: str = Field(index=True)
    amount: int = Field(sa_column=big())  # msat
    fee_limit: int = Field(default=0, sa_column=big(0))  # msat
    fee: int = Field(default=0, sa_column=big(0))  # msat
    sealed: bytes  # invoice, request, preimage
    reason: str = ""
    expires_at: int = Field(sa_column=big())
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class DepositRow(Table, table=True):
    """A deposit of ours (`side` buyer) or of a customer (seller); vouchers draw on it (`dvm/deposit.py`)."""

    __tablename__ = "deposit"
    __table_args__ = (Index("deposit_state", "side", "state"),)
    side: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    peer: str
    effect_id: str = Field(index=True)
    state: str
    body: str
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class TipRow(Table, table=True):
    """A nutzap (NIP-61); the id is the event's. `state` and the other columns as in `dvm/tip.py`; amounts in msat."""

    __tablename__ = "tip"
    __table_args__ = (Index("tip_sender", "sender", "state"), Index("tip_created", "created_at"))
    id: str = Field(primary_key=True)
    sender: str
    mint: str
    state: str = Field(index=True)
    net_msat: int = Field(default=0, sa_column=big(0))
    owed_msat: int = Field(default=0, sa_column=big(0))
    sale: str
    beside: str = Field(index=True)
    effect_id: str = Field(index=True)
    raw: str
    reason: str = ""
    created_at: int = Field(sa_column=big())
    updated_at: int = Field(sa_column=big())
    version: int = 0


class RateRow(Table, table=True):
    """A rate that was used, kept as history."""

    __tablename__ = "rate"
    n: int | None = Field(default=None, sa_column=numbered())
    micro_usd: int = Field(sa_column=big())
    msat: int = Field(sa_column=big())
    taken_at: int = Field(sa_column=big())
    source: str
