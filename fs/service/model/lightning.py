"""Lightning, as its files take and show it. Pure. Amounts in msat, or what their name says; times in Unix seconds."""

from pydantic import ConfigDict, Field

from fs.body import Body, Fact
from fs.service.model.wallet import MAX_SAT, LightningBalance


class Bill(Body):
    """An invoice to be paid; it may be sent as it is."""

    model_config = ConfigDict(json_schema_extra={"x-vendo-text": True})

    invoice: str = Field(min_length=1)


class Wanted(Body):
    """An invoice to be made: how much, what for, and for how long."""

    sat: int = Field(ge=1, le=MAX_SAT)
    note: str = Field("", max_length=200)
    expiry_s: int = Field(3_600, ge=60, le=604_800)


class GiveUp(Body):
    """A payment of which the wallet will not speak again."""

    op_id: str = Field(min_length=1, max_length=64)


class LightningOperation(Fact):
    """One payment (`kind` pay) or invoice of ours (invoice). A repeated call answers with the same."""

    op_id: str
    kind: str = ""
    state: str
    stage: str = ""
    mint: str = ""
    unit: str = "msat"
    amount: int = 0
    fee: int = 0
    reason: str = ""
    invoice: str = ""
    payment_hash: str = ""
    preimage: str = ""
    note: str = ""
    purpose: str = ""
    expires_at: int = 0
    created_at: int = 0


class Lightning(LightningBalance):
    """The Lightning wallet, and what of its limits is used."""

    up: bool
    day_msat: int
    used_msat: int
    payment_msat: int
    open: int
