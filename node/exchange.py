"""At which mint money in other units lies, and whether there is room for it.

A cap is what the owner is ready to lose at one mint, in sat, whatever the coins there are called (ADR 31). What is held
in another unit counts at the exchange rate of the moment; where none is known, nothing more goes to a mint with a cap.
"""

import asyncio
import contextlib
from collections.abc import Callable

from core.error import VendoError
from core.money import Rate
from fs.service.foreign import Exchange
from fs.service.treasury import Treasurer
from node.spreading import Spreading
from wallet.amount import Amount
from wallet.cashu.address import canonical_url
from wallet.error import FxUnpriced, MintFull, UnitAbsent
from wallet.spread import Held, room
from wallet.wallet import Wallet
from wallet.worth import sat_worth


class Placing:
    """Chooses mints for other units.

    Args:
        wallet: what there is.
        spreading: what each mint holds, and the owner's rules.
        known: the exchange rate, if it is known and fresh; nobody is asked for it.
    """

    def __init__(self, wallet: Wallet, spreading: Spreading, known: Callable[[], Rate | None]) -> None:
        self._wallet, self._spreading, self._known = wallet, spreading, known

    def rate(self) -> Rate | None:
        """See `OtherPlaces`."""
        return self._known()

    async def into(self, amount: Amount, mint: str | None) -> tuple[str, int | None]:
        """The mint for a deposit: the one that is named, or that with room for it which holds the least.

        Raises:
            UnitAbsent: no mint on the list has coins of this unit.
            MintFull: it would hold more than its cap.
            FxUnpriced: there is a cap, and what the coins are worth is not known.
        """
        worth = sat_worth(amount, self.rate())
        held = {one.mint: one for one in await self._spreading.held()}
        if mint is not None:
            named = canonical_url(mint)
            self._check(held.get(named, Held(named, 0)), amount, worth)
            return named, worth
        refusals: list[VendoError] = []
        fit: list[Held] = []
        for one in await self._sellers(amount.unit):
            try:
                self._check(held.get(one, Held(one, 0)), amount, worth)
                fit.append(held.get(one, Held(one, 0)))
            except (MintFull, FxUnpriced) as error:
                refusals.append(error)
        if fit:
            return min(fit, key=lambda one: (one.live + one.bound + (one.foreign or 0), one.mint)).mint, worth
        raise refusals[0] if refusals else UnitAbsent(f"No mint on your list has coins in {amount.unit}.")

    def _check(self, held: Held, amount: Amount, worth: int | None) -> None:
        rules = self._spreading.rules
        if rules.cap(held.mint) is None or held.retired:
            return
        if worth is None or held.foreign is None:
            raise FxUnpriced(
                f"{held.mint} has a cap in sat, and what coins in other units are worth is not known now.",
                remedy="Name a mint without a cap, or see that there is a rate: vendo cat /wallet/fx.",
            )
        left = room(held, rules) or 0
        if left < worth:
            raise MintFull(f"{held.mint} may hold {left} sat more; {amount} are about {worth} sat.")

    async def _sellers(self, unit: str) -> tuple[str, ...]:
        """Mints that give out coins of a unit; those that were never heard are asked."""
        await asyncio.gather(*map(self._hear, self._wallet.foreign.unheard()))
        return self._wallet.foreign.sellers(unit)

    async def _hear(self, mint: str) -> None:
        with contextlib.suppress(VendoError):
            await self._wallet.units_at(mint)

    async def out_of(self, unit: str, mint: str | None) -> str:
        """The mint that pays: the one that is named, or that which holds the most of this unit.

        Raises:
            UnitAbsent: no mint on the list has coins of this unit.
        """
        if mint is not None:
            return canonical_url(mint)
        listed = set(self._wallet.mints)
        rows = [one for one in await self._wallet.balance() if one.unit == unit and one.mint in listed]
        if rows:
            return max(rows, key=lambda one: (one.live, one.mint)).mint
        found = await self._sellers(unit)
        if not found:
            raise UnitAbsent(f"No mint on your list has coins in {unit}.")
        return found[0]


def exchange_of(
    wallet: Wallet, spreading: Spreading, known: Callable[[], Rate | None], treasurer: Treasurer
) -> Exchange:
    """What moves money in other units."""
    return Exchange(wallet.foreign, Placing(wallet, spreading, known), treasurer)
