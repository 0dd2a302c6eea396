"""A home as a file, and back: whole, also while somebody writes, and from one engine to the other."""

import asyncio
import os
import stat
import time
import tracemalloc

import orjson
import pytest

from core.clock import SystemClock
from core.unit import Insert, Update
from node import home
from node.backup import part
from node.backup.error import BackupMoved
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from node.storage.dump import open_dump
from node.storage.migration import revisions
from relays.embedded.archive import exported, import_events
from relays.event import Draft
from relays.key import Key
from tests.integration.backup.home_part import (
    NOW,
    fill,
    make_home,
    old_database,
    parts_of,
    restored,
    rows_of,
    take_to,
)
from tests.postgres_part import fresh_database


def without_mark(rows):
    rows["meta"] = [row for row in rows["meta"] if row[0] != "restored"]
    return rows


async def test_every_row_and_file_comes_back(tmp_path):
    ring = make_home(tmp_path / "h")
    await fill(tmp_path / "h", ring)
    manifest = await take_to(tmp_path / "h", ring, tmp_path / "b")
    assert manifest.tables["log"].rows == 20
    made = await restored(tmp_path / "b", tmp_path / "again")
    assert made.before is None
    again = tmp_path / "again"
    assert without_mark(await rows_of(again / "node.db")) == await rows_of(tmp_path / "h" / "node.db")
    for name in ("config.toml", "keys.json", "agents/mine.py", "agents/tool", f"files/in/agent/{'ab' * 32}"):
        assert (again / name).read_bytes() == (tmp_path / "h" / name).read_bytes()
    assert home.open_keyring(again).words == ring.words
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in again.rglob("*")}
    assert modes["tool"] == 0o700
    assert {modes[name] for name in ("keys.json", "config.toml", "token", "node.db", "mine.py")} == {0o600}
    assert stat.S_IMODE(again.stat().st_mode) == 0o700


async def test_what_is_not_in_a_backup(tmp_path):
    ring = make_home(tmp_path / "h")
    (tmp_path / "h" / "passphrase").write_text("secret\n")
    (tmp_path / "h" / "control.json").write_text("{}")
    (tmp_path / "h" / "notes").write_text("mine")
    manifest = await take_to(tmp_path / "h", ring, tmp_path / "b")
    assert set(parts_of(tmp_path / "b")) == {"config.toml", "keys.json", "manifest.json", "signature.json"}
    assert any("passphrase" in line for line in manifest.left_out)
    assert any("token" in line for line in manifest.left_out)
    await restored(tmp_path / "b", tmp_path / "again")
    assert home.read_token(tmp_path / "again") != home.read_token(tmp_path / "h")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["config.toml", "keys.json", "token"]


async def test_links_and_pipes_among_the_files_are_left_out_and_said(tmp_path):
    ring = make_home(tmp_path / "h")
    folder = tmp_path / "h" / "agents"
    folder.mkdir()
    (tmp_path / "secret").write_text("not mine to give")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (tmp_path / "h" / "files").mkdir()
    (tmp_path / "h" / "files" / "half.part").write_text("half")
    (tmp_path / "h" / "work" / "tool").mkdir(parents=True)
    (tmp_path / "h" / "work" / "tool" / "own.part").write_text("whole")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("x")
    manifest = await take_to(tmp_path / "h", ring, tmp_path / "b")
    names = [name for name in parts_of(tmp_path / "b") if name.startswith(("agents/", "files/", "work/"))]
    assert names == ["work/tool/own.part"]
    said = "\n".join(manifest.left_out)
    assert "agents/link" in said
    assert "agents/folder" in said
    assert "agents/pipe" in said


async def test_a_copy_says_that_it_is_one_and_forgets_its_ledgers_runs(tmp_path):
    ring = make_home(tmp_path / "h")
    await fill(tmp_path / "h", ring)
    database = await open_database(tmp_path / "h/node.db", seal=ledger_seal(ring.node), clock=SystemClock())
    keys = ("run", "run/1", "restored", "runner")
    await database.commit([Insert("meta", {"key": key, "value": "{}"}) for key in keys])
    await database.aclose()
    await take_to(tmp_path / "h", ring, tmp_path / "b", stopped=False)
    await restored(tmp_path / "b", tmp_path / "again")
    meta = dict((await rows_of(tmp_path / "again/node.db"))["meta"])
    assert "run" not in meta
    assert "run/1" not in meta
    assert meta["runner"] == "{}"
    mark = orjson.loads(meta["restored"])
    assert (mark["taken_at"], mark["restored_at"], mark["moved"]) == (NOW, NOW + 100, False)


