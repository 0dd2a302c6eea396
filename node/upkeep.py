"""What a node does to keep itself in order, put together: the disk, what is deleted, what follows from a restore."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import Clock
from core.unit import UnitOfWork
from node.backup.copy import Homecoming, Ledger, Money, Spending
from node.backup.manifest import seal_draft_of
from node.config import Config
from node.disk import Disk, writers_of
from node.retention.service import Retention
from node.service import Service
from relays.key import Key


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The parts, and `seal`, which signs a backup's digest with the node's key."""

    disk: Disk
    retention: Retention
    homecoming: Homecoming
    seal: Callable[[str], str]

    def counters(self) -> Mapping[str, Any]:
        """For `/metrics`: bytes free per place, whether that is too little, and how many rows went per table."""
        return {**self.disk.facts(), "removed": dict(self.retention.removed)}

    @property
    def parts(self) -> list[tuple[str, Service]]:
        """Its services."""
        return [("restore", self.homecoming), ("retention", self.retention)]


def upkeep_of(
    config: Config,
    unit: UnitOfWork,
    clock: Clock,
    key: Key,
    places: tuple[Path | None, str | Path],
    acting: tuple[Ledger, Money, *tuple[Spending, ...]],
) -> Upkeep:
    """Make it.

    Args:
        config: `[retention]`, `[disk]`, `[keys]`.
        unit: the database.
        clock: time.
        key: the node's.
        places: the home, and where the database is.
        acting: the gate, the wallet, and all that spends, for a node that was restored.
    """
    disk = Disk(writers_of(*places), clock, config.disk.min_free_mb << 20)
    retention = Retention(unit, clock, config.retention.model_dump(), config.keys.retired_days)
    disk.on_low(retention.hurry)

    def seal(digest: str) -> str:
        return key.sign(seal_draft_of(digest, clock.now())).to_json()

    return Upkeep(disk, retention, Homecoming(unit, clock, *acting), seal)
