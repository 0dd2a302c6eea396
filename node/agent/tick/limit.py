"""What an agent may use: ticks per minute, compute per day, bytes kept. Pure.

A limit that is reached stops nothing half way and loses nothing: triggers wait until it renews. The counts stand in the
agent's row and change with its ticks. Ticks per minute are counted by one number (GCRA): the time at which all of them
would be there again. Days are UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from core.error import InvalidInput
from core.unit import Row

RATE, COMPUTE, STORAGE = "ticks_per_minute", "compute_per_day", "storage"
NEAR = 0.8
"""From this part of a limit on the agent is told, once."""

_MINUTE_US = 60_000_000
_DAY_US = 86_400_000_000
_FAR = 0.5  # once the ticks of the last minute are below this part, being near is news again
_RATE_NEAR, _COMPUTE_NEAR, _STORAGE_NEAR, _RATE_REACHED, _COMPUTE_REACHED = 1, 2, 4, 8, 16
STORAGE_REACHED = 32
"""In `warned`: a trigger waits because the agent would keep too much. The next tick that is committed takes it away."""


@dataclass(frozen=True, slots=True)
class TickLimits:
    """Bounds of every tick, and of each agent that has no others.

    Attributes:
        seconds: how long a tick may take.
        grace_s: how long code that was told to end may go on, before it counts as stuck.
        blocked_ms: code that holds the loop for longer at a time is reported.
        tries: how often a trigger is tried before it is dead.
        away_tries: the same where the agent lives outside and does not answer.
        back_off_ms: the wait after the first failure; doubled after each more.
        pause_ms: the wait while the node is paused; this is no failure.
        full_ms: the wait of a trigger for which the agent keeps too much; no failure either.
        quarantine: after so many failed ticks in a row the agent is set aside.
        parallel: how many agents compute at once.
        open: how many ticks are open at once, with those that wait for something outside.
        in_a_row: how many ticks an agent has before others get a turn.
        state_bytes: how long an agent's state may be, as JSON.
        per_minute: ticks; 0 is no limit, here and below.
        compute_s: seconds a day in which its code holds the loop, or works elsewhere.
        storage_bytes: state, kept values (the files in `/memory` too) and goals together.
    """

    seconds: float = 30.0
    grace_s: float = 2.0
    blocked_ms: int = 250
    tries: int = 5
    away_tries: int = 15
    back_off_ms: int = 500
    pause_ms: int = 2_000
    full_ms: int = 60_000
    quarantine: int = 15
    parallel: int = 32
    open: int = 1_024
    in_a_row: int = 16
    state_bytes: int = 262_144
    per_minute: int = 6_000
    compute_s: int = 3_600
    storage_bytes: int = 104_857_600


class Bounds(NamedTuple):
    """What one agent may use."""

    seconds: float
    per_minute: int
    compute_us: int
    storage_bytes: int


@dataclass(frozen=True, slots=True)
class Own:
    """What an agent has instead of the node's limits; None is the node's."""

    seconds: float | None = None
    per_minute: int | None = None
    compute_s: int | None = None
    storage_bytes: int | None = None

    def to_json(self) -> str:
        """As it stands in the agent's row."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return orjson.dumps({name: value for name, value in named.items() if value is not None}).decode()


@lru_cache(1_024)
def bounds(own: str, limits: TickLimits) -> Bounds:
    """What an agent may use, from the `limits` of its row.

    Raises:
        InvalidInput: they are none.
    """
    try:
        one = Own(**orjson.loads(own))
    except (TypeError, ValueError) as error:
        raise InvalidInput("These are no limits of an agent.") from error
    return Bounds(
        limits.seconds if one.seconds is None else one.seconds,
        limits.per_minute if one.per_minute is None else one.per_minute,
        (limits.compute_s if one.compute_s is None else one.compute_s) * 1_000_000,
        limits.storage_bytes if one.storage_bytes is None else one.storage_bytes,
    )


class Reached(NamedTuple):
    """A limit that an agent has reached. `until_ms`: when it renews (Unix ms)."""

    limit: str
    until_ms: int
    told: int  # the bit that says that it was told


