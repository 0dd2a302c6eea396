"""What every `UnitOfWork` does: one suite for all of `tests.unit_part.ENGINES`."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import Conflict, Unavailable
from core.unit import Among, Append, Delete, Insert, Update, Within
from node.storage.chain import Head, unsigned_seal
from node.storage.error import BadWrite
from tests.unit_part import ENGINES, EVERY, Base

CEILING = (("held", "spent"), "ceiling")


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


def seen(name: str, at: int = 0) -> Insert:
    return Insert("seen", {"event_id": name, "at": at})


def budget(name: str = "day", ceiling: int = 100, **more: int) -> Insert:
    return Insert("budget", {"name": name, "unit": "msat", "ceiling": ceiling, **more})


async def test_a_row_that_was_committed_is_found_with_its_defaults(unit: Base) -> None:
    await unit.commit([Insert("outbox", {"event_id": "e", "relay": "ws://r", "raw": "{}", "effect_id": "x"})])
    assert await unit.select("outbox", {"event_id": "e"}) == [
        {
            "event_id": "e", "relay": "ws://r", "raw": "{}", "effect_id": "x",
            "state": "pending", "tries": 0, "next_at_ms": 0, "reason": "",
        }
    ]  # fmt: skip


async def test_a_numbered_key_counts_up_and_may_be_chosen(unit: Base) -> None:
    row = {"micro_usd": 1, "msat": 2, "taken_at": 3, "source": "s"}
    await unit.commit([Insert("rate", row), Insert("rate", row | {"n": 7}), Insert("rate", row)])
    assert [found["n"] for found in await unit.select("rate", order=["n"])] == [1, 7, 8]


async def test_a_taken_key_is_a_conflict_that_names_table_and_write(unit: Base) -> None:
    await unit.commit([seen("a", 1)])
    with pytest.raises(Conflict) as caught:
        await unit.commit([seen("b"), seen("a", 2)])
    assert caught.value.context == {"table": "seen", "write": 1}
    assert await unit.select("seen") == [{"event_id": "a", "at": 1}]


async def test_a_second_unique_key_counts_as_well(unit: Base) -> None:
    row = {"agent": "a", "envelope_id": "1", "cause": "m", "source": "", "sender": "", "payload": "", "at": 0}
    await unit.commit([Insert("inbox", row)])
    with pytest.raises(Conflict):
        await unit.commit([Insert("inbox", row)])
    await unit.commit([Insert("inbox", row, or_ignore=True), Insert("inbox", row | {"agent": "b"})])
    assert len(await unit.select("inbox")) == 2


async def test_an_ignored_clash_leaves_the_row_that_is_there(unit: Base) -> None:
    await unit.commit([seen("a", 1)])
    await unit.commit([Insert("seen", {"event_id": "a", "at": 2}, or_ignore=True), seen("b")])
    assert await unit.select("seen", order=["event_id"]) == [{"event_id": "a", "at": 1}, {"event_id": "b", "at": 0}]


@pytest.mark.parametrize(
    "write",
    [
        Insert("seen", {"event_id": "a"}, or_ignore=True),
        Insert("seen", {"event_id": None, "at": 1}, or_ignore=True),
        Insert("seen", {"event_id": "a", "at": "soon"}),
        Insert("seen", {"event_id": "a", "at": 1.5}),  # what no type checker lets through
        Insert("seen", {"event_id": "a", "at": 1 << 63}),
        Insert("seen", {"event_id": "\ud800", "at": 1}),
        Insert("seen", {"event_id": "a", "at": 1, "more": 1}),
        Insert("nowhere", {}),
        Update("seen", {"nothing": 1}, set={"at": 1}),
        Update("seen", {"at": "x"}, set={"at": 1}),
        Update("seen", {}, add={"event_id": 1}),
        Update("seen", {}, set={"at": 1}, add={"at": 1}),
        Update("seen", {}, add={"at": 1 << 62}),
        Update("seen", {}, set={"at": 1}, ceiling=(("at",), "event_id")),
        Delete("seen", {"nothing": 1}),
        Delete("seen", {"event_id": Within(1)}),
        Delete("seen", {"at": Within(high="9")}),
        Delete("seen", {"at": Among(("x",))}),
        Delete("seen", {"event_id": "\ud800"}),
        Delete("seen", {"event_id": Among(("\ud800",))}),
        Delete("seen", {"event_id": Within("\ud800")}),
        Delete("proof", {"sealed": Within("x")}),
        Delete("inbox", {"state": "new' OR '1'='1"}),
        Delete("inbox", {"state": Among(("new", "x' OR ''='"))}),
        Delete("inbox", {"state": ""}),
        Delete("inbox", {"state": "n" * 25}),
        Update("inbox", {"n": 1}, set={"state": "Done"}),
    ],
    ids=str,
)
async def test_a_write_that_does_not_fit_the_schema_is_refused_and_changes_nothing(unit: Base, write: Insert) -> None:
    with pytest.raises(BadWrite):
        await unit.commit([seen("before"), write])
    assert await unit.select("seen") == []


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1])
async def test_what_is_too_large_is_refused_also_after_others_of_its_shape_that_were_not(
    unit: Base, number: int
) -> None:
    await unit.commit([seen("a", 1)])
    await unit.commit([Update("seen", {"event_id": "a", "at": 1}, set={"at": 2})])
    assert len(await unit.select("seen", {"at": 2})) == 1
    for write in (seen("b", number), Update("seen", {"event_id": "a", "at": 2}, set={"at": number}),
                  Update("seen", {"event_id": "a", "at": number}, set={"at": 3})):  # fmt: skip
        with pytest.raises(BadWrite):
            await unit.commit([write])
    with pytest.raises(BadWrite):
        await unit.select("seen", {"at": number})
    assert await unit.select("seen") == [{"event_id": "a", "at": 2}]


async def test_an_update_changes_exactly_the_rows_that_it_must(unit: Base) -> None:
    await unit.commit([seen("a", 1), seen("b", 1), seen("c", 2)])
    await unit.commit(
        [Update("seen", {"at": 1}, set={"at": 5}, rows=2), Update("seen", {"event_id": "c"}, add={"at": 3})]
    )
    assert [row["at"] for row in await unit.select("seen")] == [5, 5, 5]
    with pytest.raises(Conflict):
        await unit.commit([seen("d"), Update("seen", {"at": 5}, set={"at": 6}, rows=2)])
    with pytest.raises(Conflict):
        await unit.commit([seen("d"), Update("seen", {"at": 99}, set={"at": 6})])
    await unit.commit([Update("seen", {"at": 99}, set={"at": 6}, rows=None)])
    assert [row["at"] for row in await unit.select("seen")] == [5, 5, 5]


async def test_an_update_without_changes_is_a_condition(unit: Base) -> None:
    await unit.commit([seen("a", 1)])
    await unit.commit([Update("seen", {"event_id": "a", "at": 1}), Update("seen", {"at": 9}, rows=0)])
    with pytest.raises(Conflict):
        await unit.commit([Update("seen", {"event_id": "a", "at": 2})])


async def test_a_null_is_matched_by_null_alone(unit: Base) -> None:
    row = {"program": "p", "pubkey": "k", "status": "active", "state_version": 1, "state": "{}", "created_at": 0}
    await unit.commit([Insert("agent", {"name": "a", **row}), Insert("agent", {"name": "b", **row, "last_tick_at": 5})])
    assert [found["name"] for found in await unit.select("agent", {"last_tick_at": None})] == ["a"]
    assert [found["name"] for found in await unit.select("agent", {"last_tick_at": Within(0, 9)})] == ["b"]
    assert [found["name"] for found in await unit.select("agent", order=["-last_tick_at"])] == ["b", "a"]
    assert len(await unit.select("agent", {"last_tick_at": Among((None, 5))})) == 2
    await unit.commit(
        [Update("agent", {"last_tick_at": None}, set={"last_tick_at": 1}), Delete("agent", {"name": "b"})]
    )
    assert [found["last_tick_at"] for found in await unit.select("agent")] == [1]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (Update("budget", {"name": "day"}, add={"held": 60}, ceiling=CEILING), True),
        (Update("budget", {"name": "day"}, add={"held": 61}, ceiling=CEILING), False),
        (Update("budget", {"name": "day"}, set={"spent": 71}, add={"held": 30}, ceiling=CEILING), False),
        (Update("budget", {"name": "day"}, set={"ceiling": 161}, add={"held": 121}, ceiling=CEILING), True),
        (Update("budget", {"name": "day"}, set={"ceiling": 39}, ceiling=CEILING), False),
        (Update("budget", {"name": "day"}, add={"ceiling": -60, "held": 1}, ceiling=CEILING), False),
    ],
    ids=str,
)  # fmt: skip
async def test_a_ceiling_holds_after_the_change(unit: Base, change: Update, fits: bool) -> None:
    await unit.commit([budget(held=10, spent=30)])
    before = await unit.select("budget")
    if fits:
        await unit.commit([change])
        assert await unit.select("budget") != before
    else:
        with pytest.raises(Conflict):
            await unit.commit([change])
        assert await unit.select("budget") == before


async def test_a_null_ceiling_is_none(unit: Base) -> None:
    row = {
        "id": "e", "caller": "c", "path": "/", "key": "k", "digest": "d", "subject": "s", "effect": 1, "state": "begun",
        "begun_at": 1,
    }  # fmt: skip
    await unit.commit([Insert("effect", row)])
    await unit.commit([Update("effect", {"id": "e"}, add={"cost": 9}, ceiling=(("cost",), "ended_at"))])
    assert (await unit.select("effect"))[0]["cost"] == 9


async def test_a_delete_removes_exactly_the_rows_that_it_must(unit: Base) -> None:
    await unit.commit([seen("a", 1), seen("b", 1), seen("c", 2)])
    with pytest.raises(Conflict):
        await unit.commit([Delete("seen", {"at": 1}, rows=1)])
    await unit.commit([Delete("seen", {"at": 1}, rows=2), seen("a", 3)])
    assert await unit.select("seen", order=["at"]) == [{"event_id": "c", "at": 2}, {"event_id": "a", "at": 3}]


async def test_writes_of_one_unit_see_each_other_and_all_go_when_one_fails(unit: Base) -> None:
    await unit.commit([budget(), seen("kept", 1)])
    with pytest.raises(Conflict):
        await unit.commit(
            [
                Update("budget", {"name": "day"}, add={"held": 50}),
                Delete("seen", {"event_id": "kept"}),
                seen("new"),
                Append("run", "begin", "e", "{}"),
                Update("budget", {"name": "day", "held": 51}, add={"held": 1}),
            ]
        )
    assert (await unit.select("budget"))[0]["held"] == 0
    assert await unit.select("seen") == [{"event_id": "kept", "at": 1}]
    assert await unit.select("entry") == []
    await unit.commit(
        [Update("budget", {"name": "day"}, add={"held": 50}), Update("budget", {"held": 50}, add={"spent": 1})]
    )


async def test_entries_follow_each_other_in_their_runs_and_a_refused_unit_leaves_no_gap(unit: Base) -> None:
    def good(k: int) -> list[Insert | Append]:
        return [seen(f"g{k}"), Append("r", "begin", f"e{k}", "{}"), Append("other", "begin", f"e{k}", "{}")]

    def bad(k: int) -> list[Insert | Append]:
        return [Append("r", "begin", "lost", "{}"), seen("taken"), Append("r", "begin", "lost", "{}")]

    await unit.commit([seen("taken")])
    units = [unit.commit(bad(k) if k % 3 == 1 else good(k)) for k in range(30)]
    verdicts = await asyncio.gather(*units, return_exceptions=True)
    assert [isinstance(verdict, Conflict) for verdict in verdicts] == [k % 3 == 1 for k in range(30)]
    for run in ("r", "other"):
        entries = await unit.select("entry", {"run": run}, order=["seq"])
        assert [entry["seq"] for entry in entries] == list(range(20))
        assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]
        assert [entry["effect_id"] for entry in entries] == [f"e{k}" for k in range(30) if k % 3 != 1]


async def test_no_entry_is_there_before_the_one_before_it_while_units_come_and_some_are_refused(unit: Base) -> None:
    await unit.commit([seen("taken"), Append("r", "begin", "first", "{}")])
    going, refused = 24, 0
    choose = random.Random(3)

    async def worker(number: int) -> None:
        nonlocal going, refused
        for turn in range(40):
            effect = f"{number}-{turn}"
            try:
                if choose.random() < 0.1:
                    await unit.commit([Append("r", "begin", "lost", "{}"), seen("taken")])
                else:
                    await unit.commit([seen(effect), *(Append("r", "begin", effect, "{}") for _ in range(turn % 3))])
            except Conflict:
                refused += 1
        going -= 1

    async def watch() -> None:
        while going:
            entries = await unit.select("entry", {"run": "r"}, order=["seq"])
            assert [entry["seq"] for entry in entries] == list(range(len(entries)))
            assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]
            await asyncio.sleep(0.01)

    await asyncio.gather(watch(), *map(worker, range(24)))
    assert refused > 20
    entries = await unit.select("entry", {"run": "r"}, order=["seq"])
    assert "lost" not in {entry["effect_id"] for entry in entries}
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    rows = await unit.select("seen")
    wanted = Counter(
        {row["event_id"]: int(row["event_id"].split("-")[1]) % 3 for row in rows if "-" in row["event_id"]}
    )
    assert Counter(entry["effect_id"] for entry in entries) == +wanted + Counter(["first"])


async def test_a_write_about_entries_finds_those_that_were_appended_before_it_in_its_group(unit: Base) -> None:
    before = [unit.commit([Append("r", "begin", f"e{k}", "{}")]) for k in range(6)]
    after = [unit.commit([Append("other", "begin", f"e{k}", "{}")]) for k in range(6)]
    change = unit.commit([Delete("entry", {"run": "r"}, rows=6), Delete("entry", {"run": "other"}, rows=0)])
    await asyncio.gather(*before, change, *after)
    assert [entry["run"] for entry in await unit.select("entry")] == ["other"] * 6


async def test_each_entry_is_told_once_when_it_is_durable_and_before_its_commit_returns(unit: Base) -> None:
    told: list[str] = []
    unit.on_entry(lambda entry: told.append(entry.effect_id))
    await unit.commit([Append("r", "begin", "a", "{}"), Append("r", "begin", "b", "{}")])
    assert told == ["a", "b"]
    with pytest.raises(Conflict):
        await unit.commit([Append("r", "begin", "c", "{}"), Delete("seen", {"event_id": "none"}, rows=1)])
    assert told == ["a", "b"]


async def test_units_that_were_submitted_together_are_applied_in_order(unit: Base) -> None:
    await unit.commit([seen("a", 0)])
    await asyncio.gather(
        *(unit.commit([Update("seen", {"event_id": "a", "at": k}, set={"at": k + 1})]) for k in range(50))
    )
    assert await unit.select("seen") == [{"event_id": "a", "at": 50}]


async def test_a_cancelled_waiter_does_not_undo_its_unit(unit: Base) -> None:
    task = asyncio.create_task(unit.commit([seen("a")]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await unit.commit([seen("b")])
    assert len(await unit.select("seen")) == 2


async def test_select_takes_conditions_order_and_limit(unit: Base) -> None:
    await unit.commit([seen(f"{k:02}", k // 2) for k in range(10)])

    async def names(where: dict[str, object] | None = None, **how: object) -> list[str]:
        return [row["event_id"] for row in await unit.select("seen", where, **how)]

    assert await names({"at": Within(1, 3)}, order=["event_id"]) == ["02", "03", "04", "05"]
    assert await names({"at": Within(4)}, order=["-event_id"]) == ["09", "08"]
    assert await names({"at": Within(high=1)}, order=["event_id"]) == ["00", "01"]
    assert await names(order=["-at", "event_id"], limit=3) == ["08", "09", "06"]
    assert await names({"event_id": Among(("03", "04", "zz")), "at": 2}) == ["04"]
    assert await names({"event_id": Among(())}) == []
    assert await names({"at": Among((0, 4))}, order=["event_id"]) == ["00", "01", "08", "09"]
    assert await names(limit=0) == []
    with pytest.raises(BadWrite):
        await unit.select("seen", {"at; --": 1})
    with pytest.raises(BadWrite):
        await unit.select("seen", order=["1"])


async def test_updates_and_deletes_take_the_same_conditions_as_questions(unit: Base) -> None:
    await unit.commit([seen(f"{k}", k) for k in range(10)])
    await unit.commit([Update("seen", {"event_id": Among(("1", "2", "zz")), "at": Within(2)}, add={"at": 100})])
    assert [row["event_id"] for row in await unit.select("seen", {"at": Within(100)})] == ["2"]
    await unit.commit(
        [Update("seen", {"at": Within(3, 6)}, set={"at": 50}, rows=3), Delete("seen", {"at": 50}, rows=3)]
    )
    await unit.commit(
        [Delete("seen", {"event_id": Within("7", "9")}, rows=2), Delete("seen", {"at": Among(())}, rows=0)]
    )
    assert [row["event_id"] for row in await unit.select("seen", order=["event_id"])] == ["0", "1", "2", "6", "9"]
    with pytest.raises(Conflict):
        await unit.commit([Delete("seen", {"at": Within(0)}), Delete("seen", {"at": Within()}, rows=1)])
    assert await unit.count("seen") == 5
    await unit.commit([Delete("seen", {"at": Within()}, rows=5)])


async def test_texts_are_within_bounds_by_their_bytes(unit: Base) -> None:
    names = ["", "A", "a", "a\x00", "a\x00b", "ab", "b", "z", "ü", "\uffff", "𝄞"]
    await unit.commit([seen(name) for name in reversed(names)])
    for low in range(len(names)):
        for high in range(len(names)):
            found = await unit.select("seen", {"event_id": Within(names[low], names[high])}, order=["event_id"])
            assert [row["event_id"] for row in found] == names[low:high]
    assert await unit.count("seen", {"event_id": Within("ü")}) == 3
    assert await unit.count("seen", {"event_id": Within(high="a")}) == 2


async def test_values_of_any_kind_are_found_among_others(unit: Base) -> None:
    await unit.commit([seen("a"), seen("a\x00b"), seen('"'), seen("ü")])
    for wanted in (("a",), ("a\x00b",), ("a\x00b", '"', "ü"), ("a\x00", "x"), ('"', "ü")):
        found = await unit.select("seen", {"event_id": Among(wanted)})
        assert {row["event_id"] for row in found} == {name for name in ("a", "a\x00b", '"', "ü") if name in wanted}
    row = {"mint": "", "unit": "", "keyset": "", "amount": 1, "state": "live", "operation": ""}
    await unit.commit([Insert("proof", {**row, "y": f"{k}", "sealed": bytes((k,))}) for k in range(5)])
    assert await unit.count("proof", {"sealed": Among((b"\x00", b"\x03", b"\x04", b"\xff"))}) == 3
    await unit.commit([Delete("proof", {"sealed": Among((b"\x00",))}, rows=1)])


async def test_words_are_compared_as_any_other_text(unit: Base) -> None:
    class State(StrEnum):
        DONE = "done"

    row = {"agent": "a", "cause": "m", "source": "", "sender": "", "payload": "", "at": 0}
    states = ["new", "new", "done", "dead", "dropped"]
    await unit.commit([Insert("inbox", row | {"envelope_id": f"{k}", "state": s}) for k, s in enumerate(states)])
    assert await unit.count("inbox", {"state": "new"}) == 2
    assert await unit.count("inbox", {"state": State.DONE}) == 1
    assert await unit.count("inbox", {"state": Among((State.DONE,))}) == 1
    assert await unit.count("inbox", {"state": Among(("new", "dead"))}) == 3
    assert await unit.count("inbox", {"state": Among(("new", None))}) == 2
    assert await unit.count("inbox", {"state": Among(())}) == 0
    assert await unit.count("inbox", {"state": None}) == 0
    assert await unit.count("inbox", {"state": Within("d", "e")}) == 3
    await unit.commit([Update("inbox", {"state": "new"}, set={"state": State.DONE}, rows=2)])
    await unit.commit([Delete("inbox", {"state": Among(("done", "dead"))}, rows=4)])
    assert [found["state"] for found in await unit.select("inbox")] == ["dropped"]


async def test_a_question_may_name_its_columns_and_leave_out_what_repeats(unit: Base) -> None:
    await unit.commit([seen(f"{k}", k // 2) for k in range(6)])
    assert await unit.select("seen", {"event_id": "4"}, columns=["at"]) == [{"at": 2}]
    assert await unit.select("seen", columns=["at"], order=["-event_id"], limit=2) == [{"at": 2}, {"at": 2}]
    assert await unit.select("seen", columns=["at"], distinct=True, order=["-at"]) == [{"at": 2}, {"at": 1}, {"at": 0}]
    assert await unit.select("seen", columns=["at"], distinct=True, order=["at"], limit=1) == [{"at": 0}]
    assert len(await unit.select("seen", distinct=True)) == 6
    (row,) = await unit.select("seen", columns=["at", "event_id"], limit=1, order=["event_id"])
    assert list(row.items()) == [("at", 0), ("event_id", "0")]
    for columns in (["nothing"], ["at", "at"], ["at; --"]):
        with pytest.raises(BadWrite):
            await unit.select("seen", columns=columns)
    with pytest.raises(BadWrite):
        await unit.select("seen", columns=["at"], distinct=True, order=["event_id"])


async def test_rows_are_counted_up_to_a_limit(unit: Base) -> None:
    await unit.commit([seen(f"{k}", k) for k in range(20)])
    assert await unit.count("seen") == 20
    assert await unit.count("seen", {"at": Within(5)}) == 15
    assert await unit.count("seen", {"at": Within(5)}, limit=3) == 3
    assert await unit.count("seen", {"at": Within(5)}, limit=99) == 15
    assert await unit.count("seen", limit=0) == 0
    assert await unit.count("seen", {"at": 99}) == 0
    with pytest.raises(BadWrite):
        await unit.count("seen", {"nothing": 1})
    with pytest.raises(BadWrite):
        await unit.count("nowhere")


async def test_a_question_sees_what_was_committed_while_a_long_answer_was_being_read(unit: Base) -> None:
    await unit.commit([seen(f"{k:04}", k) for k in range(2_000)])
    reading = asyncio.create_task(unit.select("seen"))
    await asyncio.sleep(0)
    await unit.commit([seen("new")])
    assert await unit.count("seen", {"event_id": "new"}) == 1
    assert len(await unit.select("seen", {"event_id": "new"})) == 1
    assert len(await reading) in (2_000, 2_001)


async def test_a_row_that_was_given_out_is_a_copy(unit: Base) -> None:
    await unit.commit([seen("a", 1)])
    (await unit.select("seen"))[0]["at"] = 9
    assert await unit.select("seen") == [{"event_id": "a", "at": 1}]


async def test_bytes_and_any_unicode_come_back_as_they_went(unit: Base) -> None:
    row = {
        "y": "ü\x00𝄞",
        "mint": "",
        "unit": "sat",
        "keyset": "",
        "amount": -(1 << 63),
        "state": "live",
        "operation": "",
    }
    await unit.commit([Insert("proof", {**row, "sealed": b"\x00\xff"})])
    (found,) = await unit.select("proof", {"y": "ü\x00𝄞"})
    assert found["sealed"] == b"\x00\xff"
    assert found["amount"] == -(1 << 63)


async def test_many_rows_are_all_read(unit: Base) -> None:
    await unit.commit([seen(f"{k}", k) for k in range(1234)])
    assert sorted(row["at"] for row in await unit.select("seen")) == list(range(1234))


async def test_an_empty_unit_is_nothing(unit: Base) -> None:
    await unit.commit([])
    assert unit.stats() == {"groups": 0, "units": 0, "conflicts": 0}


async def test_conflicts_and_units_are_counted(unit: Base) -> None:
    await asyncio.gather(*(unit.commit([seen("a")]) for _ in range(3)), return_exceptions=True)
    stats = unit.stats()
    assert (stats["units"], stats["conflicts"]) == (1, 2)


async def test_a_closed_database_takes_nothing(unit: Base) -> None:
    await unit.aclose()
    with pytest.raises(Unavailable):
        await unit.commit([seen("a")])
    with pytest.raises(Unavailable):
        await unit.select("seen")
    with pytest.raises(Unavailable):
        await unit.count("seen")
    await unit.aclose()


def test_the_place_of_an_entry_is_a_value() -> None:
    assert Head("r", 0, "", 5) == Head("r", 0, "", 5)
