"""What can go wrong with a node as a whole.

VendoError
├── ConfigInvalid   config.invalid   400
├── HomeMissing     home.missing     404
├── HomeExists      home.exists      409
├── AlreadyRunning  node.running     409
├── AgentTaken      agent.taken      409
├── AgentConfigured agent.configured 409
├── DiskLow         node.disk_low    507  a pause that ends by itself
├── LeaseUnsure     node.unsure      503
└── NoSteward       node.no_steward  503
"""

from core.error import Conflict, InvalidInput, NotFound, Paused, Unavailable


class ConfigInvalid(InvalidInput):
    """The configuration is not valid."""

    code = "config.invalid"
    remedy = "Correct config.toml; `vendo doctor` names the line."


class HomeMissing(NotFound):
    """There is no node in this home directory."""

    code = "home.missing"
    remedy = "Run `vendo init` with the same --home first."


class HomeExists(Conflict):
    """There is already a node in this home directory."""

    code = "home.exists"
    remedy = "Choose another --home; keys are never overwritten."


class AlreadyRunning(Conflict):
    """Another process runs this node."""

    code = "node.running"
    remedy = "Stop it first, or talk to it with the other commands."


class AgentTaken(Conflict):
    """There is, or was, another agent of this name."""

    code = "agent.taken"
    remedy = "Choose another name: a deleted agent's is not used again."


class AgentConfigured(Conflict):
    """This agent stands in the configuration."""

    code = "agent.configured"
    remedy = "Change its [[agent]] table in config.toml, or take it out to delete it; then start the node again."


class DiskLow(Paused, Unavailable):
    """The disk is nearly full: nothing new is begun, and what is open is finished."""

    code = "node.disk_low"
    status = 507
    remedy = "Free some space; the node goes on by itself. `vendo gc` deletes what is old."


class LeaseUnsure(Unavailable):
    """This process could not renew its lease in time; another may have taken its place."""

    code = "node.unsure"
    remedy = "Look at the database and the way to it; the process goes on by itself, or ends if its place was taken."


class NoSteward(Unavailable):
    """No process of this node takes this at the moment."""

    code = "node.no_steward"
    remedy = "Try again in some seconds; `vendo status` names the processes that share the database."
