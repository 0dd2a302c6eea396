"""What of an agent the public is shown: an allow-list, event by event and field by field. Pure.

An event or a field that is not in a table below is not shown, a field of the wrong type neither. Texts that somebody
wrote are left out unless `show_text` is set, and everything goes through `fs/redaction.py` at the end.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from fs.redaction import Redaction
from fs.service.model.hud import HudSettings

_TEXT = 500  # characters of a text that are shown
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ID = re.compile(r"[0-9a-f-]{1,40}")
_KEY = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 53


class Kind(StrEnum):
    """What a field must be to be shown."""

    COUNT = "count"  # a number
    WORD = "word"  # one word: a status, a code
    NAME = "name"  # the name of an agent or of a goal
    ID = "id"  # a short id
    KEY = "key"  # a public key
    NOT = "not"  # true or false, shown as its opposite
    TEXT = "text"  # what somebody wrote: with `show_text` alone


@dataclass(frozen=True, slots=True)
class Shown:
    """One type of record as the public sees it.

    Attributes:
        event: its type then.
        fields: name → the record's field and what it must be.
        fixed: what is always said.
        is_text: it is nothing but what somebody wrote.
    """

    event: str
    fields: Mapping[str, tuple[str, Kind]]
    fixed: Mapping[str, str | bool] = field(default_factory=dict)
    is_text: bool = False


EVENTS: Mapping[str, Shown] = {
    "tick": Shown(
        "tick_end", {"cause": ("cause", Kind.WORD), "duration_ms": ("duration_ms", Kind.COUNT)}, {"success": True}
    ),
    "error": Shown(
        "error",
        {
            "code": ("code", Kind.WORD),
            "message": ("message", Kind.TEXT),
            "tries": ("tries", Kind.COUNT),
            "recoverable": ("dead", Kind.NOT),
        },
    ),
    "waits": Shown("error", {"code": ("code", Kind.WORD), "message": ("message", Kind.TEXT)}, {"recoverable": True}),
    "status": Shown("state_change", {"value": ("status", Kind.WORD)}, {"field": "status", "operation": "set"}),
    "quarantined": Shown(
        "state_change",
        {"reason": ("reason", Kind.TEXT)},
        {"field": "status", "operation": "set", "value": "quarantined"},
    ),
    "limit_near": Shown("usage", {"limit": ("limit", Kind.WORD), "used": ("used", Kind.COUNT)}),
    "limit_reached": Shown(
        "state_change",
        {"value": ("limit", Kind.WORD), "until_ms": ("until_ms", Kind.COUNT)},
        {"field": "limited", "operation": "set"},
    ),
    "job": Shown("tool_start", {}, {"tool_name": "compute"}),
    "reply": Shown("chunk", {"text": ("text", Kind.TEXT)}, is_text=True),
}
"""Types of the trace's records, and what of them the public sees. No other type is shown."""

_STATUS = {
    "name": Kind.NAME, "status": Kind.WORD, "reason": Kind.TEXT, "program": Kind.WORD, "pubkey": Kind.KEY,
    "ticks": Kind.COUNT, "failures": Kind.COUNT, "last_tick_at": Kind.COUNT, "last_cause": Kind.WORD,
    "queue_depth": Kind.COUNT, "created_at": Kind.COUNT,
}  # fmt: skip
_GOAL = {
    "id": Kind.NAME, "description": Kind.TEXT, "status": Kind.WORD, "priority": Kind.COUNT, "progress": Kind.COUNT,
    "parent": Kind.NAME, "due_at_ms": Kind.COUNT, "updated_at_ms": Kind.COUNT,
}  # fmt: skip
_METRICS = {
    "ticks": ("total", "failed", "of", "last_ms", "p50_ms", "p95_ms"),
    "apm": ("value", "window_secs"),
    "queue": ("depth", "oldest_at_ms"),
}


def _may(value: Any, kind: Kind, settings: HudSettings) -> Any:
    """A field as the public sees it; None if it does not."""
    is_number = type(value) in (int, float) and -_LARGEST < value < _LARGEST
    match kind:
        case Kind.COUNT:
            return value if is_number else None
        case Kind.NOT:
            return not value if type(value) is bool else None
        case Kind.TEXT:
            return value if type(value) is str and settings.show_text else None
    pattern = {Kind.ID: _ID, Kind.KEY: _KEY, Kind.NAME: _NAME}.get(kind, _WORD)
    return value if type(value) is str and pattern.fullmatch(value) else None


def _fields(
    facts: Mapping[str, Any], table: Mapping[str, tuple[str, Kind]], settings: HudSettings, redaction: Redaction
) -> dict[str, Any]:
    found = {name: _may(facts.get(own), kind, settings) for name, (own, kind) in table.items()}
    clean = redaction.value({name: value for name, value in found.items() if value is not None})
    # only then: the beginning of a secret may not look like one
    return {name: value[:_TEXT] if isinstance(value, str) else value for name, value in clean.items()}


def public_event(
    agent: str, record: Mapping[str, Any], settings: HudSettings, redaction: Redaction
) -> dict[str, Any] | None:
    """A record of the trace as the public sees it, as `HudEvent`; None if it does not."""
    shown, data = EVENTS.get(str(record["type"])), record["data"]
    if shown is None or not isinstance(data, Mapping) or (shown.is_text and not settings.show_text):
        return None
    return {
        "id": record["id"],
        "timestamp": record["at_ms"],
        "session_id": agent,
        "tick_id": _may(record.get("tick_id"), Kind.ID, settings),
        "event_type": shown.event,
        "payload": {**shown.fixed, **_fields(data, shown.fields, settings, redaction)},
    }


def public_status(facts: Mapping[str, Any], settings: HudSettings, redaction: Redaction) -> dict[str, Any]:
    """An agent's status as the public sees it."""
    return _fields(facts, {name: (name, kind) for name, kind in _STATUS.items()}, settings, redaction)


def public_goal(goal: str, body: str, settings: HudSettings, redaction: Redaction) -> dict[str, Any]:
    """A goal as the public sees it. `body` is what is stored, JSON if it is in order."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    facts = {**value, "id": goal} if isinstance(value, dict) else {"id": goal}
    return _fields(facts, {name: (name, kind) for name, kind in _GOAL.items()}, settings, redaction)


def public_metrics(facts: Mapping[str, Mapping[str, Any]], settings: HudSettings) -> dict[str, Any]:
    """An agent's numbers as the public sees them: none about money."""
    return {
        group: {name: _may(facts.get(group, {}).get(name), Kind.COUNT, settings) for name in names}
        for group, names in _METRICS.items()
    }
