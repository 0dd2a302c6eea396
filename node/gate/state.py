"""What the gate must remember of the node itself: its key, its ledger run, and whether it is paused (table `meta`)."""

from collections.abc import Collection

from core.clock import Clock
from core.identifier import PubKey, derived_id
from core.unit import Among, Append, Delete, Insert, UnitOfWork, Update, Within, Write
from node.gate.error import ForeignLedger
from node.gate.ledger import body

_RUNS = Within("run/", "run0")  # those of further processes


def _key(slot: int) -> str:
    return f"run/{slot}" if slot else "run"


class NodeState:
    """Read by `load`; every change is durable before it holds.

    Of several processes that share the database each has a place (`slot`) and under it a run of its own, since a chain
    has one writer. The run of the first place is `run` in table `meta`, those of the others `run/<slot>`.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, node: PubKey, slot: int = 0) -> None:
        self.run = ""
        self.paused = False
        self.slot = slot
        self._unit, self._clock, self._node = unit, clock, node
        self._key = _key(slot)

    async def load(self) -> None:
        """Read it; at the very first start, begin the ledger with its root entry.

        Raises:
            ForeignLedger: another node's key signed this ledger.
        """
        rows = await self._unit.select("meta", {"key": Among(("node", "paused", "run", self._key))})
        known = {row["key"]: row["value"] for row in rows}
        if known.get("node", self._node) != self._node:
            raise ForeignLedger
        self.paused = known.get("paused") == "1"
        self.run = known.get(self._key, "")
        if not self.run:
            own = Insert("meta", {"key": "node", "value": self._node}, or_ignore=True)
            beside = {"after": known.get("run", ""), "reason": "another process"} if self.slot else {}
            await self._begin_run(beside, own)

    async def runs(self, slots: Collection[int]) -> set[str]:
        """The runs of these places."""
        rows = await self._unit.select("meta", {"key": Among(tuple(map(_key, slots)))}) if slots else []
        return {row["value"] for row in rows}

    async def look(self) -> None:
        """See whether another process paused the node, or resumed it."""
        rows = await self._unit.select("meta", {"key": "paused"})
        self.paused = bool(rows) and rows[0]["value"] == "1"

    async def new_run(self, reason: str) -> None:
        """Go on in a new run, e.g. after a restore from an old copy: the old run may have gone further elsewhere.

        So may those of further processes, which begin anew at their next start; none of them may run now.
        """
        await self._begin_run({"after": self.run, "reason": reason}, Delete("meta", {"key": _RUNS}))

    async def _begin_run(self, facts: dict[str, str], *more: Write) -> None:
        run = derived_id("run", self._node, str(self._clock.millis()), self.run, str(self.slot))
        await self._unit.commit(
            [
                *more,
                Insert("meta", {"key": self._key, "value": run}, or_ignore=True),
                Update("meta", {"key": self._key}, set={"value": run}),
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
