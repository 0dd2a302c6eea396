"""What travels with an agent: which columns of which tables, and whether rows from an archive may be an agent's. Pure.

What an archive says is no more trusted than what a stranger sends: each row is checked as if the agent or its operator
had asked for it here. Columns that are not named do not travel; neither do keys, money, ticks, recordings or traces.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.error import InvalidInput
from core.identifier import is_hex64
from core.unit import Row
from node.agent.inbox.overflow import Overflow
from node.agent.inbox.row import DEAD, DISCARDED, DONE, DROPPED, EXPIRED, NEW
from node.agent.wake.alarm import CRON, EVERY, MAX_ALARMS, MAX_PAYLOAD, MOST_MISSED, ONCE, SHORTEST_MS, check_id
from node.agent.wake.cron import LAST_MS, read_cron
from node.agent.wake.hook import MAX_HOOKS, Scheme, check_name
from node.agent.wake.interest import MAX_INTERESTS, check_hook_event, watch
from node.backup.error import BackupDamaged
from node.backup.manifest import Kind, TableFacts
from node.config import AgentSection
from node.message.admission import read_rules

AGENT_PART = "agent.json"
SHELF, WORK, PROGRAM = "files", "work", "program"
RUNS_ITS_SETTINGS = frozenset({"command"})
"""Programs whose settings say what runs on this machine: they are code, whatever the digest of the program is."""

MOST_ROWS = 200_000
ENDED_DAYS = 14
MOST_ENDED = 50_000
MAX_TEXT = 1 << 20
_GOAL = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_ID = 400
_MAX_ITEM = 65_536
_MAX_S = LAST_MS // 1000
_FAR = 1 << 62
_CAUSES = frozenset({"message", "event", "manual", "initialize", "alarm"})
_LIVING, _OVER = frozenset({NEW, DEAD}), frozenset({DONE, DROPPED, EXPIRED, DISCARDED})
_SAID = {"in": frozenset({"received", "dropped"}), "out": frozenset({"sent", "failed", "seen"})}
"""What was said and is over. What is still on its way, or held back, stays where it is."""
SAID = tuple(sorted(_SAID["in"] | _SAID["out"]))

Check = Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class Travelling:
    """One table.

    Attributes:
        columns: that travel, with their kinds.
        order: in which they are read and written.
        clones: whether a clone gets them too.
        most: rows.
        check: raises `InvalidInput` for a row that cannot be an agent's.
    """

    columns: tuple[tuple[str, Kind], ...]
    order: tuple[str, ...]
    clones: bool
    most: int
    check: Check

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(name for name, _ in self.columns)


def _need(good: object, what: str) -> None:
    if not good:
        raise InvalidInput(what)


def _time(value: int | None, what: str, most: int = _MAX_S) -> None:
    _need(value is None or 0 <= value < most, f"{what} is no time between 1970 and 2100.")


def _object(text: str, what: str, most: int) -> None:
    _need(len(text.encode()) <= most, f"{what} is longer than {most} bytes.")
    try:
        _need(isinstance(orjson.loads(text), dict), f"{what} is no JSON object.")
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{what} is no JSON.") from error


def _name(text: str, what: str) -> None:
    _need(0 < len(text) <= _MAX_ID, f"{what} has 1 to {_MAX_ID} characters.")


def _item(row: Row) -> None:
    _name(row["key"], "A key")
    _need(len(row["value"].encode()) <= _MAX_ITEM, "A kept value is too long.")
    try:
        orjson.loads(row["value"])
    except orjson.JSONDecodeError as error:
        raise InvalidInput("A kept value is no JSON.") from error


def _goal(row: Row) -> None:
    _need(_GOAL.fullmatch(row["id"]), "A goal's id is a-z, 0-9, _ and -.")
    _object(row["body"], "A goal", MAX_TEXT)
    _time(row["updated_at"], "A goal's time")


def _mark(row: Row) -> None:
    _name(row["id"], "A mark")


def _alarm(row: Row) -> None:
    check_id(row["id"])
    _object(row["payload"], "An alarm's payload", MAX_PAYLOAD)
    _time(row["due_ms"], "An alarm's time", LAST_MS)
    _time(row["fired_ms"], "An alarm's last time", LAST_MS)
    _time(row["created_at"], "An alarm's beginning")
    _need(0 <= row["missed"] <= MOST_MISSED, "An alarm has missed too much.")
    kind = row["kind"]
    _need(kind in (ONCE, EVERY, CRON), "An alarm is once, every or cron.")
    _need((kind == CRON) is bool(row["cron"]), "An alarm's rule does not fit its kind.")
    within = SHORTEST_MS <= row["every_ms"] < LAST_MS if kind == EVERY else row["every_ms"] == 0
    _need(within, "An alarm's interval does not fit its kind.")
    if kind == CRON:
        read_cron(row["cron"])


def _interest(row: Row) -> None:
    watch("", row["id"], 0, row["event"], row["pattern"])
    _time(row["created_at"], "An interest's beginning")


def _hook(row: Row) -> None:
    check_name(row["name"])
    check_hook_event(row["event"])
    _need(row["scheme"] in tuple(Scheme), "A hook's scheme is not known.")


def _waiting(row: Row) -> None:
    for column, what in (("envelope_id", "An envelope"), ("source", "A source")):
        _name(row[column], what)
    _need(row["cause"] in _CAUSES, "A trigger's cause is not known.")
    _need(len(row["sender"]) <= _MAX_ID and len(row["reply_to"]) <= _MAX_ID, "A trigger's sender is too long.")
    _need(len(row["error"]) <= MAX_TEXT, "A trigger's error is too long.")
    _need(0 <= row["tries"] < 1_000_000, "A trigger was tried too often.")
    _need(-1_000_000 <= row["priority"] <= 1_000_000, "A trigger's priority is out of bounds.")
    _time(row["next_at_ms"], "A trigger's next try", LAST_MS)
    for column in ("at", "written_at", "expires_at", "ended_at"):
        _time(row[column], "A trigger's time")
    _object(row["payload"], "A trigger", MAX_TEXT)
    over = row["ended_at"] is not None
    _need(row["state"] in (_OVER if over else _LIVING), "A trigger's state is not known.")


def _message(row: Row) -> None:
    _need(is_hex64(row["id"]), "A message's id is 64 hex digits.")
    _need(is_hex64(row["peer"]), "A message's peer is a public key.")
    _need(row["state"] in _SAID.get(row["direction"], ()), "A message's state is not known.")
    _need(row["protocol"] in ("nip17", "nip04", "public"), "A message's way is not known.")
    _need(0 <= row["kind"] <= 65_535 and row["first"] in (0, 1), "A message is none.")
    _need(len(row["text"].encode()) <= MAX_TEXT and len(row["reason"]) <= 500, "A message is too long.")
    _time(row["created_at"], "A message's time")
    _time(row["changed_ms"], "A message's change", LAST_MS)


TABLES: Mapping[str, Travelling] = MappingProxyType(
    {
        "item": Travelling((("key", "text"), ("value", "text")), ("key",), True, MOST_ROWS, _item),
        "goal": Travelling((("id", "text"), ("body", "text"), ("updated_at", "int")), ("id",), True, 1_000, _goal),
        "mark": Travelling((("id", "text"),), ("n",), True, 1_024, _mark),
        "alarm": Travelling(
            (
                ("id", "text"), ("kind", "text"), ("due_ms", "int"), ("every_ms", "int"), ("cron", "text"),
                ("payload", "text"), ("fired_ms", "int"), ("missed", "int"), ("created_at", "int"),
            ),
            ("id",), True, MAX_ALARMS, _alarm,
        ),
        "interest": Travelling(
            (("id", "text"), ("event", "text"), ("pattern", "text"), ("created_at", "int")),
            ("id",), True, MAX_INTERESTS, _interest,
        ),
        "hook": Travelling(
            (("name", "text"), ("event", "text"), ("scheme", "text")), ("created_at", "id"), True, MAX_HOOKS, _hook
        ),
        "inbox": Travelling(
            (
                ("envelope_id", "text"), ("cause", "text"), ("source", "text"), ("sender", "text"), ("payload", "text"),
                ("state", "text"), ("tries", "int"), ("error", "text"), ("at", "int"), ("next_at_ms", "int"),
                ("priority", "int"), ("expires_at", "int"), ("seq", "int"), ("reply_to", "text"),
                ("written_at", "int"), ("ended_at", "int"),
            ),
            ("n",), False, MOST_ROWS, _waiting,
        ),
        "message": Travelling(
            (
                ("id", "text"), ("peer", "text"), ("direction", "text"), ("protocol", "text"), ("kind", "int"),
                ("text", "text"), ("state", "text"), ("reason", "text"), ("first", "int"), ("created_at", "int"),
                ("changed_ms", "int"),
            ),
            ("changed_ms",), False, 100_000, _message,
        ),
    }
)  # fmt: skip


class AgentPart(BaseModel):
    """The agent itself: its settings, its admission rules if they were changed, and what its row says.

    Attributes:
        section: as in `[[agent]]`.
        admission: as in `/nostr/admission`.
        status: before it was frozen.
        overflow: the bound of its inbox, as far as it is its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    section: AgentSection
    admission: dict[str, Any] | None
    status: Literal["active", "dormant", "stopped", "quarantined", "frozen"]
    reason: Annotated[str, Field(max_length=10_000)]
    state: str
    ticks: Annotated[int, Field(ge=0, lt=_FAR)]
    last_tick_at: Annotated[int | None, Field(ge=0, lt=_MAX_S)]
    last_cause: Annotated[str, Field(max_length=100)]
    failures: Annotated[int, Field(ge=0, lt=1_000_000)]
    overflow: dict[str, Any]

    def to_json(self) -> bytes:
        """As it stands in the archive."""
        return orjson.dumps(self.model_dump(mode="json"))


