"""Puts the market's parts together: what is sold, who is found, what is bought. A part of the composition root."""

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dvm.buying import Buying
from dvm.discovery import Discovery
from dvm.nutzap import Nutzaps
from dvm.provider.echo import Echo
from dvm.provider.pow import ProofOfWork
from dvm.provider.provider import Provider
from dvm.provider.summarizer import Summarizer
from dvm.reviewing import Reviewing
from dvm.selling import Selling
from dvm.zap import Zaps
from node.meaning import policy_of, strangers_of
from node.offering import Offerings
from node.parcel import Parcels

if TYPE_CHECKING:
    from node.app import Node

FOLDER = "results"  # in the home


@dataclass(frozen=True, slots=True)
class Trade:
    """The market's parts of one node."""

    providers: tuple[Provider, ...]
    offerings: Offerings
    discovery: Discovery
    selling: Selling
    buying: Buying
    reviewing: Reviewing
    nutzaps: Nutzaps
    zaps: Zaps | None
    parcels: Parcels | None


def trade_of(node: "Node", executor: Executor, home: Path | None) -> Trade:
    """The market's parts of a node whose relays, gate and wallet are there.

    Raises:
        ConfigInvalid: a `[[sell]]` table names a provider that does not do its kind.
    """
    config = node.config
    providers: tuple[Provider, ...] = (Summarizer(executor), ProofOfWork(executor), Echo())
    offerings = Offerings(node.database, providers, config.sell, config.node.mints)
    services = offerings.services()
    parcels = _parcels(node, home)
    selling = Selling(
        node.database,
        node.gate,
        node.pool,
        node.outbox,
        node.wallet,
        node.keyring,
        node.clock,
        services,
        limits=strangers_of(config),
        directory=node.directory,
        rate=node.fx.known,
        ending=offerings.ending,
        settlement=config.settlement.settlement(),
        proven=node.probe.proven,
        shipping=parcels.shipping if parcels is not None else None,
    )
    discovery = Discovery(
        node.database,
        node.pool,
        node.outbox,
        node.keyring,
        node.clock,
        services,
        mints=config.node.mints,
        name=config.node.name,
        about=config.node.about,
        nip05=f"_@{config.keys.nip05_domain}" if config.keys.nip05_domain else "",
        indexers=config.node.indexers,
        load=lambda: selling.load,
        lud16=config.settlement.lud16 if node.rail.lightning is not None else "",
        file_servers=config.blobs.servers,
    )
    offerings.attach(selling, discovery)
    buying = Buying(
        node.database,
        node.gate,
        node.pool,
        node.outbox,
        node.wallet,
        node.fx,
        node.keyring,
        node.clock,
        policy_of(config),
        providers,
        discovery.known_sellers,
        node.directory,
        settlement=config.settlement.settlement(),
        proven=node.probe.proven,
        unpacking=parcels.unpacking if parcels is not None else None,
    )
    reviewing = Reviewing(
        node.database,
        node.pool,
        node.outbox,
        node.wallet,
        node.keyring,
        node.clock,
        publish=config.policy.publish_receipts,
        proof=buying.shown_fraud,
        condemn=buying.condemn,
    )
    buying.on_closing(reviewing.closing)
    nutzaps = _nutzaps(node, selling)
    zaps = _zaps(node, nutzaps, selling)
    return Trade(providers, offerings, discovery, selling, buying, reviewing, nutzaps, zaps, parcels)


def _nutzaps(node: "Node", selling: Selling) -> Nutzaps:
    how = node.config.settlement.nutzaps

    def offered() -> bool:
        sold = any(not one.is_free and not one.paused for one in selling.services.values())
        return how == "always" or (how == "selling" and sold)

    return Nutzaps(
        node.database, node.gate, node.pool, node.outbox, node.wallet, node.keyring.node, node.clock, selling, offered,
        taken=how != "never",
    )  # fmt: skip


def _zaps(node: "Node", nutzaps: Nutzaps, selling: Selling) -> Zaps | None:
    """Only where our own wallet can say what came in."""
    account, purse = node.config.settlement.account(), node.rail.lightning
    if account is None or purse is None:
        return None
    key = node.keyring.node.pubkey
    return Zaps(node.database, node.pool, node.clock, key, account, purse, selling, nutzaps.refused)


def _parcels(node: "Node", home: Path | None) -> Parcels | None:
    """What moves large results; None without a home to keep them in, or if none are wanted."""
    section = node.config.blobs
    if home is None or not section.max_mb:
        return None
    return Parcels(
        section,
        home / FOLDER,
        node.pool.room,
        node.pool.fetch,
        node.keyring,
        node.clock,
        lambda: node.upkeep.disk.check(),
    )
