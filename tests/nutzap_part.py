"""Nutzaps (NIP-61) for tests: somebody with a wallet of its own, who gives ecash in public, well or badly."""

import json
from typing import Any

from core.clock import Clock
from relays.event import Draft, Event
from relays.key import Key
from tests.wallet_part import EFFECT, PERMIT
from wallet.cashu.token import decode
from wallet.wallet import Wallet

KIND = 9321


class Giver:
    """One key and one wallet."""

    def __init__(self, wallet: Wallet, clock: Clock, key: Key | None = None) -> None:
        self.wallet, self.clock, self.key = wallet, clock, key or Key.generate()
        self._given = 0

    async def proofs(self, sat: int, pubkey: str) -> list[dict[str, Any]]:
        """Coins that are locked to a key for good."""
        self._given += 1
        mint = self.wallet.mints[0]
        token = await self.wallet.send(f"{self.key.pubkey} {self._given}", mint, sat, EFFECT, PERMIT, pubkey=pubkey)
        return [proof.to_dict(dleq=True) for proof in decode(token).proofs]

    def event(
        self,
        to: str,
        proofs: list[dict[str, Any]],
        *,
        mint: str = "",
        named: tuple[str, ...] = (),
        more: tuple[tuple[str, ...], ...] = (),
        at: int = 0,
    ) -> Event:
        """The nutzap, signed."""
        tags: list[tuple[str, ...]] = [("proof", json.dumps(one)) for one in proofs]
        tags += [("u", mint or self.wallet.mints[0]), ("p", to), *(("e", one) for one in named), *more]
        return self.key.sign(Draft(KIND, "thanks", tuple(tags), at or self.clock.now()))

    async def zap(self, to: str, pubkey: str, sat: int, *named: str) -> Event:
        """A good one."""
        return self.event(to, await self.proofs(sat, pubkey), named=named)
