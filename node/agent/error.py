"""What can go wrong with an agent: its code, its settings, its state, and what its operator asks of it.

VendoError
├── NoProgram        agent.no_program       404  its program is not on this node
│   ├── ProgramTaken  program.taken         409  two sources claim its name
│   ├── ProgramUnsafe program.unsafe        403  its file is not the node's user's alone to write
│   └── ProgramBroken program.broken        500  its code cannot be loaded
├── ConfigRefused    agent.config_invalid   400  its settings do not fit its program
│   ├── AgentDiffers  agent.differs         400  it was made of another program, or with another key
│   └── SettingsRefused agent.settings      400  its section cannot be taken
├── StateRefused     agent.state_invalid    409  its state cannot be read by its program
├── StateUnsound     agent.state_unsound    500  what its program left as its state cannot be kept
├── StateTooLarge    agent.state_too_large  413
├── TickTooSlow      agent.too_slow         504
├── AgentAway        agent.away             503  it lives outside, and does not answer
├── ProgramFailed    agent.failed           500
├── StorageFull      agent.storage_full     507  its own limit, not the disk
├── TickOver         agent.tick_over        409  a context was used when its tick had ended
├── AgentStatus      agent.status           409  the agent's status does not allow this
│   └── AgentLeft     agent.unconfigured    409  it stood in config.toml and was taken out
├── InboxFull        agent.inbox_full       503
├── HookUnknown      hook.unknown           404  there is none, or the caller does not know its secret
├── HookBody         hook.body              400
├── HookType         hook.type              415
├── HookBusy         hook.too_many          429
├── AgentBusy        agent.busy             409  another process works on it
├── RecordingDamaged recording.damaged      422  a recorded tick cannot be read
├── RecordingNewer   recording.newer        422  a newer version wrote it
└── NotRecorded      recording.none         404  there is no recording of this tick
"""

from core.error import Conflict, InvalidInput, NotFound, Unavailable, VendoError


class NoProgram(NotFound):
    """The agent's program is not on this node."""

    code = "agent.no_program"
    remedy = "Install it, or put its file back; what waits for the agent is kept."


class ProgramTaken(NoProgram):
    """Two sources claim the same name for a program."""

    code = "program.taken"
    status = 409
    remedy = "Rename one of them; `vendo agent programs` names both."


class ProgramUnsafe(NoProgram):
    """The program's file could be changed by someone else than the node's user."""

    code = "program.unsafe"
    status = 403
    remedy = "Make it and its folder yours, and writable for you alone (chmod go-w); then `vendo agent reload`."


class ProgramBroken(NoProgram):
    """The program's code cannot be loaded."""

    code = "program.broken"
    status = 500
    remedy = "Correct it; then `vendo agent reload`. What waits for its agents is kept."


class ConfigRefused(InvalidInput):
    """The agent's configuration does not fit its program."""

    code = "agent.config_invalid"
    remedy = "Correct `config` of this agent (config.toml, or `vendo agent set`); what waits for it is kept."


class AgentDiffers(ConfigRefused):
    """This cannot be changed: the agent was made so, and its state is of that program and key."""

    code = "agent.differs"
    remedy = "Set back what it was, or make another agent under another name. What waits for it is kept."


class SettingsRefused(ConfigRefused):
    """The agent's section cannot be taken."""

    code = "agent.settings"
    remedy = "Correct its [[agent]] table in config.toml, or use `vendo agent set`; what waits for it is kept."


class StateRefused(VendoError):
    """The agent's state does not fit its program."""

    code = "agent.state_invalid"
    status = 409
    remedy = "Correct the program (its state's type, version or migrate), then release the agent."


class StateUnsound(VendoError):
    """What the agent's program left as its state cannot be kept."""

    code = "agent.state_unsound"
    remedy = "Keep in the state only what its type says."


class StateTooLarge(VendoError):
    """The agent's state is longer than it may be."""

    code = "agent.state_too_large"
    status = 413
    remedy = "Keep less in the state; `ctx.memory` holds more."


class TickTooSlow(VendoError):
    """The tick took longer than it may."""

    code = "agent.too_slow"
    status = 504
    remedy = "Do less in one tick, or give the agent more time (tick_s)."


class AgentAway(Unavailable):
    """The agent lives outside of this node and does not answer."""

    code = "agent.away"
    remedy = "See that it runs; what it was sent is sent again."


class ProgramFailed(VendoError):
    """The agent's program failed."""

    code = "agent.failed"
    remedy = "The node's log has the traceback."


class StorageFull(VendoError):
    """The agent keeps as much as it may."""

    code = "agent.storage_full"
    status = 507
    remedy = "Let it delete something, or raise its limit (storage_mb); what waits for it is kept."


class TickOver(VendoError):
    """This tick has ended; nothing can be done in its name."""

    code = "agent.tick_over"
    status = 409
    remedy = "Await everything within the hook; what must come later is an alarm."


class AgentStatus(Conflict):
    """The agent's status does not allow this."""

    code = "agent.status"
    remedy = "Read /status first."


class AgentLeft(AgentStatus):
    """The agent stood in config.toml and was taken out."""

    code = "agent.unconfigured"
    remedy = "`vendo call /ctl/start --agent NAME` lets it go on as it is; `vendo agent delete NAME` ends it."


class InboxFull(Unavailable):
    """The agent's inbox is full."""

    code = "agent.inbox_full"
    remedy = "Try again later, or raise max_depth in its /inbox/overflow."


class HookUnknown(NotFound):
    """There is no such hook, or this call does not show that it knows its secret."""

    code = "hook.unknown"
    remedy = "Check the address, the secret and the clock; a signature is over the body as it is sent."


class HookBody(InvalidInput):
    """The body of this call is not what its content type says."""

    code = "hook.body"


class HookType(InvalidInput):
    """A call's body is JSON, a form or plain text."""

    code = "hook.type"
    status = 415
    remedy = "Send application/json, application/x-www-form-urlencoded or text/plain, in UTF-8."


class HookBusy(Unavailable):
    """Too many calls of this hook."""

    code = "hook.too_many"
    status = 429
    remedy = "Send it again later: `Retry-After` says when."


class AgentBusy(Conflict):
    """Another process works on this agent."""

    code = "agent.busy"
    remedy = "Ask there, or try again later."


class RecordingDamaged(VendoError):
    """This recording cannot be read."""

    code = "recording.damaged"
    status = 422
    remedy = "Replay another tick."


class RecordingNewer(VendoError):
    """This recording was made by a newer version of vendo."""

    code = "recording.newer"
    status = 422
    remedy = "Replay it with that version."


class NotRecorded(NotFound):
    """There is no recording of this tick."""

    code = "recording.none"
    remedy = "`/logs/ticks` says which ticks are recorded; old recordings are removed (`[retention]`)."
