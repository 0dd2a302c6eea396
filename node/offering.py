"""What is for sale, also what was changed while the node ran: rows `sell/<kind>` of table `meta`.

config.toml says what is sold at first. A change is written down before it takes effect, stands above the configuration
from then on, and is announced at once. What is open ends on the terms of its quote.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from core.error import InvalidInput
from core.unit import Insert, Row, UnitOfWork, Update, Within, Write
from dvm.discovery import Discovery
from dvm.earning import earnings
from dvm.error import KindSold, NotSold
from dvm.provider.provider import Provider
from dvm.record import Unreadable, decode, encode
from dvm.selling import Selling
from dvm.service import Service
from node.error import ConfigInvalid
from node.market import SellSection
from node.offer import Offer, State, offer_of, provider_of, read_section

log = logging.getLogger(__name__)

TABLE = "meta"
KEY, _END = "sell/", "sell0"  # "0" comes next to "/": all names that begin so are within


class Offerings:
    """Puts up for sale, changes prices, pauses and stops.

    Args:
        unit: the database.
        providers: who can do work.
        configured: what config.toml sells.
        mints: where we are paid; without any only free services can be sold.
    """

    def __init__(
        self, unit: UnitOfWork, providers: Sequence[Provider], configured: Sequence[SellSection], mints: Sequence[str]
    ) -> None:
        self._unit, self._providers, self._mints = unit, providers, mints
        self._offers = {section.kind: offer_of(section) for section in configured}
        for offer in self._offers.values():
            self._provider(offer)
        self._changing = asyncio.Lock()
        self._selling: Selling | None = None
        self._discovery: Discovery | None = None

    def attach(self, selling: Selling, discovery: Discovery) -> None:
        """Whom to tell of changes."""
        self._selling, self._discovery = selling, discovery

    def services(self) -> list[Service]:
        """What is sold, also what is paused."""
        return [one.service(self._provider(one)) for one in self._offers.values() if one.state is not State.STOPPED]

    def ending(self, kind: int) -> Service | None:
        """With what open sales of a kind end that was stopped."""
        offer = self._offers.get(kind)
        return None if offer is None else offer.service(self._provider(offer))

    async def load(self) -> None:
        """At the start: what was changed in earlier runs."""
        for row in await self._unit.select(TABLE, {"key": Within(KEY, _END)}):
            try:
                offer = decode(Offer, row["value"])
                offer.service(self._provider(offer))
            except (Unreadable, ConfigInvalid, ValueError):  # of another version; the node starts for all the others
                log.warning("An offer cannot be read: %s", row["key"], extra={"action": "offer_unreadable"})
                continue
            self._offers[offer.kind] = offer
        for kind in self._offers:
            self._apply(kind)
        self._announce()

    # ---- what the operator does

    async def start(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Put a kind up for sale. Without a provider the only one that does it is taken.

        Raises:
            InvalidInput: the terms are not valid, or nobody here does that.
            KindSold: it is for sale already, on other terms.
        """
        terms = dict(terms)
        if not terms.get("provider"):
            terms["provider"] = self._only_provider(terms.get("kind"))
        offer = offer_of(read_section(terms))
        async with self._changing:
            known = self._offers.get(offer.kind)
            if known is not None and known.state is not State.STOPPED:
                if replace(known, state=offer.state) != offer:
                    raise KindSold(f"Kind {offer.kind} is for sale already, on other terms.")
                return known.shown()
            return await self._keep(offer)

    async def price(self, kind: int, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Sell at another price from now on.

        Raises:
            InvalidInput: the price is not valid.
            NotSold: the kind is not for sale.
        """
        async with self._changing:
            offer = self._known(kind)
            tariff = read_section({**terms, "kind": kind, "provider": offer.provider}).tariff()
            return await self._keep(offer.at(tariff))

    async def pause(self, kind: int | None = None) -> list[dict[str, Any]]:
        """Begin nothing new of a kind, or of any.

        Raises:
            NotSold: the kind is not for sale.
        """
        return await self._turn(kind, State.PAUSED)

    async def resume(self, kind: int | None = None) -> list[dict[str, Any]]:
        """Sell it again.

        Raises:
            NotSold: the kind is not for sale.
        """
        return await self._turn(kind, State.SELLING)

    async def stop(self, kind: int) -> dict[str, Any]:
        """Sell it no more. What is open is finished.

        Raises:
            NotSold: the kind is not for sale.
        """
        return (await self._turn(kind, State.STOPPED))[0]

    async def _turn(self, kind: int | None, state: State) -> list[dict[str, Any]]:
        async with self._changing:
            offers = self._sold() if kind is None else [self._known(kind)]
            return [await self._keep(replace(one, state=state)) for one in offers]

    def _known(self, kind: int) -> Offer:
        offer = self._offers.get(kind)
        if offer is None or offer.state is State.STOPPED:
            raise NotSold(f"Kind {kind} is not for sale.", remedy="`vendo sell` lists what is.")
        return offer

    def _sold(self) -> list[Offer]:
        return [one for one in self._offers.values() if one.state is not State.STOPPED]

    async def _keep(self, offer: Offer) -> dict[str, Any]:
        """Write it down, then let it take effect."""
        self._provider(offer)
        if not offer.tariff.is_free and not self._mints:
            raise InvalidInput(
                "A price above zero needs a mint to be paid at.", remedy="Add one to mints under [node] in config.toml."
            )
        if offer != self._offers.get(offer.kind):
            values = {"value": encode(offer)}
            writes: list[Write] = [
                Insert(TABLE, {"key": f"{KEY}{offer.kind}", **values}, or_ignore=True),
                Update(TABLE, {"key": f"{KEY}{offer.kind}"}, values),
            ]
            await self._unit.commit(writes)
            self._offers[offer.kind] = offer
            self._apply(offer.kind)
            self._announce()
        return offer.shown()

    def _apply(self, kind: int) -> None:
        if self._selling is None:
            return
        offer = self._offers[kind]
        if offer.state is State.STOPPED:
            self._selling.withdraw(kind)
        else:
            self._selling.put(offer.service(self._provider(offer)))

    def _announce(self) -> None:
        if self._discovery is not None:
            self._discovery.offer(self.services())

    def _provider(self, offer: Offer) -> Provider:
        return provider_of(offer.kind, offer.provider, self._providers)

    def _only_provider(self, kind: object) -> str:
        names = [one.name for one in self._providers if kind in one.kinds]
        if len(names) != 1:
            does = f"{', '.join(names)} do it: name one." if names else "nobody here does it."
            raise InvalidInput(f"Kind {str(kind)[:8]}: {does}")
        return names[0]

    # ---- reading

    def rows(self) -> list[dict[str, Any]]:
        """What is sold, by kind."""
        return [one.shown() for one in sorted(self._sold(), key=lambda one: one.kind)]

    async def status(self) -> Row:
        """How selling is doing, and what was not answered, by reason."""
        return self._selling.facts() if self._selling is not None else {}

    async def earned(self, since: int = 0) -> list[dict[str, Any]]:
        """What was claimed since a time (Unix seconds), by kind and mint."""
        return [asdict(one) for one in await earnings(self._unit, since)]
