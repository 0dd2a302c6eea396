"""The programs of a node, put together: what is built in, installed or in the home, and what agents outside need."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.clock import Clock, SystemClock
from core.error import InvalidInput, NotFound
from core.unit import UnitOfWork
from fs.secret import Secret
from node.agent.buyer import Buyer
from node.agent.load.loader import FOLDER, Loader
from node.agent.outside.command import FOLDER as WORK
from node.agent.outside.command import Command
from node.agent.outside.host import Turns
from node.agent.outside.webhook import Webhook, WebhookConfig, secret_text
from node.agent.state import configured
from node.agent.tick.limit import TickLimits
from node.secret.reference import Reveal, no_secrets

PURPOSE = "agent.turn"  # the standing purpose under which triggers go to agents outside


class Library:
    """What agents of a node can be made of.

    Args:
        unit: where agents' settings are.
        clock: time.
        limits: bounds of ticks.
        commands: how many commands run at once.
        home: the home directory; files of programs are in it, and the folders of commands.
        url: where the control plane listens.
        derive: a secret of the node's for a purpose and a name.
        leave: asks the gate whether triggers may be brought to agents outside.
        reveal: the value of a setting of an agent outside, which may name a secret.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        limits: TickLimits,
        commands: int,
        home: Path,
        url: Callable[[], str],
        derive: Callable[[str, str], bytes],
        leave: Callable[[], None],
        reveal: Reveal = no_secrets,
    ) -> None:
        self._unit, self._derive = unit, derive
        self._heal: Callable[[], Awaitable[None]] | None = None
        self.turns = Turns(clock, url, limits.state_bytes)
        self.webhook = Webhook(self.turns, clock, self._secret, leave, reveal)
        command = Command(self.turns, clock, home / WORK, commands, leave, reveal)
        self.programs = Loader((Buyer(), self.webhook, command), home / FOLDER)

    def _secret(self, agent: str, generation: int) -> str:
        return secret_text(self._derive("webhook", f"{agent}/{generation}"))

    def on_reload(self, heal: Callable[[], Awaitable[None]]) -> None:
        """Call this when a program was taken up: agents may have been set aside for want of it."""
        self._heal = heal

    # ---- as `fs.service.programs.Programs`

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Every program: where it is from, its digest if it is loaded, what is wrong with it."""
        return self.programs.rows()

    async def reload(self, name: str) -> None:
        """Take a changed file up; agents that were set aside for want of it go on.

        Raises:
            NoProgram: there is none, or it cannot be used; what was loaded stays.
        """
        self.programs.reload(name)
        if self._heal is not None:
            await self._heal()

    async def secret(self, agent: str) -> Secret:
        """What signs the triggers that are sent to an agent.

        Raises:
            NotFound: there is no such agent.
            InvalidInput: it is not reached by webhook.
        """
        rows = await self._unit.select("agent", {"name": agent}, columns=("program", "config"))
        if not rows:
            raise NotFound("There is no agent with this name.")
        if rows[0]["program"] != self.webhook.name:
            raise InvalidInput(f"The agent {agent!r} is not reached by webhook: it has no secret.")
        config = configured(self.webhook, rows[0]["config"])
        assert isinstance(config, WebhookConfig)
        return Secret(self._secret(agent, config.generation).encode())


def for_replay(home: Path) -> Loader:
    """The same programs, to be looked at or to run recorded ticks again: nothing is sent and nothing is started."""

    def nothing(*_: object) -> Any:
        raise RuntimeError("a replay brings no trigger to anybody")

    clock = SystemClock()
    turns = Turns(clock, nothing, 0)
    webhook = Webhook(turns, clock, nothing, nothing)
    command = Command(turns, clock, home / WORK, 1, nothing)
    return Loader((Buyer(), webhook, command), home / FOLDER)
