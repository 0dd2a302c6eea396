"""A Lightning node's JSON-RPC, behind a socket in its folder, for tests and for the mint's process.

Fields are as Electrum 4.3 names them; amounts are whole satoshi here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import aiohttp

# Longer than anything takes that is not stuck: a payment waits until the last hop has spoken.
_LIMIT_S = 60.0
COIN = 100_000_000


class Fate(IntEnum):
    """What Electrum says of an invoice, its own or another's."""

    UNPAID = 0
    EXPIRED = 1
    UNKNOWN = 2
    PAID = 3
    IN_FLIGHT = 4
    FAILED = 5


class NodeRefused(RuntimeError):
    """The node has answered with an error."""


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice of a node: its text and its payment hash in hex."""

    invoice: str
    payment_hash: str


@dataclass(frozen=True, slots=True)
class Paid:
    """What came of paying: whether it was paid, and with which preimage (hex); what was tried, as the node says it."""

    success: bool
    payment_hash: str
    preimage: str | None
    log: str


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that has settled, in the node's books: `amount_msat` is negative where it left, with the fee in it."""

    amount_msat: int
    fee_msat: int
    preimage: str


def bitcoin(sat: int) -> str:
    """An amount as the node takes it."""
    return f"{sat // COIN}.{sat % COIN:08d}"


@dataclass(frozen=True, slots=True)
class NodeClient:
    """Asks one node; each call is a connection of its own, so that one that hangs holds nothing up."""

    socket: Path
    password: str

    async def call(self, method: str, *, limit_s: float = _LIMIT_S, **params: Any) -> Any:
        """One command.

        Raises:
            NodeRefused: the node has answered that it could not.
            aiohttp.ClientError, TimeoutError: it has not answered.
        """
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Authorization": aiohttp.encode_basic_auth("vendo", self.password)}
        way, limit = aiohttp.UnixConnector(str(self.socket)), aiohttp.ClientTimeout(total=limit_s)
        async with (
            aiohttp.ClientSession(connector=way, timeout=limit, headers=headers) as http,
            http.post("http://node/", json=body) as answer,
        ):
            answer.raise_for_status()
            said: Mapping[str, Any] = await answer.json(content_type=None)
        if said.get("error") is not None:
            raise NodeRefused(str(said["error"]))
        return said.get("result")

    async def bill(self, sat: int, memo: str = "", expiry_s: int = 3600) -> Bill:
        """An invoice of the node."""
        made = await self.call("add_request", amount=bitcoin(sat), memo=memo, expiration=expiry_s, force=True)
        return Bill(made["lightning_invoice"], made["rhash"])

    async def bill_fate(self, payment_hash: str) -> Fate:
        """Whether an invoice of the node was paid."""
        for one in await self.call("list_requests"):
            if one.get("rhash") == payment_hash:
                return Fate(one["status"])
        return Fate.UNKNOWN

    async def pay(self, invoice: str, *, limit_s: float = _LIMIT_S) -> Paid:
        """Pay an invoice of another node; ends when the payment has settled or failed.

        Raises:
            NodeRefused: nothing was tried.
            TimeoutError: it is not known what becomes of it; the node goes on with it.
        """
        done = await self.call("lnpay", limit_s=limit_s, invoice=invoice)
        return Paid(done["success"], done["payment_hash"], done["preimage"], str(done["log"]))

    async def payment_fate(self, payment_hash: str) -> Fate:
        """What became of paying another node's invoice, also after whoever asked for it was killed."""
        for one in await self.call("list_invoices"):
            if one.get("invoice_id") == payment_hash:
                return Fate(one["status"])
        return Fate.UNKNOWN

    async def payment(self, payment_hash: str) -> Payment | None:
        """A payment that has settled, in or out."""
        for one in await self.call("lightning_history"):
            if one.get("payment_hash") == payment_hash:
                return Payment(one["amount_msat"], one["fee_msat"] or 0, one["preimage"])
        return None

    async def channels(self) -> list[dict[str, Any]]:
        """All channels, whatever their state."""
        return list(await self.call("list_channels"))
