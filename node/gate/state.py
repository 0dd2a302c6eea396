"""What the gate must remember of the node itself: its key, its ledger run, and whether it is paused (table `meta`)."""

from core.clock import Clock
from core.identifier import PubKey, derived_id
from core.unit import Append, Insert, UnitOfWork, Update, Write
from node.gate.error import ForeignLedger
from node.gate.ledger import body


class NodeState:
    """Read by `load`; every change is durable before it holds."""

    def __init__(self, unit: UnitOfWork, clock: Clock, node: PubKey) -> None:
        self.run = ""
        self.paused = False
        self._unit, self._clock, self._node = unit, clock, node

    async def load(self) -> None:
        """Read it; at the very first start, begin the ledger with its root entry.

        Raises:
            ForeignLedger: another node's key signed this ledger.
        """
        known = {row["key"]: row["value"] for row in await self._unit.select("meta")}
        if known.get("node", self._node) != self._node:
            raise ForeignLedger
        self.paused = known.get("paused") == "1"
        self.run = known.get("run", "")
        if not self.run:
            own = Insert("meta", {"key": "node", "value": self._node}, or_ignore=True)
            await self._begin_run({}, own)

    async def new_run(self, reason: str) -> None:
        """Go on in a new run, e.g. after a restore from an old copy: the old run may have gone further elsewhere."""
        await self._begin_run({"after": self.run, "reason": reason})

    async def _begin_run(self, facts: dict[str, str], *more: Write) -> None:
        run = derived_id("run", self._node, str(self._clock.millis()), self.run)
        await self._unit.commit(
            [
                *more,
                Insert("meta", {"key": "run", "value": run}, or_ignore=True),
                Update("meta", {"key": "run"}, set={"value": run}),
                Append(run, "root", "", body({"node": self._node, **facts})),
            ]
        )
        self.run = run

    async def set_paused(self, paused: bool) -> None:
        """Refuse new effects, or begin them again; also after a restart."""
        value = "1" if paused else "0"
        await self._unit.commit(
            [
                Insert("meta", {"key": "paused", "value": value}, or_ignore=True),
                Update("meta", {"key": "paused"}, set={"value": value}),
            ]
        )
        self.paused = paused
