"""What goes with an agent that is deleted: what wakes it, its ways in, what waits, and what it kept. Pure."""

from core.unit import Delete, Update, Write
from node.agent.inbox.row import DISCARDED, NEW
from node.agent.wake.event import grant

_GOING = ("alarm", "interest", "hook", "item", "goal", "secret")


def settle(agent: str, now: int) -> tuple[Write, ...]:
    """Writes to commit with the deletion of an agent. What waits for it is given up, and waits for nobody."""
    waiting = {"agent": agent, "state": NEW}
    return (
        *(Delete(table, {"agent": agent}) for table in _GOING),
        *grant(agent, False),
        Update("inbox", waiting, set={"state": DISCARDED, "ended_at": now}, rows=None),
    )
