"""The judge: one pure function says whether an intent may begin. No clock, no I/O, no second path (DESIGN §5).

Shape comes before authority, authority before what exists, the cheap before the costly. All that the judgement
rests on is in `Facts`, so that the ledger can record it and a replay can judge again.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from core.effect import Intent
from core.money import Money
from node.gate.limits import Limits
from node.gate.writ import Writ

MAX_KEY, MAX_SUBJECT, MAX_PATH = 256, 256, 512
_CALLER = re.compile(r"operator|node|agent:[A-Za-z0-9][A-Za-z0-9._-]{0,63}|customer:[0-9a-f]{64}")
_SEGMENT = re.compile(r"[^/\x00-\x1f\x7f]+")


class Reason(StrEnum):
    """Why an intent may not begin."""

    INVALID = "invalid"
    AUTHORITY = "authority"
    PAUSED = "paused"
    DISK = "disk"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a budget holds and has spent; `unit` is the budget's own."""

    unit: str
    held: int
    spent: int

    @property
    def used(self) -> int:
        """What is not free any more."""
        return self.held + self.spent


@dataclass(frozen=True, slots=True)
class Facts:
    """What the judge knows beside the intent. `now` is in Unix seconds; `day` is None while the day's budget is new.

    `full`: the disk is nearly full, and what is left of it is for what was begun.
    """

    now: int
    paused: bool
    day: Usage | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class Allow:
    """It may begin, and holds that much of the day's budget; None if it can cost nothing."""

    hold: Money | None


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not begin."""

    reason: Reason
    message: str


Decision: TypeAlias = Allow | Deny


@lru_cache(1_024)
def _canonical(path: str) -> bool:
    if len(path) > MAX_PATH or not path.startswith("/"):
        return False
    return all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in path[1:].split("/"))


def _shape(intent: Intent) -> str | None:
    if _CALLER.fullmatch(intent.caller) is None:
        return "The caller is neither operator, node, agent:<name> nor customer:<pubkey>."
    if not _canonical(intent.path):
        return "The path is not canonical."
    if not 1 <= len(intent.key) <= MAX_KEY:
        return f"An idempotency key has 1 to {MAX_KEY} characters."
    if not 1 <= len(intent.subject) <= MAX_SUBJECT:
        return "The intent does not say what it is about."
    if intent.reserve is not None and intent.reserve.value < 0:
        return "A reservation is not negative."
    return None


def over_budget(amount: Money, used: Usage | None, limit: Money, name: str) -> str | None:
    """Why an amount does not fit under a limit beside what is used; None if it does."""
    if amount.unit != limit.unit:
        return f"The amount is in {amount.unit}, and the {name} limit in {limit.unit}."
    if used is not None and used.unit != limit.unit:
        return f"Today's {name} budget is kept in {used.unit}; one in {limit.unit} begins tomorrow (UTC)."
    free = limit.value - (used.used if used is not None else 0)
    if amount.value > free:
        return f"{amount.value} {amount.unit} is more than the {max(0, free)} left of the {name} limit."
    return None


def judge(intent: Intent, writ: Writ, limits: Limits, facts: Facts) -> Decision:
    """Whether it may begin."""
    if message := _shape(intent):
        return Deny(Reason.INVALID, message)
    if message := writ.refusal(intent.caller, "write", intent.path, intent.effect, facts.now):
        return Deny(Reason.AUTHORITY, message)
    if facts.paused:
        return Deny(Reason.PAUSED, "The node is paused: no new effects are begun.")
    if facts.full:
        return Deny(Reason.DISK, "The disk is nearly full: no new effects are begun.")
    if intent.reserve is None:
        return Allow(None)
    if message := over_budget(intent.reserve, None, limits.per_job, "per-job"):
        return Deny(Reason.BUDGET, message)
    if message := over_budget(intent.reserve, facts.day, limits.per_day, "daily"):
        return Deny(Reason.BUDGET, message)
    return Allow(intent.reserve if intent.reserve else None)
