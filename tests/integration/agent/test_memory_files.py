"""/memory: what an agent keeps beside its state, as files; one thing with `ctx.memory`."""

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.error import Conflict, InvalidInput, VendoError
from core.unit import Insert
from fs.error import (
    BadPath,
    BodyTooLarge,
    DirectoryInUse,
    FileExists,
    IsDirectory,
    NoSuchFile,
    NotDirectory,
    Unsupported,
)
from fs.handle import Open, Seen, open_file
from fs.service.memory import MAX_BYTES, MAX_DEPTH, MAX_MOVED, body_of, key_of, memory_service, path_of, value_of
from fs.session import Role, Session
from node.agent import item
from node.agent.error import StorageFull
from node.agent.item import AgentItems
from node.agent.program import Trigger
from node.agent.tick.limit import TickLimits
from node.storage.chain import unsigned_seal
from tests.integration.agent.keep_part import Keep
from tests.unit.node.agent.agent_part import Bench, Here, Scripted, remember
from tests.unit_part import ENGINES


async def keys(keep: Keep) -> dict[str, str]:
    return {row["key"]: row["value"] for row in await keep.unit.select("item", {"agent": keep.agent})}


async def put(keep: Keep, *keys: str) -> None:
    """Kept values, as a program sets them."""
    await keep.unit.commit([Insert("item", {"agent": "a", "key": key, "value": '"v"'}) for key in keys])


async def exported(keep: Keep, session: Session | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (await keep.read("/memory/export", session)).splitlines()]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"a text", b"a text\n", "ü\N{SNOWMAN}\U0001f389".encode(), b"a \0 zero", b"{}", b' {"a": [1, 2.50]}\r\n',
        b"[1]\n", b"42", b" null ", b"true", b'"in quotes"', b' "in quotes"\n', b"{broken", b'{"\\ud800":1}', b"1e400",
        b"9" * 400, b'{"a":' * 1_000 + b"1" + b"}" * 1_000, b"[" * 60_000,
    ],
)  # fmt: skip
def test_a_file_reads_as_it_was_written(body: bytes) -> None:
    kept = value_of(body)
    orjson.loads(kept)
    assert body_of(kept) == body


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("x", ("context", "x")), ("a/b", ("context", "a", "b")), ("a b", ("context", "a b")),
        ("/conversations/x", ("conversations", "x")), ("/notes/", ("notes",)), ("sub/", ("context", "sub")),
        ("/notes/a/b/", ("notes", "a", "b")),
        ("/x", None), ("/context/x", None), ("a//b", None), ("../x", None), ("a%2f", None), ("a\\b", None),
        (" x", None), ("README", None), ("/", None), ("//", None), ("e\u0301", None), ("/".join("abcdefghi"), None),
    ],
)  # fmt: skip
def test_a_key_is_a_path_or_none(key: str, path: tuple[str, ...] | None) -> None:
    assert path_of(key) == path
    if path is not None:
        assert key_of(path) + "/" * key.endswith("/") == key


async def test_three_directories_are_always_there(keep: Keep) -> None:
    assert await keep.names("/memory") == ["context/", "conversations/", "export", "patterns/"]
    for name in ("context", "conversations", "patterns"):
        assert await keep.names(f"/memory/{name}") == []
        with pytest.raises(Unsupported):
            await keep.space.remove(f"/memory/{name}", keep.operator)
        with pytest.raises(Unsupported):
            await keep.space.rename(f"/memory/{name}", "/memory/else", keep.operator)
        with pytest.raises(FileExists):
            await keep.space.mkdir(f"/memory/{name}", keep.operator)
    assert b"conversations/" in await keep.read("/memory/README")
    assert b"<name>" in await keep.read("/memory/patterns/README")
    assert await keep.read("/memory/export") == b""
    assert await keys(keep) == {}


