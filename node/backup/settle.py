"""The writes that make an agent of what an archive holds."""

import secrets

import orjson

from core.identifier import PubKey
from core.unit import Delete, Insert, Row, Update, Value, Write
from node.agent.inbox.row import envelope
from node.agent.lifecycle import INITIALIZE
from node.agent.state import config_text
from node.agent.tick.harvest import size, text_size
from node.agent.tick.lap import ACTIVE, FROZEN, QUARANTINED, STOPPED
from node.backup.customs import Luggage
from node.backup.depart import FROZEN_AS
from node.backup.luggage import TABLES
from node.config import AgentSection

UNVOUCHED = (
    "backup.unvouched: Another node signed its archive, and nobody here said whose it must be: what it knows, waits"
    " for and may spend is as that one wrote it. Look at it; then let it go on: vendo call /ctl/start --agent {name}"
)
_ADMISSION = "admission/"
_REPLACED = ("item", "goal", "mark", "alarm", "interest")


def writes_new(
    luggage: Luggage, section: AgentSection, pubkey: PubKey, now: int, *, clone: bool, vouched: bool
) -> list[Write]:
    """For an agent that is not here: its row and all rows of its own.

    Args:
        luggage: its archive.
        section: its settings, with the name that it has here.
        pubkey: its key here.
        now: Unix seconds.
        clone: it is another agent, like the one of the archive.
        vouched: this node, or one that the operator has named, signed the archive; else it comes stopped.
    """
    manifest, agent, name = luggage.manifest, luggage.agent, section.name
    row: Row = {
        **_row(luggage, section),
        **_status(luggage, name, clone=clone, vouched=vouched),
        "name": name,
        "program": section.program,
        "pubkey": pubkey,
        "ticks": agent.ticks,
        "last_tick_at": agent.last_tick_at,
        "last_cause": agent.last_cause,
        "code": manifest.code,
        "created_at": manifest.taken_at if pubkey == manifest.pubkey else now,  # from then on it hears
    }
    writes: list[Write] = [Insert("agent", row), *_admission(luggage, name)]
    for table, travelling in TABLES.items():
        if travelling.clones or not clone:
            writes += _inserts(luggage, table, name, now, clone=clone)
    if clone and not agent.ticks:
        writes.append(envelope(name, INITIALIZE, cause=INITIALIZE, source="node", sender="", payload="{}", at=now))
    return writes


def writes_back(luggage: Luggage, frozen: Row, section: AgentSection, now: int, *, vouched: bool) -> list[Write]:
    """For an agent that is frozen here: the archive's state. What is known here of triggers and messages stays.

    Args:
        luggage: its archive.
        frozen: its row; the writes conflict if that is not so any more.
        section: its settings.
        now: Unix seconds.
        vouched: as in `writes_new`.
    """
    name = section.name
    changed = {**_row(luggage, section), **_status(luggage, name, vouched=vouched)}
    where = {"name": name, "status": FROZEN, "version": frozen["version"]}
    writes: list[Write] = [Update("agent", where, set=changed, add={"version": 1}), *_admission(luggage, name)]
    writes += [Delete("meta", {"key": FROZEN_AS + name}), *(Delete(table, {"agent": name}) for table in _REPLACED)]
    for table in (*_REPLACED, "inbox", "message"):
        writes += _inserts(luggage, table, name, now)
    return writes


def _status(luggage: Luggage, name: str, *, vouched: bool, clone: bool = False) -> dict[str, Value]:
    """What its operator had stopped, or what had failed, stays so.

    From a stranger's archive nothing of that is believed: a reason could have it go on by itself at the next start.
    """
    agent = luggage.agent
    if not vouched:
        return {"status": STOPPED, "reason": UNVOUCHED.format(name=name), "failures": 0}
    if clone or agent.status not in (STOPPED, QUARANTINED):
        return {"status": ACTIVE, "reason": "", "failures": 0}
    return {"status": agent.status, "reason": agent.reason, "failures": agent.failures}


def _row(luggage: Luggage, section: AgentSection) -> dict[str, Value]:
    state, rows = luggage.agent.state, luggage.rows
    stored = text_size(state) + sum(size(row["key"], row["value"]) for row in rows["item"])
    return {
        "state": state,
        "state_version": luggage.manifest.state_version,
        "config": config_text(section.config),
        "limits": section.limits().to_json(),
        "inbox": orjson.dumps(luggage.agent.overflow).decode(),
        "stored": stored + sum(text_size(row["body"]) for row in rows["goal"]),
    }


def _admission(luggage: Luggage, name: str) -> list[Write]:
    if luggage.agent.admission is None:
        return []
    key, text = _ADMISSION + name, orjson.dumps(luggage.agent.admission).decode()
    return [
        Insert("meta", {"key": key, "value": text}, or_ignore=True),
        Update("meta", {"key": key}, {"value": text}),
    ]


def _inserts(luggage: Luggage, table: str, name: str, now: int, *, clone: bool = False) -> list[Write]:
    writes: list[Write] = []
    for one in luggage.rows[table]:
        row: Row = {**one, "agent": name}
        if table == "hook":
            row |= {"id": secrets.token_hex(16), "created_at": now}
        if table == "alarm" and clone:
            row |= {"fired_ms": 0}
        if table == "message":
            row |= {"changed_ms": min(one["changed_ms"], now * 1_000)}
        writes.append(Insert(table, row, or_ignore=table in ("inbox", "message")))
    return writes
