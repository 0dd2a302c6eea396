"""What wakes agents, put together: the door of their inboxes, events, alarms, and the way in for webhooks."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from core.clock import Clock
from core.identifier import EffectId
from core.unit import UnitOfWork, Write
from fs.namespace import Changed
from fs.session import Session, Then
from node.agent.inbox.intake import Intake
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.row import agent_of
from node.agent.wake.agenda import AgentAlarms, AgentInterests
from node.agent.wake.bell import Alarms
from node.agent.wake.event import Event
from node.agent.wake.herald import Herald
from node.agent.wake.news import file_changed, job_ended, job_moved, paid
from node.agent.wake.porter import AgentHooks, Porter
from node.config import InboxSection
from wallet.model import OperationView


class JobView(Protocol):
    """What is told of a job: `dvm.view.PurchaseView`."""

    @property
    def caller(self) -> str:
        """Who asked for it, as the gate names it."""

    def to_dict(self) -> dict[str, Any]:
        """All of it."""


class Waking:
    """One per node.

    Args:
        unit: the database.
        clock: time.
        section: `[inbox]`.
        secret: a hook's secret from its id.
        notify: wakes an agent for whom something was committed.
        soon: wakes an agent for whom somebody else is about to commit something.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        section: InboxSection,
        secret: Callable[[str], str],
        notify: Callable[[str], None],
        soon: Callable[[str], None],
    ) -> None:
        self._unit, self._clock, self._secret, self._notify, self._soon = unit, clock, secret, notify, soon
        self.intake = Intake(unit, clock, section.overflow())
        self.herald = Herald(unit, clock, self.intake)
        self.alarms = Alarms(unit, clock, notify)
        self.porter = Porter(unit, clock, secret, self.herald, self.intake, notify, section.hook_per_minute)

    # ---- what happens

    async def job_ended(self, view: JobView) -> Sequence[Write]:
        """A job has ended: whoever asked for it is told in the same commit."""
        return await self._tell(job_ended(agent_of(view.caller) or "", view.to_dict()))

    async def job_moved(self, view: JobView) -> Sequence[Write]:
        """A job has come to another state: who is interested is told in the same commit."""
        return await self._tell(job_moved(agent_of(view.caller) or "", view.to_dict()))

    async def paid(self, view: OperationView) -> Sequence[Write]:
        """Money has moved: the agent for which it did, and who may know of all, are told in the same commit."""
        return await self._tell(paid(await self._for_whom(view.effect_id), view))

    async def _tell(self, event: Event) -> Sequence[Write]:
        told = await self.herald.tell(event)
        for agent in told.agents:
            self._soon(agent)
        return told.writes

    async def _for_whom(self, effect: EffectId) -> str:
        rows = await self._unit.select("effect", {"id": effect}, columns=("caller",))
        return (agent_of(rows[0]["caller"]) or "") if rows else ""

    def file_changed(self, agent: str) -> Changed:
        """What tells of files that are written in an agent's tree."""

        async def changed(path: str, size: int, session: Session) -> tuple[Sequence[Write], Then]:
            by = agent_of(session.caller) or ""
            event = file_changed(agent, path, size, session.caller, by, session.key or "")
            told = await self.herald.tell(event)

            def then() -> None:
                for one in told.agents:
                    self._notify(one)

            return told.writes, then

        return changed

    # ---- what an agent's files show of it

    def inbox(self, agent: str) -> AgentInbox:
        """Its inbox."""
        return AgentInbox(agent, self._unit, self._clock, self._notify, self.intake)

    def agenda(self, agent: str) -> AgentAlarms:
        """Its alarms."""
        return AgentAlarms(agent, self._unit, self._clock, self.alarms.touch)

    def interests(self, agent: str) -> AgentInterests:
        """Its interests."""
        return AgentInterests(agent, self._unit, self._clock)

    def hooks(self, agent: str) -> AgentHooks:
        """Its hooks."""
        return AgentHooks(agent, self._unit, self._clock, self._secret)