async def test_the_database_is_one_moment_while_somebody_writes(tmp_path):
    """Two rows change together in every unit: in the backup they are the same."""
    ring = make_home(tmp_path / "h")
    database = await open_database(tmp_path / "h/node.db", seal=ledger_seal(ring.node), clock=SystemClock())
    log = [Insert("log", {"agent": "a", "at_ms": number, "type": "t", "data": "{}"}) for number in range(30_000)]
    await database.commit([*log, Insert("meta", {"key": "one", "value": "0"}), Insert("counter", {"keyset": "two"})])
    stop, latencies = asyncio.Event(), []

    async def write() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            one = Update("meta", {"key": "one"}, {"value": str(number)})
            two = Update("counter", {"keyset": "two"}, {"next": number})
            began = time.perf_counter()
            await database.commit([one, two, Insert("log", {"agent": "b", "at_ms": 1, "type": "t", "data": "{}"})])
            latencies.append(time.perf_counter() - began)
        return number

    writing = asyncio.create_task(write())
    while not latencies:
        await asyncio.sleep(0.01)
    before = len(latencies)
    await asyncio.to_thread(lambda: asyncio.run(take_to(tmp_path / "h", ring, tmp_path / "b", stopped=False)))
    during = len(latencies) - before
    stop.set()
    last = await writing
    await database.aclose()
    await restored(tmp_path / "b", tmp_path / "again")
    rows = await rows_of(tmp_path / "again/node.db")
    one, two = int(dict(rows["meta"])["one"]), dict(rows["counter"])["two"]
    assert one == two
    assert 0 < one < last
    assert sum(1 for row in rows["log"] if row[1] == "b") == one
    assert during >= 3, "no commit waits for a backup"


async def test_a_backup_of_many_rows_takes_no_memory_for_them(tmp_path):
    ring = make_home(tmp_path / "h")
    database = await open_database(tmp_path / "h/node.db", seal=ledger_seal(ring.node), clock=SystemClock())
    for _ in range(40):
        data = [os.urandom(1_500).hex() for _ in range(250)]
        await database.commit([Insert("log", {"agent": "a", "at_ms": 1, "type": "t", "data": one}) for one in data])
    await database.aclose()
    tracemalloc.start()
    await take_to(tmp_path / "h", ring, tmp_path / "b")
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    await restored(tmp_path / "b", tmp_path / "again")
    put = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 20 << 20, f"{taken >> 20} MiB for 30 MiB of rows"
    assert put < 20 << 20, f"{put >> 20} MiB for 30 MiB of rows"


async def test_an_older_schema_is_brought_forward(tmp_path):
    ring = make_home(tmp_path / "h")
    old_database(tmp_path / "h/node.db", revisions()[0])
    manifest = await take_to(tmp_path / "h", ring, tmp_path / "b")
    assert manifest.schema_revision == revisions()[0]
    await restored(tmp_path / "b", tmp_path / "again")
    async with open_dump(tmp_path / "again/node.db") as dump:
        assert dump.revision == revisions()[-1]
    rows = await rows_of(tmp_path / "again/node.db")
    assert ("old", "row") in rows["meta"]
    assert rows["goal"] == [("agent", "g", "{}", 1)]


async def test_the_relays_events_come_too(tmp_path):
    ring = make_home(tmp_path / "h")
    lines = [Key.generate().sign(Draft(1, f"note {n}", (), int(time.time()))).to_json().encode() for n in range(30)]
    import_events(tmp_path / "h/relay.db", lines, 1 << 26, (), int(time.time()))
    manifest = await take_to(tmp_path / "h", ring, tmp_path / "b")
    assert manifest.relay_events == 30
    made = await restored(tmp_path / "b", tmp_path / "again")
    assert made.relay_refused == 0
    now = int(time.time())
    assert set(exported(tmp_path / "again/relay.db", now)) == set(exported(tmp_path / "h/relay.db", now))


async def test_a_file_that_grows_or_shrinks_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    ring = make_home(tmp_path / "h")
    await fill(tmp_path / "h", ring)
    read = os.read

    def shrinking(handle, count):
        os.truncate(tmp_path / "h/agents/mine.py", 1)
        return read(handle, count)

    monkeypatch.setattr(part.os, "read", shrinking)
    with pytest.raises(BackupMoved):
        await take_to(tmp_path / "h", ring, tmp_path / "b")


@pytest.mark.needs("postgres")
async def test_from_a_file_to_postgresql_and_back(tmp_path):
    ring = make_home(tmp_path / "h")
    await fill(tmp_path / "h", ring)
    await take_to(tmp_path / "h", ring, tmp_path / "b")
    url = await fresh_database(bare=True)
    await restored(tmp_path / "b", tmp_path / "pg", database=url)
    assert not (tmp_path / "pg/node.db").exists()
    assert f'url = "{url}"' in (tmp_path / "pg/config.toml").read_text()
    first = await rows_of(tmp_path / "h/node.db")
    assert without_mark(await rows_of(url)) == first

    database = await open_database(url, seal=ledger_seal(ring.node), clock=SystemClock())
    await database.commit([Insert("log", {"agent": "a", "at_ms": 1, "type": "t", "data": "{}"})])
    newest = await database.select("log", order=("-n",), limit=1)
    await database.aclose()
    assert newest[0]["n"] == 21, "what is numbered goes on after the rows that are there"

    manifest = await take_to(tmp_path / "pg", ring, tmp_path / "b2")
    assert manifest.engine == "postgresql"
    assert not manifest.stopped, "nobody knows who else uses a server"
    await restored(tmp_path / "b2", tmp_path / "back", database="sqlite:///node.db")
    back = without_mark(await rows_of(tmp_path / "back/node.db"))
    back["log"] = [row for row in back["log"] if row[0] <= 20]
    assert back == first
