"""What wakes agents: the order of an inbox, cron's times and patterns of events, against plain models of each."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from core.unit import Row
from node.agent.inbox.row import arrange, line_of
from node.agent.wake.cron import read_cron
from node.agent.wake.interest import names_for, read_pattern

NOW = 1_000

# --- the order of an inbox


@st.composite
def waiting(draw: st.DrawFn) -> list[Row]:
    """Rows as the database hands them over: by priority, then by number."""
    count = draw(st.integers(0, 12))
    rows = [
        {
            "n": n,
            "priority": draw(st.sampled_from([0, 0, 0, 1, -1])),
            "source": draw(st.sampled_from(["nostr", "web"])),
            "sender": draw(st.sampled_from("abc")),
            "seq": draw(st.none() | st.integers(0, 5)),
            "written_at": draw(st.integers(0, 5)),
            "next_at_ms": draw(st.sampled_from([0, 0, 0, NOW, NOW + 1, NOW + 50, NOW + 5_000])),
            "expires_at": draw(st.sampled_from([None, None, None, 1, 2])),
        }
        for n in range(1, count + 1)
    ]
    return sorted(rows, key=lambda row: (row["priority"], row["n"]))


def turn(row: Row) -> tuple[int, int]:
    return (row["seq"] if row["seq"] is not None else row["written_at"]), row["n"]


@given(waiting())
def test_a_line_keeps_its_order_and_only_a_line_waits_for_its_own_retry(rows: list[Row]) -> None:
    found = arrange(rows, NOW)
    late = [row for row in rows if row["expires_at"] is not None and row["expires_at"] * 1000 <= NOW]
    assert found.late == late
    lines: dict[Any, list[Row]] = {}
    for row in rows:
        if row not in late:
            lines.setdefault(line_of(row), []).append(row)
    held = []
    for line, members in lines.items():
        ordered = sorted(members, key=turn)
        first_held = next((place for place, row in enumerate(ordered) if row["next_at_ms"] > NOW), len(ordered))
        assert [row for row in found.due if line_of(row) == line] == ordered[:first_held]
        for row in ordered[
            first_held : first_held + 1
        ]:  # it is tried again, or too late and holds back nobody any more
            held += [row["next_at_ms"], *([] if row["expires_at"] is None else [row["expires_at"] * 1000])]
    assert found.again_ms == (min(held) if held else None)
    assert [row["priority"] for row in found.due] == sorted(row["priority"] for row in found.due)


@given(waiting())
def test_lines_take_turns_as_their_messages_came(rows: list[Row]) -> None:
    plain = [{**row, "seq": None, "written_at": 0, "next_at_ms": 0, "expires_at": None} for row in rows]
    assert arrange(plain, NOW).due == plain


# --- cron

Matches = Callable[[int], bool]


@st.composite
def cron_field(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """A field in cron's words, and the numbers that it means."""
    first, last = sorted((draw(st.integers(low, high)), draw(st.integers(low, high))))
    step = draw(st.integers(1, 7))
    whole = range(low, high + 1)
    return draw(
        st.sampled_from(
            [
                ("*", frozenset(whole)),
                (str(first), frozenset({first})),
                (f"{first}-{last}", frozenset(range(first, last + 1))),
                (f"*/{step}", frozenset(whole[::step])),
                (f"{first}-{last}/{step}", frozenset(range(first, last + 1, step))),
                (f"{first},{last}", frozenset({first, last})),
            ]
        )
    )


@given(
    cron_field(0, 59),
    cron_field(0, 23),
    cron_field(0, 6),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_the_next_time_of_a_rule_is_the_first_minute_that_fits_it(
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    weekday: tuple[str, frozenset[int]],
    start: datetime,
) -> None:
    rule = read_cron(f"{minute[0]} {hour[0]} * * {weekday[0]}")
    start_ms = int(start.timestamp() * 1000)
    at = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while at.isoweekday() % 7 not in weekday[1]:
        at = at.replace(hour=0, minute=0) + timedelta(days=1)
    while not (at.minute in minute[1] and at.hour in hour[1] and at.isoweekday() % 7 in weekday[1]):
        at += timedelta(minutes=1)
    assert rule.after(start_ms) == int(at.timestamp() * 1000)


@given(st.text("0123456789*/,-#LWMONFRIJAN@CRON_TZ=Europe/Zurich ", max_size=60), st.integers(0, 4_102_444_800_000))
def test_any_text_is_a_rule_whose_times_rise_or_is_refused(text: str, at_ms: int) -> None:
    try:
        rule = read_cron(text)
    except InvalidInput:
        return
    found = rule.after(at_ms)
    assert found is None or found > at_ms
    assert read_cron(str(rule)) == rule


# --- patterns

plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
value = plain | st.text(max_size=8)
names = st.text("abcxyz", min_size=1, max_size=4)
data = st.recursive(
    value, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
)
body = st.dictionaries(names, data, max_size=6)


def event(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "t.u", "source": "s", "subject": "x", "data": fields}


def leaves(fields: dict[str, Any], path: str = "data") -> list[tuple[str, Any]]:
    found = []
    for name, one in fields.items():
        if isinstance(one, dict):
            found += leaves(one, f"{path}.{name}")
        elif not isinstance(one, list):
            found.append((f"{path}.{name}", one))
    return found


@given(body, st.data())
def test_a_pattern_of_an_events_own_values_matches_it_and_with_one_other_value_does_not(
    fields: dict[str, Any], draw: st.DataObject
) -> None:
    own = [(path, one) for path, one in leaves(fields) if path.count(".") < 8][:16]
    chosen = dict(
        draw.draw(st.lists(st.sampled_from(own), max_size=4, unique_by=lambda leaf: leaf[0]) if own else st.just([]))
    )
    assert read_pattern(orjson.dumps(chosen).decode()).matches(event(fields))
    if chosen:
        path = draw.draw(st.sampled_from(sorted(chosen)))
        other = {**chosen, path: "something else"}
        assert not read_pattern(orjson.dumps(other).decode()).matches(event(fields))
        assert read_pattern(orjson.dumps({path: ["else", chosen[path]]}).decode()).matches(event(fields))


@given(body, names, st.integers(-100, 100), st.integers(-100, 100))
def test_bounds_hold_numbers_and_nothing_else(fields: dict[str, Any], name: str, low: int, high: int) -> None:
    pattern = read_pattern(orjson.dumps({f"data.{name}": {"min": low, "max": high}}).decode())
    one = fields.get(name)
    is_number = isinstance(one, int | float) and not isinstance(one, bool)
    assert pattern.matches(event(fields)) is (is_number and low <= one <= high)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | data.map(orjson.dumps), body)
def test_whatever_is_given_as_a_pattern_is_refused_or_compares(raw: bytes, fields: dict[str, Any]) -> None:
    try:
        pattern = read_pattern(raw.decode("utf-8", "replace"))
    except InvalidInput:
        return
    assert pattern.matches(event(fields)) in (True, False)


@given(st.lists(st.text("abc_-0", min_size=1, max_size=3), min_size=1, max_size=6))
def test_the_names_that_hear_an_event_are_its_beginnings(words: list[str]) -> None:
    event_type = ".".join(words)
    heard = names_for(event_type)
    assert len(set(heard)) == len(heard) == len(words) + 1
    assert all(name in (event_type, "*") or event_type.startswith(name.removesuffix("*")) for name in heard)
