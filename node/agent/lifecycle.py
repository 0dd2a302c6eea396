"""An agent's life but for its ticks: made, asleep, stopped, set aside, released, deleted.

What is decided here changes the version of the agent's row, so that a tick that is under way notices: it conflicts,
reads the row again, and does not go on if it may not.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson

from core.error import Conflict, NotFound, VendoError
from core.identifier import PubKey
from core.unit import Among, Condition, Insert, Row, Update, Value, Write
from node.agent.error import AgentDiffers, AgentLeft, AgentStatus, SettingsRefused
from node.agent.farewell import say_farewell
from node.agent.inbox.row import envelope
from node.agent.log import record, topic
from node.agent.program import AnyProgram, program_of
from node.agent.state import NONE, config_text, configured, loaded
from node.agent.tick.guard import attempted
from node.agent.tick.lap import ACTIVE, DELETED, DORMANT, FROZEN, LIVING, QUARANTINED, STOPPED
from node.agent.tick.limit import Own, bounds
from node.agent.tick.means import Means
from node.agent.tick.supervision import HEALS, Failure, reason_code

log = logging.getLogger(__name__)

INITIALIZE = "initialize"
_PUT_RIGHT = HEALS | {AgentDiffers.code, SettingsRefused.code}
"""Reasons of a quarantine that settings can put right; `heal` looks only at those that a program can."""
_TRIES = 5


class Lifecycle:
    """Changes what agents are.

    Args:
        means: what ticks are made of.
        notify: something waits for an agent.
        slept: an agent hibernates.
    """

    def __init__(self, means: Means, notify: Callable[[str], None], slept: Callable[[str], None]) -> None:
        self._means, self._unit, self._clock = means, means.unit, means.clock
        self._notify, self._slept = notify, slept

    # ---- made

    def check(self, program: str, config: Mapping[str, Any] | None, own: Own | None = None) -> None:
        """Whether an agent can be made of these.

        Raises:
            NoProgram: there is no such program.
            ConfigRefused: the config does not fit it.
            StateRefused: it has no state to begin with.
            ProgramFailed: its types raise something else.
            InvalidInput: the limits are none.
        """
        bounds((own or Own()).to_json(), self._means.limits)
        code, text = program_of(self._means.programs, program), config_text(dict(config or {}))
        self.fits(code, text, NONE, "{}")

    def fits(self, code: AnyProgram, config: str, version: int, state: str) -> None:
        """Whether an agent of this code can go on with these settings and this state.

        Raises:
            ConfigRefused, StateRefused, ProgramFailed: as `check`.
        """
        failure = attempted(lambda: _begin(code, config, version, state), code.name)
        if failure is not None:
            raise failure.error()

    async def create(
        self,
        name: str,
        program: str,
        pubkey: PubKey,
        config: Mapping[str, Any] | None = None,
        own: Own | None = None,
        row: Row | None = None,
    ) -> None:
        """See to it that an agent is there, with these settings; a new one gets its first trigger, `initialize`.

        One that is there keeps its state. One whose settings do not fit its program, or whose program is not there, is
        quarantined: what comes for it waits until that is put right. `row`: its row as it was known a moment ago: it
        spares a question if nothing is to be done, and nothing is done by it.

        Raises:
            AgentDiffers: it was made with another program or key.
            AgentStatus: it is deleted.
        """
        text, limits, reason = config_text(dict(config or {})), (own or Own()).to_json(), ""
        try:
            self.check(program, config, own)
        except VendoError as error:
            reason = Failure.of(error).text
            log.error("an agent cannot run: %s", error, extra={"action": "agent_refused", "agent": name})
        wanted = {"program": program, "pubkey": pubkey, "config": text, "limits": limits}
        if row is not None and not reason and row["status"] in LIVING and row.items() >= wanted.items():
            return
        found = await self._unit.select("agent", {"name": name})
        if found:
            _check_same(found[0], program, pubkey)
            await self._renew(found[0], {"config": text, "limits": limits}, reason)
            return
        now = self._clock.now()
        agent: Row = {
            "name": name,
            "program": program,
            "pubkey": pubkey,
            "status": QUARANTINED if reason else ACTIVE,
            "reason": reason,
            "state_version": NONE,
            "state": "{}",
            "config": text,
            "limits": limits,
            "created_at": now,
            "stored": 2,
        }
        first = envelope(name, INITIALIZE, cause=INITIALIZE, source="node", sender="", payload="{}", at=now)
        await self._unit.commit([Insert("agent", agent), first])
        self._notify(name)

    async def _renew(self, row: Row, settings: Mapping[str, Value], reason: str) -> None:
        """Other settings than before; and what was wrong may be right now, or the other way round."""
        changed = {name: value for name, value in settings.items() if row[name] != value}
        healed = row["status"] == QUARANTINED and reason_code(row["reason"]) in _PUT_RIGHT
        if reason and (row["status"] in LIVING or healed):
            changed |= {"status": QUARANTINED, "reason": reason}
        elif healed:
            changed |= {"status": ACTIVE, "reason": "", "failures": 0}
        changed = {name: value for name, value in changed.items() if row[name] != value}
        if changed:
            await self._unit.commit([Update("agent", {"name": row["name"]}, set=changed, add={"version": 1})])
            self._notify(row["name"])

    async def set_aside(self, name: str, error: VendoError) -> None:
        """Quarantine an agent that cannot be what its settings say, until they are put right.

        Raises:
            VendoError: the database failed.
        """
        failure = Failure.of(error)
        if failure.code not in _PUT_RIGHT:
            failure = Failure(SettingsRefused.code, f"{SettingsRefused().message} {failure.text}")
        for row in await self._unit.select("agent", {"name": name}):
            await self._renew(row, {}, failure.text)

    async def leave_behind(self, name: str, writes: Sequence[Write]) -> None:
        """Stop an agent that was taken out of the configuration, in one commit with these writes.

        One that is stopped, or frozen, stays as it is.

        Raises:
            VendoError: the database failed.
        """
        left = AgentLeft()
        where: dict[str, Condition] = {"name": name, "status": Among((ACTIVE, DORMANT, QUARANTINED))}
        reason = f"{left.code}: {left.message} {left.advice.replace('NAME', name)}"
        changed: dict[str, Value] = {"status": STOPPED, "reason": reason, "failures": 0}
        stop = Update("agent", where, set=changed, add={"version": 1}, rows=None)
        await self._unit.commit([*writes, stop, self._said(name, {"status": STOPPED, "reason": left.code})])
        self._means.feed.grew(topic(name))

    async def reclaim(self, name: str, writes: Sequence[Write]) -> None:
        """An agent that was left behind stands in the configuration again: with these writes it goes on.

        Raises:
            VendoError: the database failed.
        """
        rows = await self._unit.select("agent", {"name": name}, columns=("status", "reason"))
        if not rows or rows[0]["status"] != STOPPED or reason_code(rows[0]["reason"]) != AgentLeft.code:
            return await self._unit.commit(writes)
        where: dict[str, Condition] = {"name": name, "status": STOPPED}
        go_on = Update("agent", where, set={"status": ACTIVE, "reason": ""}, add={"version": 1})
        await self._unit.commit([*writes, go_on, self._said(name, {"status": ACTIVE, "was": STOPPED})])
        self._means.feed.grew(topic(name))
        self._notify(name)

    def _said(self, name: str, about: Mapping[str, str]) -> Write:
        return record(name, self._clock.millis(), "status", orjson.dumps(about).decode())

    async def heal(self) -> None:
        """At start: agents that were set aside for want of a program or of fitting settings, and have both now.

        Raises:
            VendoError: the database failed.
        """
        for row in await self._unit.select("agent", {"status": QUARANTINED}):
            if reason_code(row["reason"]) in HEALS:
                try:
                    self.check(row["program"], orjson.loads(row["config"]))
                except VendoError:
                    continue
                await self._renew(row, {}, "")

    # ---- what the operator says

    async def hibernate(self, name: str) -> str:
        """Keep nothing of it but its row, until a trigger wakes it.

        Raises:
            NotFound, AgentStatus.
        """
        status = await self._turn(name, DORMANT, (ACTIVE,))
        self._slept(name)
        self._notify(name)  # what waits for it wakes it at once
        return status

    async def wake(self, name: str) -> str:
        """End its hibernation, without a trigger.

        Raises:
            NotFound, AgentStatus.
        """
        return await self._turn(name, ACTIVE, (DORMANT,))

    async def stop(self, name: str) -> str:
        """No more ticks until `start`; triggers wait.

        Raises:
            NotFound, AgentStatus.
        """
        return await self._turn(name, STOPPED, (ACTIVE, DORMANT, QUARANTINED))

    async def start(self, name: str) -> str:
        """Ticks again.

        Raises:
            NotFound, AgentStatus.
        """
        return await self._turn(name, ACTIVE, (STOPPED,))

    async def release(self, name: str) -> str:
        """Let it out of quarantine.

        Raises:
            NotFound, AgentStatus.
        """
        return await self._turn(name, ACTIVE, (QUARANTINED,))

    async def freeze(self, name: str) -> str:
        """No more ticks, and nobody hears it, until `thaw`: it goes on elsewhere. Its status before.

        Raises:
            NotFound, AgentStatus.
        """
        rows = await self._unit.select("agent", {"name": name}, columns=("status",))
        before = str(rows[0]["status"]) if rows else ""
        await self._turn(name, FROZEN, (ACTIVE, DORMANT, STOPPED, QUARANTINED))
        self._slept(name)
        return before

    async def thaw(self, name: str, to: str = ACTIVE) -> str:
        """End that. Whoever calls it knows that it does not go on elsewhere too.

        Raises:
            NotFound, AgentStatus.
        """
        return await self._turn(name, to, (FROZEN,))

    async def _turn(self, name: str, to: str, allowed: Collection[str]) -> str:
        """Give an agent another status. One that has it already keeps it."""
        for _ in range(_TRIES):
            rows = await self._unit.select("agent", {"name": name}, columns=("status",))
            if not rows or rows[0]["status"] == DELETED:
                raise NotFound("There is no agent with this name.")
            status = rows[0]["status"]
            if status == to:
                return to
            if status not in allowed:
                raise AgentStatus(f"The agent is {status}; this is for one that is {' or '.join(allowed)}.")
            where: dict[str, Condition] = {"name": name, "status": status}
            changed: dict[str, Value] = {"status": to, "reason": "", "failures": 0}
            try:
                await self._unit.commit(
                    [
                        Update("agent", where, set=changed, add={"version": 1}),
                        self._said(name, {"status": to, "was": status}),
                    ]
                )
            except Conflict:
                continue
            self._means.feed.grew(topic(name))
            if to == ACTIVE:
                self._notify(name)
            return to
        raise Conflict("Others change this agent's status again and again.")

    # ---- the end

    async def delete(self, name: str) -> None:
        """End an agent for good: its `on_terminate` runs, within the time of a tick, and its alarms go.

        Whoever calls this sees to it that no tick of it runs. What waits for it is given up. One that is deleted
        already, or never was, stays so.

        Raises:
            VendoError: the database failed.
        """
        for count in range(_TRIES):
            rows = await self._unit.select("agent", {"name": name})
            if not rows or rows[0]["status"] == DELETED:
                return
            silent = count > 1 or rows[0]["status"] == FROZEN  # who lives on elsewhere says no last words here
            farewell = await say_farewell(self._means, rows[0], silent=silent)
            try:
                await self._unit.commit(farewell.writes)
            except Conflict:
                continue
            farewell.conclude()
            self._means.feed.grew(topic(name))
            return
        raise Conflict("Others change this agent's row again and again.")


def _check_same(row: Row, program: str, pubkey: PubKey) -> None:
    """Whether an agent that is there is the one that is meant.

    Raises:
        AgentDiffers, AgentStatus.
    """
    name = row["name"]
    if row["status"] == DELETED:
        raise AgentStatus(f"The agent {name!r} is deleted.", remedy="Choose another name: this one is not used again.")
    if row["program"] != program:
        raise AgentDiffers(f"The agent {name!r} was made of the program {row['program']!r}, not of {program!r}.")
    if row["pubkey"] != pubkey:
        raise AgentDiffers(f"The agent {name!r} was made with another key.")


def _begin(program: AnyProgram, config: str, version: int, state: str) -> None:
    """An agent's first step: its settings, and a state to begin with."""
    configured(program, config)
    loaded(program, version, state)
