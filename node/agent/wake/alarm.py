"""Alarms as rows: set, taken away, and what follows when one is due. Pure; `node/agent/wake/bell.py` watches the time.

An alarm fires as the envelope `alarm:<id>:<due_ms>`, in the unit that moves its time on, so that a crash between the
two can neither lose it nor double it. One that is set again for a time for which it has fired fires again: its envelope
has one more part then. One envelope of an alarm waits at a time: times that pass meanwhile, while the node was down
too, are counted and told with the next one (`missed`).
"""

import re
from collections.abc import Collection, Sequence

import orjson

from core.error import InvalidInput
from core.unit import Among, Delete, Insert, Row, UnitOfWork, Update, Within, Write
from fs.session import Session
from node.agent.inbox.row import envelope
from node.agent.wake.cron import LAST_MS, Cron, read_cron

TABLE = "alarm"
ONCE, EVERY, CRON = "once", "every", "cron"
MAX_ALARMS = 1_000
SHORTEST_MS = 1_000
MAX_PAYLOAD = 16_384
MOST_MISSED = 100_000
_COUNTED = 1_000
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_id(name: str) -> str:
    """The id of an alarm or of an interest.

    Raises:
        InvalidInput: it is not 1 to 64 of a-z, A-Z, 0-9, `_`, `-` and `.`, a letter or digit first.
    """
    if _ID.fullmatch(name) is None:
        raise InvalidInput("An id is 1 to 64 of a-z, A-Z, 0-9, _, - and . with a letter or digit first.")
    return name


def set_alarm(
    agent: str,
    alarm: str,
    now_ms: int,
    *,
    at_ms: int | None = None,
    every_ms: int = 0,
    cron: str = "",
    payload: str = "{}",
) -> tuple[Write, ...]:
    """Writes that set an alarm; one of this id is replaced. Ask `afford` first.

    Args:
        agent: whom it wakes.
        alarm: its id.
        now_ms: Unix ms, like all times here.
        at_ms: once; or the first time, with `every_ms`. A time that has passed is due at once.
        every_ms: again and again, at least a second apart.
        cron: by the clock, as `node.agent.wake.cron.read_cron` takes it.
        payload: what the agent is told, as JSON.

    Raises:
        InvalidInput: none or several of these ways, or a value that is out of bounds.
    """
    check_id(alarm)
    if bool(cron) is (at_ms is not None or bool(every_ms)):
        raise InvalidInput("An alarm has a time, an interval, or a cron rule.")
    if len(payload.encode()) > MAX_PAYLOAD:
        raise InvalidInput(f"An alarm's payload has at most {MAX_PAYLOAD} bytes.")
    if every_ms and not SHORTEST_MS <= every_ms < LAST_MS:
        raise InvalidInput(f"An alarm's interval is at least {SHORTEST_MS} ms.")
    rule, due = "", at_ms
    if cron:
        read = read_cron(cron)
        rule, due = str(read), _coming(read, now_ms)
    elif due is None:
        due = now_ms + every_ms
    if not 0 <= due < LAST_MS:
        raise InvalidInput("An alarm's time is between 1970 and 2100.")
    row: Row = {
        "agent": agent,
        "id": alarm,
        "kind": CRON if cron else EVERY if every_ms else ONCE,
        "due_ms": due,
        "every_ms": every_ms,
        "cron": rule,
        "payload": payload,
        "created_at": now_ms // 1000,
    }
    return (*no_alarm(agent, alarm), Insert(TABLE, row))


def _coming(rule: Cron, now_ms: int) -> int:
    due = rule.after(now_ms)
    if due is None:
        raise InvalidInput("This cron rule names no time that is still to come.")
    return due


def no_alarm(agent: str, alarm: str) -> tuple[Write, ...]:
    """Writes that take an alarm away; none is fine too. What it has put into the inbox stays there."""
    return (Delete(TABLE, {"agent": agent, "id": alarm}),)


def row_of(writes: Sequence[Write]) -> Row:
    """The row that writes like those of `set_alarm` leave."""
    made = writes[-1]
    assert isinstance(made, Insert)
    return dict(made.row)