def reached(row: Row, own: Bounds, now_us: int) -> Reached | None:
    """The limit that keeps an agent from its next tick, or None."""
    if own.compute_us and row["day_us"] >= own.compute_us and row["day"] == now_us // _DAY_US:
        return Reached(COMPUTE, (row["day"] + 1) * _DAY_US // 1_000, _COMPUTE_REACHED)
    if own.per_minute:
        step = _MINUTE_US // own.per_minute
        ready = (
            min(row["rate_us"], now_us + _MINUTE_US) + step - _MINUTE_US
        )  # a clock that was set back holds up nobody
        if ready > now_us:
            return Reached(RATE, -(-ready // 1_000), _RATE_REACHED)
    return None


class Charge(NamedTuple):
    """What a tick changes in its agent's row, and of which limits the agent is to be told: (limit, used part)."""

    day: int
    day_us: int
    rate_us: int
    warned: int
    near: tuple[tuple[str, float], ...]


def charged(row: Row, own: Bounds, now_us: int, compute_us: int, stored: int, *, failed: bool = False) -> Charge:
    """A tick is counted. `stored` is what the agent keeps after it, in bytes."""
    day, warned, rate_us = now_us // _DAY_US, row["warned"], 0
    if not failed:
        warned &= ~STORAGE_REACHED
    if day == row["day"]:
        day_us = row["day_us"] + compute_us
    else:
        day_us, warned = compute_us, warned & ~(_COMPUTE_NEAR | _COMPUTE_REACHED)
    near: tuple[tuple[str, float], ...] = ()
    if own.per_minute:
        rate_us = min(max(row["rate_us"], now_us), now_us + _MINUTE_US) + _MINUTE_US // own.per_minute
        part = (rate_us - now_us) / _MINUTE_US
        if part >= NEAR and not warned & _RATE_NEAR:
            warned, near = warned | _RATE_NEAR, (*near, (RATE, part))
        elif part < _FAR:
            warned &= ~(_RATE_NEAR | _RATE_REACHED)
    if own.compute_us and day_us >= NEAR * own.compute_us and not warned & _COMPUTE_NEAR:
        warned, near = warned | _COMPUTE_NEAR, (*near, (COMPUTE, day_us / own.compute_us))
    if own.storage_bytes:
        if stored < NEAR * own.storage_bytes:
            warned &= ~_STORAGE_NEAR
        elif not warned & _STORAGE_NEAR:
            warned, near = warned | _STORAGE_NEAR, (*near, (STORAGE, stored / own.storage_bytes))
    return Charge(day, day_us, rate_us, warned, near)


def shown(row: Row, own: Bounds, now_us: int) -> dict[str, Any]:
    """What is used of each limit, and which one keeps the agent waiting until when, for `/status`."""
    today = row["day_us"] if row["day"] == now_us // _DAY_US else 0
    rate = min(max(0, row["rate_us"] - now_us), _MINUTE_US)
    found = reached(row, own, now_us)
    if found is not None:
        limited: dict[str, Any] | None = {"limit": found.limit, "until_ms": found.until_ms}
    elif own.storage_bytes and row["warned"] & STORAGE_REACHED:
        limited = {"limit": STORAGE, "until_ms": None}  # until the agent keeps less, or may keep more
    else:
        limited = None
    per_minute = round(rate * own.per_minute / _MINUTE_US) if own.per_minute else None
    return {
        "limits": {
            RATE: _used(per_minute, own.per_minute),
            COMPUTE: {**_used(today // 1_000, own.compute_us // 1_000), "unit": "ms"},
            STORAGE: {**_used(row["stored"], own.storage_bytes), "unit": "bytes"},
        },
        "limited": limited,
    }


def _used(used: int | None, most: int) -> dict[str, Any]:
    return {"used": used, "limit": most or None}


def full(own: Bounds, before: int, after: int) -> bool:
    """Whether an agent would keep more than it may. One that keeps too much already may keep less."""
    return bool(own.storage_bytes) and after > own.storage_bytes and after > before


def mapping(value: Mapping[str, Any]) -> str:
    """Limits of an agent's own, as its row has them.

    Raises:
        InvalidInput: they are none.
    """
    try:
        return Own(**value).to_json()
    except TypeError as error:
        raise InvalidInput("These are no limits of an agent.") from error
