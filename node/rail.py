"""Puts the Lightning wallet's parts together: relays of its own, client, driver. A part of the composition root.

The wallet's relays are connected apart from the node's, even where they are the same: there the connection's own key
speaks and authenticates, and none of the node's, so that no relay learns that they belong together (NIP-47, NIP-42).
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.service import Service
from relays.credential import Credentials
from relays.kind import CLIENT_AUTH
from relays.local_signer import KeySigner
from relays.nip47 import Address
from relays.pool import Pool
from wallet.funding import Funding
from wallet.lightning_record import LightningBook
from wallet.lightning_wallet import Lightning
from wallet.nwc import NwcClient
from wallet.record import Vault

if TYPE_CHECKING:
    from node.app import Node


@dataclass(frozen=True, slots=True)
class Line:
    """The wallet's relays, listened to. A service."""

    pool: Pool
    client: NwcClient

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Be connected until `stop`."""
        self.client.listen()
        await self.pool.run(ready, stop)


@dataclass(frozen=True, slots=True)
class Rail:
    """The parts. `funding` is there without a wallet too: what was begun at one must not look as if it never was."""

    funding: Funding
    lightning: Lightning | None = None
    line: Line | None = None

    @property
    def parts(self) -> list[tuple[str, Service]]:
        """Its services, in the order of their start."""
        if self.lightning is None or self.line is None:
            return []
        return [("lightning relays", self.line), ("lightning", self.lightning), ("funding", self.funding)]


def rail_of(node: "Node", address: Address | None) -> Rail:
    """The Lightning parts of a node whose gate and wallet of coins are there."""
    database, clock, gate = node.database, node.clock, node.gate
    book = LightningBook(database, Vault(node.keyring.derive("seal")), clock)
    node.wallet.debts.add(book.pays)  # what was begun at a wallet counts also when none is connected any more
    if address is None:
        return Rail(Funding(database, node.wallet, book, clock, None, gate.permit))
    auth = Credentials(KeySigner(address.key, frozenset({CLIENT_AUTH})), tuple, lambda _, key: True, clock)
    pool = Pool(address.relays, unit=database, clock=clock, check=gate.check, auth=auth)
    client = NwcClient(address, pool, clock)
    lightning = Lightning(
        database, book, clock, client, gate.check,
        permit_for=gate.permit,
        standing=lambda: gate.standing("lightning"),
        limits=node.config.lightning.limits(),
        currencies=node.config.node.currencies,
        debts=node.wallet.debts,
    )  # fmt: skip
    return Rail(Funding(database, node.wallet, book, clock, lightning, gate.permit), lightning, Line(pool, client))
