"""What is deleted when, as data: one line for every table of the database. Pure; `step.py` and `service.py` act on it.

A table is either kept, or somebody else's to keep small, or has rules. A rule reads what is old by an index, a page at
a time, so that its cost does not depend on how long the table is. Money is one case of its own: rows of an effect go
together with it, when it has ended, is old, and nothing of its money is open (`node/retention/family.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from core.unit import Among, Condition, Row

DAY_S = 86_400
BROUGHT_AGAIN_S = 4 * DAY_S
"""For so long an id that has ended is kept however many there are. Relays are read two days back, since the time on a
wrapped message may be so much too early (NIP-59), and may have been away meanwhile; its id is what it is known by."""
ENDED = Among(("done", "dropped", "expired", "discarded"))
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Scale(StrEnum):
    """What a column of times counts."""

    SECONDS = "s"
    MILLIS = "ms"


@dataclass(frozen=True, slots=True)
class Aged:
    """Rows that an index finds by their age.

    Attributes:
        table: where.
        key: what names a row.
        column: its age; an index begins with it, or with the columns of `where` and then it.
        days: the setting.
        where: which rows may go at all.
        rows: the setting for how many may stay, whatever their age; "" for any number.
        more_days: on top of the setting.
        spared_s: seconds for which a row stays even if there are too many.
    """

    table: str
    key: tuple[str, ...]
    column: str
    days: str
    where: Mapping[str, Condition] = field(default_factory=dict)
    scale: Scale = Scale.SECONDS
    rows: str = ""
    more_days: int = 0
    spared_s: int = 0


@dataclass(frozen=True, slots=True)
class Numbered:
    """Rows with a rising number `n`: the lowest are the oldest. The newest stays, or its number would come again.

    Attributes:
        column: its time; "" if only the number of rows counts.
    """

    table: str
    column: str
    days: str
    scale: Scale = Scale.SECONDS
    rows: str = ""


@dataclass(frozen=True, slots=True)
class Blanked:
    """Rows that stay, and lose one long column. How far it came is remembered (`meta`, key `retention/<table>`)."""

    table: str
    column: str
    blank: str
    days: str
    where: Mapping[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Walked:
    """Rows of a small table without an index by age: it is read from its beginning to its end, a page at a time.

    Attributes:
        key: the primary key, in its order.
        decide: which of a page may go; `judge` knows it by this name.
    """

    table: str
    key: tuple[str, ...]
    decide: str
    days: str
    where: Mapping[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """Effects with everything that names them. `money`: also those that moved some.

    Attributes:
        days: the setting.
    """

    days: str
    money: bool


Rule: TypeAlias = Aged | Numbered | Blanked | Walked | Family

RULES: tuple[Rule, ...] = (
    Blanked("inbox", "ended_at", "payload", "inbox_payload_days", {"state": ENDED}),
    Aged("inbox", ("n",), "ended_at", "inbox_days", {"state": ENDED}, rows="inbox_rows", spared_s=BROUGHT_AGAIN_S),
    Walked("inbox", ("agent", "n"), "dead", "dead_days", {"state": "dead"}),
    Numbered("tick", "at_ms", "tick_days", Scale.MILLIS, "tick_rows"),
    Numbered("recording", "at_ms", "recording_days", Scale.MILLIS, "recording_rows"),
    Aged("blob", ("digest",), "at", "recording_days", more_days=1),  # `at` is at most a day before its last use
    Numbered("log", "at_ms", "log_days", Scale.MILLIS, "log_rows"),
    Aged(
        "message", ("agent", "id"), "changed_ms", "message_days",
        {"state": Among(("sent", "failed", "seen", "received", "dropped"))}, Scale.MILLIS,
    ),
    Aged("outbox", ("event_id", "relay"), "next_at_ms", "outbox_days", {"state": "sent"}, Scale.MILLIS),
    Aged("outbox", ("event_id", "relay"), "next_at_ms", "outbox_days", {"state": "refused"}, Scale.MILLIS),
    Family("free_days", money=False),
    Family("effect_days", money=True),
    Numbered("rate", "taken_at", "rate_days"),
    Walked("budget", ("name",), "budget", "budget_days"),
    Walked("relay_list", ("pubkey", "kind"), "relay_list", "relay_list_days"),
    Walked("identity", ("name", "epoch"), "identity", "identity_days", {"state": "retired"}),
    Walked("seen", ("event_id",), "seen", "inbox_days"),
    Walked("receipt", ("y",), "receipt", "receipt_days"),
)  # fmt: skip

FAMILY = ("effect", "purchase", "sale", "tip", "operation", "posting", "proof")
"""Tables whose rows go with their effect."""

KEPT: Mapping[str, str] = {
    "entry": "the ledger: it is never shortened, or nobody could verify it",
    "meta": "facts about the node",
    "counter": "never lowered: a counter that is used twice hands out a coin twice",
    "hold": "gone when its effect is settled",
    "cursor": "one row for each relay and subscription",
    "relay_payment": "a token counts once",
    "deposit": "one row for each deposit; who opens one pays a mint's fees",
    "lightning": "a payment hash is paid once; one row for each payment and invoice",
    "agent": "a name that was deleted is not used again",
    "item": "what an agent keeps; bounded by its own limit",
    "alarm": "an agent's; bounded by its own limit",
    "interest": "an agent's; bounded by its own limit",
    "hook": "an agent's way in, until it is taken away",
    "goal": "an agent's, until it is taken away",
    "secret": "an agent's or the node's, until it is taken away; bounded (node/secret/safe.py)",
    "mark": "an agent's; the oldest go when there are too many (node/agent)",
    "announcement": "the newest of each seller; bounded (dvm/discovery.py)",
    "handled": "as far back as relays are read (relays/handled.py)",
    "relay_fact": "one row for each relay (relays/fact.py)",
    "lease": "one row for each office (node/storage/lease.py)",
}
"""Tables without rules, and why."""


def cutoff(now_ms: int, days: int, scale: Scale, more_days: int = 0) -> int:
    """The time before which a row is old, in the column's own scale."""
    before = now_ms - (days + more_days) * DAY_S * 1000
    return before if scale is Scale.MILLIS else before // 1000


