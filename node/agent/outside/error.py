"""What can go wrong with an agent that lives outside.

VendoError
├── TurnExpired     turn.expired     410  the time limit has passed
├── TurnOver        turn.over        410  it was committed, was aborted or has failed
├── TurnFull        turn.full        413  more was asked in it than one may ask
├── TurnBusy        turn.busy        503  too much waits at once
├── TurnAborted     turn.aborted     409  whoever had it gave up
├── NodeStopping    node.stopping    503  the node stops; the trigger waits
├── TurnLingers     turn.lingers     503  what was started for the turn before still runs; the trigger waits
├── WebhookFailed   webhook.failed   502  the agent's address did not take the trigger
└── CommandFailed   command.failed   502  the agent's command failed
"""

from core.error import InvalidInput, Paused, Unavailable, VendoError
from node.agent.error import AgentAway


class TurnExpired(VendoError):
    """The turn's time limit has passed; nothing of it was committed."""

    code = "turn.expired"
    status = 410
    remedy = "Wait for the trigger to come again, with a new token; or give the agent more time in its configuration."


class TurnOver(VendoError):
    """The turn has ended."""

    code = "turn.over"
    status = 410
    remedy = "Wait for the next trigger: each has a token of its own."


class TurnFull(InvalidInput):
    """More was asked in this turn than one may ask."""

    code = "turn.full"
    status = 413
    remedy = "Do less in one turn."


class TurnBusy(Unavailable):
    """Too many requests wait in this turn."""

    code = "turn.busy"
    remedy = "Send one after the other: they are dealt with one at a time."


class TurnAborted(VendoError):
    """The agent gave its turn up."""

    code = "turn.aborted"
    status = 409
    remedy = "The trigger is tried again."


class NodeStopping(Paused):
    """The node stops, or has just started; the trigger waits until it runs."""

    code = "node.stopping"
    remedy = "Try again when the node runs."


class TurnLingers(Paused):
    """What was started for the agent's last turn has not ended; the trigger waits."""

    code = "turn.lingers"
    remedy = "Let the agent's command end soon after its commit; the trigger is given to it then."


class WebhookFailed(AgentAway):
    """The agent's address did not take the trigger."""

    code = "webhook.failed"
    status = 502
    remedy = "See that the agent's own service runs; the trigger is sent again."


class CommandFailed(Unavailable):
    """The agent's command failed."""

    code = "command.failed"
    status = 502
    remedy = "See what it says on standard error; the trigger is given to it again."
