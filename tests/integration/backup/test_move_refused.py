"""Archives of agents that are not what they say, or do not fit this node: refused, and nothing has changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.error import InvalidInput, VendoError
from node.agent.error import ConfigRefused, StateRefused
from node.backup.error import (
    BackupDamaged,
    BackupForged,
    BackupNewer,
    BackupRoom,
    BackupUnsafe,
    CodeDiffers,
    MountMissing,
)
from node.backup.luggage import TABLES
from node.backup.manifest import PartFacts
from node.backup.part import row_line
from node.storage.memory import MemoryDatabase
from relays.key import Key
from tests.integration.backup.home_part import make_home, parts_of, remade, restored, take_to, write_parts
from tests.move_part import OTHER_WORDS, Port, busy
from tests.unit.node.agent.agent_part import Scripted

Change = Callable[[dict[str, bytes], dict[str, Any]], None]


@pytest.fixture
async def made(tmp_path):
    """A good archive, its node, and a node that it could go to."""
    source = Port(MemoryDatabase(), tmp_path / "source")
    await source.settle()
    await source.export(tmp_path / "good")
    return source, Port(MemoryDatabase(), tmp_path / "target", words=OTHER_WORDS), tmp_path


async def refused(target: Port, file: Path, error: type[VendoError], match: str | None = None, **wish: Any) -> None:
    before = await _everything(target)
    with pytest.raises(error, match=match):
        await target.bring(file, **wish)
    assert await _everything(target) == before


async def _everything(target: Port) -> Any:
    tables = (*TABLES, "agent", "identity", "meta")
    rows = {table: await target.unit.select(table) for table in tables}
    empty = {path for path in target.home.rglob("*") if path.is_dir() and not any(path.iterdir())}
    files = {str(path): path.read_bytes() for path in sorted(target.home.rglob("*")) if path.is_file()}
    assert {path.name for path in empty} <= {"work", "in", "files", "agents"}, "and no draft"
    return rows, files, dict(target.desk.sections), sorted(target.keys)


def changed(made: Any, change: Change, *, key: Key | None = None, listed: bool = True) -> Path:
    source, _, folder = made
    return remade(folder / "good", folder / "bad", change, key or source.ring.node, listed=listed)


async def test_the_archive_is_good_as_it_is(made):
    source, target, folder = made
    assert (await target.bring(changed(made, lambda parts, manifest: None)))["name"] == "a"
    assert (await target.bring(folder / "good", clone="b", node=source.ring.node.pubkey))["name"] == "b"


# ---- what does not fit


async def test_services_that_are_not_here(made):
    _, _, folder = made
    target = Port(MemoryDatabase(), folder / "less", words=OTHER_WORDS, mounts=("/inbox", "/goals"))
    await refused(target, folder / "good", MountMissing, match="/compute")


async def test_a_state_that_is_newer_than_the_program(made):
    _, target, folder = made
    older = Scripted(busy)
    older.version = 1  # of this object alone
    target.bench.programs["scripted"] = older
    await refused(target, folder / "good", StateRefused, match="version 2", accept_code=True)


async def test_a_state_that_is_older_goes_through_the_programs_own_migration(made):
    _, target, folder = made
    newer = Scripted(busy)
    newer.version = 3  # of this object alone
    target.bench.programs["scripted"] = newer
    await target.bring(folder / "good")
    row = (await target.rows("agent"))[0]
    assert row["state_version"] == 2, "its next tick migrates it"
    async with target.bench.running():
        await target.bench.idle("a")
    assert (await target.bench.state("a")) == {"seen": ["m2"], "was": 2}


async def test_a_state_or_settings_that_do_not_fit_the_program(made):
    _, target, _ = made

    def state(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        _agent(parts, lambda agent: agent.update(state='{"seen":7}'))

    def settings(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        _agent(parts, lambda agent: agent["section"].update(config={"no": "such"}))

    await refused(target, changed(made, state), StateRefused)
    await refused(target, changed(made, settings), ConfigRefused)


async def test_code_that_is_not_the_one_that_it_had(made):
    _, target, _ = made
    other = changed(made, lambda parts, manifest: manifest.update(code="12" * 32))
    await refused(target, other, CodeDiffers)
    assert (await target.bring(other, accept_code=True))["code"] == "other"
    await refused(target, changed(made, lambda parts, manifest: manifest.update(code="")), CodeDiffers, clone="b")


@pytest.mark.parametrize("name", ["", "A", "node", "operator", "with space", "../x", "a" * 32, "-a", "9a", "a/b"])
async def test_names_that_no_agent_has(made, name):
    _, target, folder = made
    await refused(target, folder / "good", InvalidInput, clone=name)


# ---- whose it is, and what kind


async def test_signatures(made):
    source, target, folder = made
    await refused(target, changed(made, lambda parts, manifest: None, key=Key.generate()), BackupForged)
    other = Key.generate()
    theirs = changed(made, lambda parts, manifest: manifest.update(node=other.pubkey), key=other)
    await refused(target, theirs, BackupForged, match="another node", node=source.ring.node.pubkey)

    def without(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["state_version"] = 1

    unsigned = remade(folder / "good", folder / "bad", without, None)
    await refused(target, unsigned, BackupForged)


async def test_other_kinds_and_formats(made, tmp_path):
    _, target, folder = made
    ring = make_home(tmp_path / "h")
    await take_to(tmp_path / "h", ring, tmp_path / "node")
    with pytest.raises((BackupDamaged, BackupUnsafe)):
        await target.bring(tmp_path / "node")
    with pytest.raises((BackupDamaged, BackupUnsafe)):
        await restored(folder / "good", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    await refused(target, changed(made, lambda parts, manifest: manifest.update(format=2)), BackupNewer)
    await refused(target, changed(made, lambda parts, manifest: manifest.update(kind="node")), BackupDamaged)


async def test_bytes_that_were_changed_cut_or_are_none(made):
    _, target, folder = made
    raw = (folder / "good").read_bytes()
    for number, body in enumerate((b"", b"no archive", raw[: len(raw) // 2], raw[:-1], raw + b"x", raw[::-1])):
        bad = folder / f"bad-{number}"
        bad.write_bytes(body)
        with pytest.raises((BackupDamaged, BackupUnsafe)):
            await target.bring(bad)
    for place in range(10, len(raw), max(1, len(raw) // 40)):
        body = bytearray(raw)
        body[place] ^= 0x55
        (folder / "bit").write_bytes(bytes(body))
        with pytest.raises((BackupDamaged, BackupUnsafe, BackupForged)):
            await target.bring(folder / "bit")
    assert not await target.rows("agent")


# ---- what is in it


@pytest.mark.parametrize(
    "name",
    [
        "db/proof/000001", "db/identity/000001", "db/agent/000001", "db/meta/000001", "db/item/1", "db/item/0000001",
        "db/item/000001/x", "config.toml", "keys.json", "token", "files/notahash", "files/x/y", "work", "program/x.sh",
        "program/a/b.py", "agents/own.py", "relay/000001", "x",
    ],
)  # fmt: skip
async def test_parts_that_have_no_place(made, name):
    _, target, _ = made
    await refused(target, changed(made, lambda parts, manifest: parts.update({name: b"[]\n"})), BackupUnsafe)


@pytest.mark.parametrize(
    "name", ["work/../x", "/work/x", "work//x", "work/./x", "work/a\nb", "../a", "work/" + "x" * 300]
)
async def test_names_that_lead_elsewhere_cannot_even_be_written(made, name):
    with pytest.raises(ValueError, match="no name"):
        changed(made, lambda parts, manifest: parts.update({name: b"x"}))


async def test_a_program_that_is_not_the_agents(made):
    _, target, _ = made
    bad = changed(made, lambda parts, manifest: parts.update({"program/other.py": b"import os"}))
    await refused(target, bad, BackupUnsafe, accept_code=True)


async def test_a_file_that_is_not_what_it_is_called(made):
    _, target, _ = made
    bad = changed(made, lambda parts, manifest: parts.update({"files/" + "ab" * 32: b"not that"}))
    await refused(target, bad, BackupDamaged)


async def test_a_file_that_is_a_folder_too(made):
    _, target, _ = made

    def both(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        parts.update({"work/x": b"file", "work/x/y": b"in it"})

    await refused(target, changed(made, both), BackupUnsafe)


async def test_more_than_there_is_room_for(made):
    _, target, folder = made
    target.arrival = target.arrival_with(lambda: 1_000)
    await refused(target, folder / "good", BackupRoom)


async def test_too_many_rows_or_not_as_many_as_are_listed(made):
    _, target, _ = made

    def fewer(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["tables"]["item"]["rows"] += 1

    def many(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        lines = b"".join(row_line([f"g{n}", "{}", 1]) for n in range(1_001))
        parts["db/goal/000002"] = lines
        manifest["tables"]["goal"]["rows"] += 1_001

    def unsaid(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        parts["db/goal/000002"] = b"".join(row_line([f"g{n}", "{}", 1]) for n in range(1_001))

    def all_of_them(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["tables"]["item"]["rows"] = 200_001

    def other(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["tables"]["proof"] = {"columns": [["y", "text"]], "rows": 0}

    def columns(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["tables"]["item"]["columns"] = [["key", "text"], ["agent", "text"]]

    for change in (fewer, many, unsaid, all_of_them, other, columns):
        await refused(target, changed(made, change), BackupDamaged)


def _agent(parts: dict[str, bytes], change: Callable[[dict[str, Any]], Any]) -> None:
    agent = orjson.loads(parts["agent.json"])
    change(agent)
    parts["agent.json"] = orjson.dumps(agent)


@pytest.mark.parametrize(
    "more",
    [
        {"status": "deleted"}, {"ticks": -1}, {"ticks": 1 << 62}, {"last_tick_at": 1 << 60}, {"failures": "x"},
        {"pubkey": "ab" * 32}, {"overflow": {"max_depth": 0}}, {"overflow": {"no": 1}},
        {"admission": {"per_minute": -1}},
        {"admission": {"no": 1}}, {"state": 7}, {"section": {}}, {"section": {"name": "other", "program": "scripted"}},
        {"section": {"name": "a", "program": "other"}}, {"section": {"name": "a", "program": "scripted", "no": 1}},
        {"last_cause": "x" * 101}, {"holder": "me"},
    ],
)  # fmt: skip
async def test_what_an_agent_cannot_be(made, more):
    _, target, _ = made
    bad = changed(made, lambda parts, manifest: _agent(parts, lambda agent: agent.update(more)))
    await refused(target, bad, BackupDamaged)


GOOD: dict[str, list[Any]] = {
    "item": ["key", '"value"'],
    "goal": ["g", "{}", 1],
    "mark": ["m"],
    "alarm": ["id", "once", 10, 0, "", "{}", 0, 0, 1],
    "interest": ["id", "payment.received", "{}", 1],
    "hook": ["name", "webhook.x", "hmac"],
    "inbox": ["e", "message", "nostr", "s", "{}", "new", 0, "", 1, 0, 0, None, None, "", 0, None],
    "message": ["ab" * 32, "cd" * 32, "in", "nip17", 14, "text", "received", "", 0, 1, 1],
}
BAD: list[tuple[str, int, Any]] = [
    ("item", 0, ""), ("item", 0, "k" * 401), ("item", 0, None), ("item", 0, 7), ("item", 1, "no json"),
    ("item", 1, '"' + "x" * 65_536 + '"'), ("item", 1, None), ("item", 1, ["x"]),
    ("goal", 0, "../x"), ("goal", 1, "[]"), ("goal", 1, "{"), ("goal", 2, -1), ("goal", 2, 1.5), ("goal", 2, True),
    ("goal", 2, 1 << 62),
    ("mark", 0, ""), ("mark", 0, None),
    ("alarm", 0, "a b"), ("alarm", 1, "sometimes"), ("alarm", 2, -1), ("alarm", 2, 1 << 53), ("alarm", 3, 5_000),
    ("alarm", 4, "* * * * *"), ("alarm", 5, "no"), ("alarm", 5, '{"x":"' + "x" * 16_384 + '"}'), ("alarm", 6, -5),
    ("alarm", 7, 1 << 40), ("alarm", 8, -1),
    ("interest", 0, "a/b"), ("interest", 1, "Payment"), ("interest", 2, '{"evil.field":1}'), ("interest", 2, "no"),
    ("hook", 0, "Name"), ("hook", 1, "a b"), ("hook", 2, "none"),
    ("inbox", 0, ""), ("inbox", 1, "terminate"), ("inbox", 2, ""), ("inbox", 3, "s" * 401), ("inbox", 4, "[]"),
    ("inbox", 4, "no"), ("inbox", 5, "done"), ("inbox", 5, "odd"), ("inbox", 6, -1), ("inbox", 8, -1),
    ("inbox", 9, 1 << 60), ("inbox", 10, 1 << 50), ("inbox", 11, -1), ("inbox", 12, 1 << 62), ("inbox", 15, 5),
    ("message", 0, "short"), ("message", 1, "x"), ("message", 2, "sideways"), ("message", 3, "smtp"),
    ("message", 4, -1), ("message", 5, None), ("message", 6, "queued"), ("message", 6, "held"), ("message", 6, "sent"),
    ("message", 7, "r" * 501), ("message", 8, 2), ("message", 9, -1), ("message", 10, 1 << 60),
]  # fmt: skip


def _with_row(made: Any, table: str, row: list[Any]) -> Path:
    def change(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        parts[f"db/{table}/000009"] = orjson.dumps(row) + b"\n"
        manifest["tables"][table]["rows"] += 1

    return changed(made, change)


@pytest.mark.parametrize("table", sorted(GOOD))
async def test_a_row_that_is_good(made, table):
    _, target, _ = made
    await target.bring(_with_row(made, table, GOOD[table]))


@pytest.mark.parametrize(("table", "place", "value"), BAD, ids=lambda value: str(value)[:20])
async def test_rows_that_no_agent_has(made, table, place, value):
    _, target, _ = made
    row = list(GOOD[table])
    row[place] = value
    await refused(target, _with_row(made, table, row), BackupDamaged)


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"7", b"[", b'["k"]', b'["k","v","w"]', b"\xff", b"[" * 2_000, b'["\\ud800","1"]']
)
async def test_lines_that_are_no_rows(made, line):
    _, target, _ = made

    def change(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        parts["db/item/000009"] = line + b"\n"
        manifest["tables"]["item"]["rows"] += 1

    await refused(target, changed(made, change), BackupDamaged)


async def test_two_rows_with_one_key_are_refused_by_the_database_and_nothing_is_left(made):
    _, target, _ = made

    def twice(parts: dict[str, bytes], manifest: dict[str, Any]) -> None:
        parts["db/item/000009"] = row_line(["k", "1"]) * 2
        parts["work/notes"] = b"mine"
        manifest["tables"]["item"]["rows"] += 2

    await refused(target, changed(made, twice), VendoError)


async def test_the_archive_that_changes_between_its_two_readings_leaves_nothing(made, monkeypatch):
    """It lies in the node's own folder; whoever can write there could do worse. Still nothing is made of it."""
    _, target, _ = made
    good = changed(made, lambda parts, manifest: parts.update({"work/notes": b"mine"}))
    from node.backup import place

    put = place.Places.put

    def swapped(self: Any, *args: Any) -> None:
        parts = parts_of(good)
        write_parts(good, {name: b"evil" if name == "work/notes" else body for name, body in parts.items()})
        put(self, *args)

    monkeypatch.setattr(place.Places, "put", swapped)
    before = await _everything(target)
    with pytest.raises(BackupDamaged, match="was changed"):
        await target.bring(good)
    rows, files, *_ = await _everything(target)
    assert rows == before[0]
    assert not files


async def test_a_list_that_would_take_much_memory_is_not_read(made, monkeypatch):
    """Before anybody's signature counts: whoever hands around an archive decides how long its list is."""
    from node.backup import customs

    monkeypatch.setattr(customs, "MAX_AGENT_MANIFEST", 1_000)
    await refused(made[1], made[2] / "good", BackupUnsafe)


async def test_more_lines_than_a_table_may_have_are_counted_before_they_are_made(made, monkeypatch):
    from node.backup import customs

    def unread(line, kinds):
        raise AssertionError("a line was read")

    manifest = customs.examine(made[2] / "good", 1 << 30).manifest
    monkeypatch.setattr(customs, "read_row", unread)
    part = PartFacts(name="db/mark/000001", size=5_000_000, sha256="0" * 64)
    with pytest.raises(BackupDamaged, match="too many rows"):
        customs._rows(manifest, [part], {part.name: b"\n" * 5_000_000})
