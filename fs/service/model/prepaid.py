"""Prepaid balances: what opens and closes one, and what is shown of it. Pure."""

from typing import Literal

from pydantic import Field

from fs.body import Body, Fact


class NewDeposit(Body):
    """A deposit at a seller."""

    seller: str = Field(min_length=1, max_length=128, description="its key, as npub or in hex")
    sat: int = Field(ge=1, lt=1 << 30)


class ClosedDeposit(Body):
    """A deposit of ours that is to be closed."""

    deposit: str = Field(min_length=1, max_length=64, description="its id")


class DepositFact(Fact):
    """A deposit of ours at a seller (`side` buyer), or of a customer here (seller). Times are Unix seconds.

    `drawn_msat` is what jobs have earned, `left_msat` what can still be drawn, `returned_msat` what went back;
    `pending` is the request whose voucher is out; `fault` what the seller did wrong: total, short, token or kept.
    """

    id: str
    side: Literal["buyer", "seller"]
    peer: str
    state: str
    mint: str | None
    amount_msat: int
    drawn_msat: int
    left_msat: int
    returned_msat: int
    vouchers: int
    locktime: int | None
    pending: str | None
    fault: str | None
    error: str | None
    created_at: int
