"""What the settings mean for the parts: limits, policy, exchange rate, what is sold."""

from collections.abc import Mapping
from typing import Any

import aiohttp

from core.clock import Clock
from core.money import MicroUsd, Msat, Rate
from dvm.admission import Limits as StrangerLimits
from dvm.policy import Policy
from dvm.provider.provider import Provider
from dvm.sale import Service
from node.config import Config
from node.error import ConfigInvalid
from node.fx import FxSection
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from wallet.fx import Fixed, Fx, Oracle


class Switch:
    """As `fs.service.ctl.Switch`: the gate's own.

    Args:
        gate: the node's.
    """

    def __init__(self, gate: NodeGate) -> None:
        self._gate = gate

    async def pause(self) -> None:
        """Begin no new effects; finish what is open."""
        await self._gate.pause()

    async def resume(self) -> None:
        """Begin new effects again."""
        await self._gate.resume()

    async def paused(self) -> bool:
        """Whether it is paused."""
        return self._gate.paused


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def limits_of(config: Config) -> Limits:
    """What may be spent."""
    section = config.limits
    return Limits(section.unit, section.amount("per_job"), section.amount("per_day"), section.amount("per_seller"))


def strangers_of(config: Config) -> StrangerLimits:
    """What is done for strangers for nothing."""
    section = config.strangers
    return StrangerLimits(free_per_second=section.free_per_second, free_burst=section.free_burst)


def policy_of(config: Config) -> Policy:
    """How work is bought."""
    section = config.policy
    dollars = config.limits.unit == "uusd"
    return Policy(
        order=section.order,
        prefer=section.prefer,
        default_max=MicroUsd(section.default_max_usd) if dollars else Msat(section.default_max_msat),
        quote_window_ms=section.quote_window_ms,
        timeout_s=section.timeout_s,
        lock_margin_s=section.lock_margin_s,
    )


def fx_of(section: FxSection, clock: Clock, http: aiohttp.ClientSession) -> Fx:
    """What gives the rates."""
    if feeds := section.sources():
        return Oracle(feeds, 1 if section.source == "oracle" else section.least, section.max_age_s, http, clock)
    return Fixed(Rate.of_btc_price(section.btc_usd, clock.now(), "fixed"))


def service_of(section: Any, providers: Mapping[str, Provider]) -> Service:
    """What a `[[sell]]` section sells.

    Raises:
        ConfigInvalid: nobody here does that.
    """
    provider = providers.get(section.provider)
    if provider is None or section.kind not in provider.kinds:
        known = ", ".join(f"{one.name} ({', '.join(map(str, sorted(one.kinds)))})" for one in providers.values())
        raise ConfigInvalid(f"[[sell]] kind {section.kind}: {section.provider!r} does not do it. There are: {known}.")
    return Service(section.kind, Msat(section.price_msat), provider, section.eta_s, section.max_parallel)
