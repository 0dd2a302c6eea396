"""Payments for writing to the node's own relay: a Cashu token buys days, once.

The token is received by the wallet as one effect of the operator's, under a key that derives from the token: sent
twice it is one payment. Who has paid until when is written after the money is ours; if the node stops between the
two, the same token sent again finds the finished operation and gets its days.
"""

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

from core.clock import Clock
from core.error import Conflict
from core.identifier import PubKey
from core.unit import Insert, UnitOfWork, Value
from fs.service.treasury import OperationEnded
from node.collector import Collector
from relays.embedded.toll import PaymentRefused
from wallet.error import PaymentUnknown

_DAY_S = 86_400
_MOST_PERIODS = 12


class CashuToll:
    """A `Toll` over the node's wallet.

    Args:
        collector: takes the tokens.
        unit: where payments are written down.
        clock: for dates.
        price_sat: of one period.
        days: how long a period is. A token of several prices buys several; one of more than twelve is not taken.
    """

    def __init__(self, collector: Collector, unit: UnitOfWork, clock: Clock, price_sat: int, days: int) -> None:
        self._collector, self._unit, self._clock = collector, unit, clock
        self._price_sat, self._days = price_sat, days
        self._paid: dict[PubKey, int] = {}
        self.paid: Mapping[PubKey, int] = MappingProxyType(self._paid)
        self._writing = asyncio.Lock()

    @property
    def mints(self) -> tuple[str, ...]:
        """Where tokens may be from."""
        return self._collector.mints

    async def load(self) -> None:
        """Who has paid already."""
        for row in await self._unit.select("relay_payment", {}):
            self._learn(PubKey(row["pubkey"]), row["paid_until"])

    def _learn(self, pubkey: PubKey, until: int) -> None:
        self._paid[pubkey] = max(until, self._paid.get(pubkey, 0))

    async def pay(self, pubkey: PubKey, token: str) -> int:
        """Take a token for this key. Returns the Unix second until which it may write.

        Raises:
            PaymentRefused: the token is malformed, too small, of another mint, spent, or was used for another key.
            Unavailable: it may have been taken; sending it again finds out.
        """
        periods = self._periods(self._collector.worth(token))
        key, body = "relay-" + sha256(token.encode()).hexdigest(), f"{pubkey} {token}".encode()
        try:
            taken = await self._collector.take(
                "operator", key, "receive", token, body, {"for": "relay", "pubkey": pubkey}
            )
        except PaymentUnknown as error:
            raise PaymentRefused("The token is not ours yet. Send it again in a minute.") from error
        except OperationEnded as error:
            raise PaymentRefused("The mint has refused this token again and again.") from error
        return await self._write_down(pubkey, taken.op_id, periods)

    def _periods(self, worth: int | None) -> int:
        """What is plainly too little, or of a mint that is not ours, begins no effect: strangers fill no ledger."""
        if worth is None:
            raise PaymentRefused("The token is of a mint that is not trusted here.")
        periods = worth // self._price_sat
        if not periods:
            raise PaymentRefused(f"The token is worth {worth} sats; writing here costs {self._price_sat}.")
        if periods > _MOST_PERIODS:
            most = _MOST_PERIODS * self._price_sat
            raise PaymentRefused(f"The token is worth {worth} sats; tokens of {most} at most are taken.")
        return periods

    async def _write_down(self, pubkey: PubKey, op_id: str, periods: int) -> int:
        async with self._writing:  # two payments at once add up
            return await self._add(pubkey, op_id, periods)

    async def _add(self, pubkey: PubKey, op_id: str, periods: int) -> int:
        now = self._clock.now()
        until = max(now, self._paid.get(pubkey, 0)) + periods * self._days * _DAY_S
        row: dict[str, Value] = {"op_id": op_id, "pubkey": pubkey, "paid_until": until, "created_at": now}
        try:
            await self._unit.commit([Insert("relay_payment", row)])
        except Conflict:  # the same token again
            until = (await self._unit.select("relay_payment", {"op_id": op_id}))[0]["paid_until"]
        self._learn(pubkey, until)
        return until
