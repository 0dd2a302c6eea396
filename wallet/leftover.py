"""Mints that the owner took off the list while money of ours is still there."""

from collections.abc import Sequence

from core.unit import Among, UnitOfWork
from wallet.cashu.address import canonical_url
from wallet.payment import State

_HELD = Among(("live", "reserved", "locked", "incoming"))
_OPEN = Among((str(State.WAITING), str(State.PREPARED), str(State.UNKNOWN)))


async def leftover(unit: UnitOfWork, listed: Sequence[str]) -> tuple[str, ...]:
    """Addresses of mints with open operations or unspent coins in the database that are not among those `listed`."""
    rows = [*await unit.select("operation", {"state": _OPEN}), *await unit.select("proof", {"state": _HELD})]
    return tuple(sorted({str(row["mint"]) for row in rows} - {canonical_url(url) for url in listed}))