def judge(name: str, row: Row, before_s: int, today: str) -> bool:
    """Whether a row of a walked table may go.

    Args:
        name: the rule's `decide`.
        row: the row.
        before_s: Unix seconds before which it is old.
        today: the date before which it is old, as YYYY-MM-DD.
    """
    match name:
        case "dead":
            # What died long after it came, as by a restore, has its time from then: `next_at_ms` says when it did.
            return max(int(row["at"]), int(row["next_at_ms"]) // 1000) < before_s
        case "budget":
            date = _DATE.search(str(row["name"]))
            return row["held"] == 0 and date is not None and date[0] < today
        case "relay_list":
            return int(row["fetched_at"]) < before_s
        case "identity":
            return row["retired_at"] is not None and int(row["retired_at"]) < before_s
        case "seen":
            return int(row["at"]) < before_s
        case "receipt":
            return int(row["created_at"]) < before_s
    raise ValueError(f"no rule is called {name!r}")


def shown(settings: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every table, and what goes of it when, for people."""
    found = [{"table": table, "kept": why} for table, why in KEPT.items()]
    for rule in RULES:
        tables = FAMILY if isinstance(rule, Family) else (rule.table,)
        about: dict[str, Any] = {"after_days": settings[rule.days] or None}
        if isinstance(rule, Aged | Numbered) and rule.rows:
            about["most_rows"] = settings[rule.rows] or None
        if isinstance(rule, Blanked):
            about["loses"] = rule.blank
        if isinstance(rule, Family):
            about["only"] = "closed effects that moved money" if rule.money else "closed effects that moved none"
        found += [{"table": table, **about} for table in tables]
    return sorted(found, key=lambda one: str(one["table"]))