async def test_an_item_is_written_read_renamed_and_removed_each_in_one_commit(keep: Keep) -> None:
    before = keep.unit.stats()["units"]
    await keep.write("/memory/patterns/tea", "green, not black\n", keep.own)
    await keep.write("/memory/patterns/tea", '{"tea": "green"}')
    assert await keep.read("/memory/patterns/tea", keep.own) == b'{"tea": "green"}'
    await keep.space.rename("/memory/patterns/tea", "/memory/context/drink", keep.own)
    assert await keys(keep) == {"drink": '{"tea": "green"}'}
    assert await keep.stored() == len("drink") + len('{"tea": "green"}')
    stat = (await keep.space.list("/memory/context", keep.own))[-1]
    assert (stat.name, stat.size, stat.readable, stat.writable, stat.removable) == ("drink", 16, True, True, True)
    await keep.space.remove("/memory/context/drink", keep.own)
    assert await keep.stored() == 0
    assert keep.unit.stats()["units"] == before + 4
    for doing in (
        keep.read("/memory/context/drink"),
        keep.space.remove("/memory/context/drink", keep.operator),
        keep.space.rename("/memory/context/drink", "/memory/context/x", keep.operator),
        keep.read("/memory/nowhere/drink"),
    ):
        with pytest.raises(NoSuchFile):
            await doing


async def test_directories_are_made_moved_and_removed_when_they_are_empty(keep: Keep) -> None:
    await keep.space.mkdir("/memory/notes", keep.own)
    await keep.space.mkdir("/memory/notes/old", keep.own)
    await keep.space.mkdir("/memory/context/empty", keep.own)
    await keep.write("/memory/notes/old/one", "1")
    assert await keep.names("/memory") == ["context/", "conversations/", "export", "notes/", "patterns/"]
    assert await keep.names("/memory/notes") == ["old/"]
    assert await keep.names("/memory/context") == ["empty/"]
    assert await keep.names("/memory/context/empty") == []
    with pytest.raises(FileExists):
        await keep.space.mkdir("/memory/notes", keep.own)
    with pytest.raises(DirectoryInUse):
        await keep.space.remove("/memory/notes", keep.own)
    await keep.space.rename("/memory/notes", "/memory/context/archive", keep.own)
    assert await keep.read("/memory/context/archive/old/one") == b"1"
    assert set(await keys(keep)) == {"empty/", "archive/", "archive/old/", "archive/old/one"}
    assert await keep.names("/memory") == ["context/", "conversations/", "export", "patterns/"]
    await keep.space.remove("/memory/context/archive/old/one", keep.own)
    for path in ("archive/old", "archive", "empty"):
        await keep.space.remove(f"/memory/context/{path}", keep.own)
    assert (await keys(keep), await keep.stored()) == ({}, 0)


