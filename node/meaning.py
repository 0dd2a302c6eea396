"""What the settings mean for the parts: limits, policy, exchange rate."""

import aiohttp

from core.clock import Clock
from core.money import MicroUsd, Msat, Rate
from dvm.admission import Limits as StrangerLimits
from dvm.policy import Policy
from dvm.preference import Prefer
from node.config import Config
from node.fx import FxSection
from node.gate.gate import NodeGate
from node.gate.limits import Limits
from relays.key import parse_pubkey
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
    """What is done for strangers for nothing, and what they show for it. The owner is no stranger."""
    section = config.strangers
    named = [*section.allow, *([config.node.owner] if config.node.owner else [])]
    return StrangerLimits(
        free_per_second=section.free_per_second,
        free_burst=section.free_burst,
        unknown_per_second=section.per_second,
        unknown_burst=section.burst,
        broadcast=section.broadcast,
        pow_bits=section.pow_bits,
        pow_bits_full=section.pow_bits_full,
        floor=Msat(section.floor_msat),
        free_per_day=section.free_per_day,
        allow=frozenset(parse_pubkey(key) for key in named),
        ban=frozenset(parse_pubkey(key) for key in section.ban),
        invoices_per_minute=section.invoices_per_minute,
    )


def policy_of(config: Config) -> Policy:
    """How work is bought."""
    section = config.policy
    dollars = config.limits.unit == "uusd"
    return Policy(
        order=section.order,
        prefer=Prefer(section.prefer),
        spread=section.spread,
        default_max=MicroUsd(section.default_max_usd) if dollars else Msat(section.default_max_msat),
        quote_window_ms=section.quote_window_ms,
        timeout_s=section.timeout_s,
        lock_margin_s=section.lock_margin_s,
        deterministic=section.deterministic,
        invoices=section.invoices,
        max_unsecured=Msat(section.max_unsecured_msat),
    )


def fx_of(section: FxSection, clock: Clock, http: aiohttp.ClientSession) -> Fx:
    """What gives the rates."""
    if feeds := section.sources():
        return Oracle(feeds, 1 if section.source == "oracle" else section.least, section.max_age_s, http, clock)
    return Fixed(Rate.of_btc_price(section.btc_usd, clock.now(), "fixed"))