def staged(session: Session, table: str) -> set[str]:
    """Ids of the alarms, or interests, that a tick has set so far by its files."""
    writes = (write for write in session.gathered if isinstance(write, Insert) and write.table == table)
    return {str(write.row["id"]) for write in writes}


async def afford(unit: UnitOfWork, table: str, agent: str, ids: Collection[str], most: int = MAX_ALARMS) -> None:
    """Whether an agent may have these besides what it has; rows that they replace do not count.

    Args:
        unit: the database.
        table: `alarm` or `interest`.
        agent: whose they are to be.
        ids: those that are to be set.
        most: how many there may be.

    Raises:
        InvalidInput: they are too many.
    """
    have = await unit.count(table, {"agent": agent}, limit=most + 1)
    if have + len(ids) <= most:
        return
    known = await unit.count(table, {"agent": agent, "id": Among(tuple(ids))})
    if have + len(ids) - known > most:
        raise InvalidInput(f"An agent has at most {most} of these ({table}).")


def following(row: Row, now_ms: int) -> tuple[int | None, int]:
    """When an alarm that is due comes again, after now; and how many times between are left out. None: never.

    Raises:
        InvalidInput: its time zone is not known any more.
    """
    due: int = row["due_ms"]
    if row["kind"] == EVERY:
        skipped = (now_ms - due) // row["every_ms"]
        after = due + (skipped + 1) * row["every_ms"]
        return (after if after < LAST_MS else None), min(skipped, MOST_MISSED)
    if row["kind"] == CRON:
        rule = read_cron(row["cron"])
        return rule.after(now_ms), rule.between(due, now_ms, _COUNTED)
    return None, 0


def fire(row: Row, now_ms: int, *, waits: bool, name: str = "") -> tuple[Write, ...]:
    """Writes for an alarm that is due. They conflict if somebody else fired or changed it meanwhile.

    Args:
        row: the alarm.
        now_ms: Unix ms.
        waits: whether the envelope of its last time still waits: then this time is only counted.
        name: of the envelope, if that of its time is known in the inbox already.

    Raises:
        InvalidInput: as `following`.
    """
    after, skipped = following(row, now_ms)
    where = {"agent": row["agent"], "id": row["id"], "due_ms": row["due_ms"]}
    missed = min(row["missed"] + skipped, MOST_MISSED)
    if waits and after is not None:
        return (Update(TABLE, where, set={"due_ms": after, "missed": min(missed + 1, MOST_MISSED)}),)
    moved: Write = Delete(TABLE, where, rows=1)
    if after is not None:
        moved = Update(TABLE, where, set={"due_ms": after, "fired_ms": row["due_ms"], "missed": 0})
    return moved, ring(row, now_ms, missed, name)


def envelope_id(alarm: str, due_ms: int, again: int = 0) -> str:
    """The name of what an alarm puts into the inbox for one of its times.

    `again` is a number that makes another one of it, for an alarm that is set anew for a time for which it has fired.
    """
    return f"alarm:{alarm}:{due_ms}" + (f":{again}" if again else "")


def envelope_ids(alarm: str, due_ms: int) -> Within:
    """All names that `envelope_id` makes for this time, and none of another one: times of today have as many digits."""
    name = envelope_id(alarm, due_ms)
    return Within(name, name + ";")  # the sign after `:`


def ring(row: Row, now_ms: int, missed: int, name: str = "") -> Insert:
    """The trigger itself; a conflict if its `name` is known (empty: that of its time).

    Times in it are Unix seconds; `due_ms` is the exact one.
    Its sender is the alarm, so that each keeps an order of its own: one that fails holds back no other.
    """
    name = name or envelope_id(row["id"], row["due_ms"])
    told = {
        "alarm_id": row["id"],
        "scheduled_at": row["due_ms"] // 1000,
        "fired_at": now_ms // 1000,
        "due_ms": row["due_ms"],
        "missed": missed,
        "payload": orjson.loads(row["payload"]),
    }
    return envelope(
        row["agent"], name, cause="alarm", source="scheduler", sender=row["id"],
        payload=orjson.dumps(told).decode(), at=now_ms // 1000,
    )  # fmt: skip
