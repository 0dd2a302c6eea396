"""Which writes go together: those, and only those, whose order cannot matter."""

import pytest

from core.unit import Among, Delete, Insert, Update
from node.storage.postgres_plan import planned
from node.storage.postgres_statement import op
from node.storage.postgres_wave import judged, together, waves_of


def seen(name, **how):
    return Insert("seen", {"event_id": name, "at": 0}, **how)


def mark(name, **how):
    return Insert("mark", {"agent": "a", "id": name}, **how)


def rate(**more):
    return Insert("rate", {"micro_usd": 1, "msat": 1, "taken_at": 1, "source": "", **more})


def changed(name, at=1):
    return Update("seen", {"event_id": name}, set={"at": at})


def shape(*units):
    """How many writes each wave has."""
    waves = waves_of((number, [op(write, 0) for write in unit]) for number, unit in enumerate(units))
    return [sum(len(ops) for ops in wave.ops.values()) for wave in waves]


def wave_of(writes):
    (wave,) = waves_of([(0, [op(write, 0) for write in writes])])
    return wave


TRIGGER = {"agent": "a", "envelope_id": "1", "cause": "m", "source": "", "sender": "", "payload": "", "at": 0}
TOGETHER = [
    [seen("a"), seen("b")],
    [seen("a"), changed("b")],
    [changed("a"), changed("b"), changed("c")],
    [seen("a", or_ignore=True), seen("a", or_ignore=True)],
    [seen("a"), mark("a"), Update("budget", {"name": "day"}, add={"held": 1})],
    [Delete("seen", {"event_id": "a"}, rows=1), Delete("seen", {"event_id": "b"}, rows=1)],
    [Delete("seen", {"at": 5}), mark("a"), mark("b")],
    [rate(n=5), rate(n=6)],
]
APART = [
    [seen("a"), seen("a")],
    [seen("a", or_ignore=True), seen("a")],
    [seen("a"), seen("a", or_ignore=True)],
    [seen("a"), changed("a")],
    [changed("a"), changed("a")],
    [Delete("seen", {"event_id": "a"}, rows=1), seen("b")],
    [seen("b"), Delete("seen", {"event_id": "a"}, rows=1)],
    [changed("b"), Delete("seen", {"event_id": "a"}, rows=1)],
    [Delete("seen", {"at": 5}), seen("a")],
    [seen("a"), Update("seen", {"at": 5}, set={"at": 6}, rows=None)],
    [seen("a"), Update("seen", {"event_id": "b"}, set={"event_id": "c"})],
    [seen("a"), Update("seen", {"event_id": Among(("b", "c"))}, set={"at": 1}, rows=2)],
    [mark("a"), mark("b", or_ignore=True)],  # their numbers would not be in their order
    [rate(), rate(n=5)],
    [rate(n=5), rate()],
    [Update("entry", {"id": "x"}, set={"type": "t"}), Update("entry", {"run": "r", "seq": 1}, set={"type": "t"})],
]


@pytest.mark.parametrize("writes", TOGETHER, ids=str)
def test_writes_of_different_rows_are_one_wave(writes):
    assert shape(writes) == [len(writes)]
    assert shape(*([write] for write in writes)) == [len(writes)]


@pytest.mark.parametrize("writes", APART, ids=str)
def test_writes_whose_order_may_matter_are_waves_of_their_own(writes):
    assert shape(writes) == [1, 1]


def test_the_order_is_kept_over_waves():
    assert shape([seen("a"), mark("a")], [changed("a"), mark("b")], [seen("c"), changed("c")]) == [2, 3, 1]


def test_the_text_of_a_wave_does_not_depend_on_the_order_of_its_writes():
    one, other = (wave_of(writes) for writes in ([seen("a"), mark("b")], [mark("c"), seen("d")]))
    assert together(one.forms, True, "") is together(other.forms, True, "")


def test_what_is_refused_can_be_asked_for_unless_rows_are_not_known_by_their_keys():
    assert judged(wave_of((seen("a"), Delete("mark", {"agent": "x"}, rows=2)))) is None
    assert judged(wave_of((seen("a", or_ignore=True), Delete("mark", {"agent": "x"})))) == ()
    found = judged(wave_of((seen("a"), mark("b", or_ignore=True))))
    assert [form.table for form in found or ()] == ["seen"]


@pytest.mark.parametrize(
    "write",
    [
        seen("a"),
        seen("ü\0"),
        mark("a", or_ignore=True),
        rate(n=5),
        rate(n=None),
        Insert("inbox", TRIGGER),
        Insert("inbox", {**TRIGGER, "ended_at": None, "state": "done"}),
        changed("a"),
        Update("inbox", {"n": 1, "state": "new"}, set={"state": "done", "ended_at": None}, add={"tries": 1}),
        Update("budget", {"name": "b"}, set={"spent": 1}, add={"held": 1}, ceiling=(("held", "spent"), "ceiling")),
        Delete("inbox", {"agent": "a", "envelope_id": "1", "ended_at": None}, rows=1),
    ],
    ids=str,
)  # fmt: skip
def test_a_planned_write_is_the_one_that_is_made_in_full(write):
    assert planned(write, 3) == planned(write, 3) == op(write, 3)