def read_agent(raw: bytes) -> AgentPart:
    """The same back, checked.

    Raises:
        BackupDamaged: it is none.
    """
    try:
        part = AgentPart.model_validate_json(raw)
        if part.admission is not None:
            read_rules(part.admission)
        Overflow().changed(part.overflow)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])[:100]
        raise BackupDamaged(f"Its agent is not valid: {where}: {first['msg']}.") from error
    except InvalidInput as error:
        raise BackupDamaged(f"Its agent is not valid: {error}") from error
    return part


def check_tables(tables: Mapping[str, TableFacts]) -> None:
    """Whether an archive has these tables, with these columns, and not too many rows.

    Raises:
        BackupDamaged: it has others.
    """
    if tables.keys() != TABLES.keys() or any(tables[name].columns != one.columns for name, one in TABLES.items()):
        raise BackupDamaged("Its tables are not those of an agent.")
    if sum(table.rows for table in tables.values()) > MOST_ROWS or any(
        tables[name].rows > one.most for name, one in TABLES.items()
    ):
        raise BackupDamaged(f"It has more rows than an agent may have ({MOST_ROWS}).")


def rows_of(table: str, lines: Iterable[Sequence[Any]]) -> list[Row]:
    """The rows of a table, each with what its columns say.

    Raises:
        BackupDamaged: one of them cannot be an agent's.
    """
    travelling = TABLES[table]
    found: list[Row] = []
    for line in lines:
        row: Row = dict(zip(travelling.names, line, strict=True))
        for column, kind in travelling.columns:
            value, null = row[column], (table, column) in _NULLABLE
            if (value is None and not null) or type(value) not in _TYPES[kind, value is None]:
                raise BackupDamaged(f"A row of the table {table} has something else than {kind} as its {column}.")
            if type(value) is int and not -_FAR < value < _FAR:
                raise BackupDamaged(f"A row of the table {table} has a number that is too large.")
        try:
            travelling.check(row)
        except (InvalidInput, UnicodeEncodeError) as error:
            raise BackupDamaged(f"A row of the table {table} cannot be an agent's: {error}") from error
        found.append(row)
    return found


_NULLABLE = frozenset({("inbox", "expires_at"), ("inbox", "seq"), ("inbox", "ended_at")})
_TYPES: Mapping[tuple[str, bool], tuple[type, ...]] = {
    ("text", False): (str,), ("int", False): (int,), ("text", True): (type(None),), ("int", True): (type(None),),
}  # fmt: skip