@pytest.mark.parametrize(
    ("doing", "path", "to", "error"),
    [
        ("write", "/memory/x", "", NoSuchFile), ("write", "/memory/export", "", Unsupported),
        ("write", "/memory/notes", "", IsDirectory), ("write", "/memory/README", "", NoSuchFile | Unsupported),
        ("write", "/memory/context/no/x", "", NoSuchFile),
        ("write", "/memory/context/item/x", "", NoSuchFile | NotDirectory),
        ("write", "/memory/context/README", "", NoSuchFile | Unsupported),
        ("write", "/memory/context/" + "x" * 201, "", InvalidInput),
        ("write", "/memory/context/..", "", BadPath), ("read", "/memory/notes", "", IsDirectory),
        ("mkdir", "/memory/no/x", "", NoSuchFile), ("mkdir", "/memory/context/item", "", FileExists),
        ("mkdir", "/memory/context/item/x", "", NotDirectory | NoSuchFile), ("mkdir", "/memory/export", "", FileExists),
        ("mkdir", "/memory/README", "", FileExists | BadPath), ("mkdir", "/memory/context/no/x", "", NoSuchFile),
        ("mkdir", "/memory" + "/d" * (MAX_DEPTH + 1), "", VendoError),
        ("rename", "/memory/context/item", "/memory/item", InvalidInput),
        ("rename", "/memory/context/item", "/memory/context/other", FileExists),
        ("rename", "/memory/context/item", "/memory/context/item", FileExists | InvalidInput),
        ("rename", "/memory/context/item", "/memory/no/x", NoSuchFile),
        ("rename", "/memory/context/item", "/memory/context/other/x", NotDirectory),
        ("rename", "/memory/context/item", "/memory/notes/README", BadPath),
        ("rename", "/memory/notes", "/memory/notes/deeper", InvalidInput),
        ("rename", "/memory/notes", "/memory/patterns", FileExists),
        ("rename", "/memory/notes", "/memory/export", FileExists),
        ("rename", "/memory/context/item", "/goals/item", Unsupported), ("rename", "/memory", "/memory/x", Unsupported),
        ("remove", "/memory", "", Unsupported), ("remove", "/memory/export", "", Unsupported),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_and_changes_nothing(
    quick: Keep, doing: str, path: str, to: str, error: Any
) -> None:
    await quick.space.mkdir("/memory/notes", quick.own)
    await quick.write("/memory/notes/one", "1")
    await quick.write("/memory/context/item", "2")
    await quick.write("/memory/context/other", "3")
    before = await quick.rows()
    more = {"write": (b"x",), "rename": (to,)}.get(doing, ())
    with pytest.raises(error if isinstance(error, type) else tuple(error.__args__)):
        await getattr(quick.space, doing)(path, *more, quick.operator)
    assert await quick.rows() == before


async def test_only_text_of_a_bounded_length_is_kept(quick: Keep) -> None:
    for body, error in (
        (b"\xff\xfe", InvalidInput), (b"x" * (MAX_BYTES + 1), BodyTooLarge), (b'"' * 40_000, InvalidInput),
    ):  # fmt: skip
        with pytest.raises(error):
            await quick.write("/memory/context/x", body)
    await quick.write("/memory/context/x", b"x" * (MAX_BYTES - 2))
    assert len((await keys(quick))["x"]) == MAX_BYTES


async def test_what_programs_keep_and_what_files_show_is_one_thing(quick: Keep) -> None:
    bench = Bench(unit=quick.unit, limits=TickLimits(seconds=5, tries=1, back_off_ms=1))
    bench.services["/memory"] = memory_service(AgentItems("b", bench.unit))
    found: dict[str, Any] = {}

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "m":
            ctx.memory.set("n", {"cups": 2})
            found["file"] = await ctx.fs.read("/memory/context/n")
            await ctx.fs.write("/memory/context/n", b"three")
            found["value"] = await ctx.memory.get("n")
            await ctx.fs.write("/memory/conversations/anna", b"likes tea")
            await ctx.fs.mkdir("/memory/notes")
            found["keys"] = await ctx.memory.list()
            ctx.memory.set("gone", 1)
            await ctx.fs.remove("/memory/context/gone")
            found["gone"] = await ctx.memory.get("gone")
            await ctx.fs.rename("/memory/conversations/anna", "/memory/notes/anna")
            found["names"] = [stat.name for stat in await ctx.fs.list("/memory/notes")]
            found["before"] = await quick.unit.select("item", {"agent": "b"})
        if trigger.envelope_id == "bad":
            await ctx.fs.write("/memory/context/n", b"four")
            raise ValueError("as it was told")
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("b"):
        await bench.put("b", "m")
        await bench.put("b", "bad")
        await bench.idle("b")
    assert found == {
        "file": b'{"cups":2}', "value": "three", "keys": ["/conversations/anna", "/notes/", "n"], "gone": None,
        "names": ["README", "anna"], "before": [],
    }  # fmt: skip
    rows = {row["key"]: row["value"] for row in await quick.unit.select("item", {"agent": "b"})}
    assert rows == {"n": '"three"', "/notes/": "null", "/notes/anna": '"likes tea"'}
    agent = await bench.row("b")
    assert agent["stored"] == len(agent["state"]) + sum(len(key) + len(value) for key, value in rows.items())


async def test_a_tick_during_which_the_operator_writes_what_it_changes_runs_again() -> None:
    bench = Bench(limits=TickLimits(seconds=5))
    service = memory_service(AgentItems("a", bench.unit, bench.limits))
    bench.services["/memory"] = service
    operator, runs = Session("operator", Role.OPERATOR, unit=bench.unit), 0

    async def act(ctx: Here, trigger: Trigger) -> None:
        nonlocal runs
        if trigger.envelope_id != "m":
            return
        runs += 1
        known, file = await ctx.memory.get("n"), (await ctx.fs.read("/memory/context/f")).decode()
        if runs == 1:
            await service.write(("context", "n"), b"theirs, and longer", operator)
        if runs == 2:
            await service.write(("context", "f"), b"theirs, and longer", operator)
        ctx.memory.set("n", known + "!")
        await ctx.fs.write("/memory/context/f", f"{file}!".encode())

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.idle("a")
        for name in ("n", "f"):
            await service.write(("context", name), b"x", operator)
        await bench.put("a", "m")
        await bench.idle("a")
    rows = {row["key"]: row["value"] for row in await bench.unit.select("item")}
    assert (runs, rows) == (3, {"n": '"theirs, and longer!"', "f": '"theirs, and longer!"'})
    agent = await bench.row("a")
    assert agent["stored"] == len(agent["state"]) + sum(len(key) + len(value) for key, value in rows.items())


async def test_in_a_tick_nobody_else_sees_what_it_changes(keep: Keep) -> None:
    await put(keep, "a", "b", "sub/x", "/conversations/c")
    before, tick = await keep.rows(), keep.tick()
    await keep.write("/memory/context/new", "n", tick)
    await keep.write("/memory/context/a", "changed", tick)
    await keep.space.remove("/memory/context/b", tick)
    await keep.space.remove("/memory/context/sub/x", tick)
    await keep.space.mkdir("/memory/patterns/deep", tick)
    assert await keep.names("/memory/context", tick) == ["a", "new"]
    assert await keep.names("/memory/patterns", tick) == ["deep/"]
    assert await keep.read("/memory/context/a", tick) == b"changed"
    assert [one["path"] for one in await exported(keep, tick)] == [
        "conversations/c", "patterns/deep/", "context/a", "context/new",
    ]  # fmt: skip
    assert await keep.rows() == before
    assert await keep.names("/memory/context") == ["a", "b", "sub/"]
    assert tick.batch is not None
    assert tick.batch.writes == [], "whoever commits the tick makes the writes, for these and for ctx.memory alike"
    tick.batch.closed = True
    with pytest.raises(Conflict):
        await keep.write("/memory/context/late", "x", tick)
    assert "late" not in tick.batch.kept


async def test_export_is_all_of_it_with_ids_also_what_is_no_file(keep: Keep) -> None:
    await put(keep, "a%2f", "..", "x/../y", "/lost", "/context/odd", "README", "z", "sub/x", "/conversations/c")
    await keep.write("/memory/context/json", '{\r\n "a": [1,\n 2]\n}\n')
    await keep.write("/memory/context/lines", "two\nlines")
    await keep.space.mkdir("/memory/notes", keep.operator)
    found = {one["id"]: one for one in await exported(keep)}
    assert found.keys() == (await keys(keep)).keys()
    assert found["json"] == {"id": "json", "path": "context/json", "value": {"a": [1, 2]}}
    assert found["lines"]["value"] == "two\nlines"
    assert found["/notes/"] == {"id": "/notes/", "path": "notes/", "value": None}
    assert {key for key, one in found.items() if one["path"] == ""} == {
        "a%2f", "..", "x/../y", "/lost", "/context/odd", "README",
    }  # fmt: skip
    assert await keep.names("/memory/context") == ["json", "lines", "sub/", "x/", "z"]
    assert await keep.names("/memory") == ["context/", "conversations/", "export", "notes/", "patterns/"]


async def test_a_file_and_a_directory_of_one_name_are_a_file_and_the_rest_is_found_by_path(quick: Keep) -> None:
    await put(quick, "a", "a/b", "a-b", "a/c/d", "b/x", "b0")
    assert await quick.names("/memory/context") == ["a", "a-b", "b/", "b0"]
    assert await quick.read("/memory/context/a") == b"v"
    assert await quick.names("/memory/context/b") == ["x"]
    assert len(await exported(quick)) == 6


async def test_a_very_long_directory_is_listed_and_exported_in_pages(tmp_path: Path) -> None:
    quick, many = Keep(await ENGINES["sqlite"](tmp_path, unsigned_seal, SystemClock())), 10_000
    await put(quick, *(f"k{number:06}" for number in range(many)), *(f"sub/{number:06}" for number in range(many)))
    tracemalloc.start()
    try:
        count, largest = 0, 0
        async for stat in quick.space.entries("/memory/context", quick.operator):
            count += stat.name != "README"
            if count == 100:
                tracemalloc.reset_peak()
                base, _ = tracemalloc.get_traced_memory()
        _, peak = tracemalloc.get_traced_memory()
        async for piece in await quick.space.content("/memory/export", quick.operator):
            largest = max(largest, len(piece))
    finally:
        tracemalloc.stop()
    assert count == many + 1
    assert peak - base < 4 << 20
    assert largest < 64 << 10
    await quick.unit.aclose()


async def test_what_is_remembered_is_bounded_in_number_and_by_the_agents_limit(
    quick: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item, "MAX_ITEMS", 100)
    small = Keep(quick.unit, limits=TickLimits(storage_bytes=1_100))
    await small.write("/memory/context/x", "x" * 50)
    before = await small.rows()
    with pytest.raises(StorageFull):
        await small.write("/memory/context/y", "x" * 60)
    assert await small.rows() == before
    await small.write("/memory/context/x", "x" * 20)
    await put(quick, *(f"k{number:06}" for number in range(99)))
    with pytest.raises(InvalidInput, match="at most"):
        await quick.write("/memory/context/one-more", "1")
    await quick.write("/memory/context/k000001", "another")
    await quick.space.rename("/memory/context/k000001", "/memory/context/moved", quick.operator)


async def test_nothing_is_moved_so_deep_that_no_path_leads_there(quick: Keep) -> None:
    await put(quick, "a/b/c/d/e/f/g", "top/x", "a%/y")
    await quick.space.mkdir("/memory/context/top/sub", quick.operator)
    before = await quick.rows()
    with pytest.raises(InvalidInput, match="deep"):
        await quick.space.rename("/memory/context/a", "/memory/context/top/sub/a", quick.operator)
    assert await quick.rows() == before
    await quick.space.rename("/memory/context/a", "/memory/context/top/a", quick.operator)
    assert await quick.read("/memory/context/top/a/b/c/d/e/f/g") == b"v"


async def test_a_large_directory_is_not_moved_at_once(quick: Keep) -> None:
    await put(quick, *(f"many/{number:04}" for number in range(MAX_MOVED + 1)))
    with pytest.raises(InvalidInput, match="not moved"):
        await quick.space.rename("/memory/context/many", "/memory/patterns/many", quick.operator)
    await quick.space.remove("/memory/context/many/0000", quick.operator)
    await quick.space.rename("/memory/context/many", "/memory/patterns/many", quick.operator)
    assert await quick.names("/memory/context") == []
    assert len(await quick.names("/memory/patterns/many")) == MAX_MOVED


async def test_writers_at_the_same_time_leave_the_count_exact(keep: Keep) -> None:
    async def one(number: int) -> None:
        try:
            await keep.write("/memory/context/x", "x" * (1 + number * 7))
        except Conflict:
            return

    await asyncio.gather(*(one(number) for number in range(6)))
    assert await keep.stored() == len("x") + len((await keys(keep))["x"])


async def test_a_file_is_made_through_a_handle(quick: Keep) -> None:
    flags = Open.WRITE | Open.CREATE | Open.TRUNCATE
    async with await open_file(Seen(quick.space, quick.own), "/memory/context/new", flags) as handle:
        await handle.write(b"in ")
        await handle.write(b"parts")
        assert await keys(quick) == {}
    assert await keys(quick) == {"new": '"in parts"'}
    async with await open_file(Seen(quick.space, quick.own), "/memory/context/new", Open.READ) as handle:
        assert await handle.read(2) == b"in"
