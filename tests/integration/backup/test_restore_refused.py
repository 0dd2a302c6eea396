"""Archives that are not what they say, and places where nothing may be made: refused before anything is."""

import asyncio
import base64
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from core.error import InvalidInput
from node import home
from node.backup.error import BackupDamaged, BackupForged, BackupNewer, BackupRoom, BackupTarget, BackupUnsafe
from node.config import FILE
from node.error import AlreadyRunning, ConfigInvalid
from node.storage.error import NewerSchema
from relays.key import Key, Keyring
from tests.integration.backup.home_part import (
    NOW,
    OTHER_WORDS,
    fill,
    make_home,
    parts_of,
    remade,
    restored,
    take_to,
    write_parts,
)
from tests.postgres_part import fresh_database


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A home, its keys, and a good backup of it: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("made")
    ring = make_home(folder / "h")

    async def make() -> None:
        await fill(folder / "h", ring)
        await take_to(folder / "h", ring, folder / "good")

    asyncio.run(make())
    return folder, ring


@pytest.fixture
def made(once, tmp_path):
    folder, ring = once
    shutil.copytree(folder, tmp_path / "w")
    return tmp_path / "w", ring


async def refused(folder, file, error, match=None, **wish):
    """The restore is refused, and nothing was made: not even for a moment that a crash could keep."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(error, match=match) as caught:
        await restored(file, folder / "new", **wish)
    assert sorted(path.name for path in folder.iterdir()) == before
    return caught.value


def nothing(parts, manifest):
    pass


async def test_a_remade_archive_is_good_when_its_node_signed_it(made):
    """So that what follows is refused for its own reason."""
    folder, ring = made
    await restored(remade(folder / "good", folder / "bad", nothing, ring.node), folder / "new")


# ---- changed by somebody who can write where backups lie


async def test_a_changed_setting_is_noticed_although_the_list_was_made_to_fit(made):
    folder, _ = made

    def take_over(parts, manifest):
        parts[FILE] = parts[FILE].replace(b"contacts = []", b'contacts = ["' + Key.generate().npub.encode() + b'"]')

    bad = remade(folder / "good", folder / "bad", take_over)
    assert parts_of(bad)[FILE] != parts_of(folder / "good")[FILE]
    await refused(folder, bad, BackupForged, "something else")


async def test_a_changed_program_signed_by_another_key_is_refused(made):
    folder, _ = made

    def take_over(parts, manifest):
        parts["agents/mine.py"] = b"evil = True\n"

    await refused(
        folder, remade(folder / "good", folder / "bad", take_over, Key.generate()), BackupForged, "another node"
    )


async def test_another_nodes_signature_and_name_do_not_fit_these_keys(made):
    folder, _ = made
    stranger = Keyring(OTHER_WORDS).node

    def rename(parts, manifest):
        manifest["node"] = stranger.pubkey

    bad = remade(folder / "good", folder / "bad", rename, stranger)
    await refused(folder, bad, BackupForged, "another node than its keys")


async def test_a_strangers_whole_node_is_refused_where_one_is_named_or_there(made):
    folder, ring = made
    other = make_home(folder / "o", OTHER_WORDS)
    await take_to(folder / "o", other, folder / "theirs")
    await refused(folder, folder / "theirs", BackupForged, "another node", node=ring.node.pubkey)
    before = home.open_keyring(folder / "h").words
    with pytest.raises(BackupForged, match="another node"):
        await restored(folder / "theirs", folder / "h", replace=True)
    assert home.open_keyring(folder / "h").words == before


@pytest.mark.parametrize("seal", [b"", b"{}", b"[]", b"\xff", b'{"kind":1}', b"x" * 9_000])
async def test_a_signature_that_is_none_is_refused(made, seal):
    folder, _ = made
    parts = parts_of(folder / "good") | {"signature.json": seal}
    await refused(folder, write_parts(folder / "bad", parts), (BackupForged, BackupUnsafe))


async def test_a_signed_note_is_no_signature_of_a_backup(made):
    folder, ring = made
    from hashlib import sha256

    from relays.event import Draft

    parts = parts_of(folder / "good")
    digest = sha256(parts["manifest.json"]).hexdigest()
    parts["signature.json"] = ring.node.sign(Draft(1, digest, (), NOW)).to_json().encode()
    await refused(folder, write_parts(folder / "bad", parts), BackupForged, "something else")


# ---- not what its list says, though its node signed it


@pytest.mark.parametrize(
    "change",
    [
        lambda parts, manifest: parts.pop("keys.json"),
        lambda parts, manifest: parts.pop("config.toml"),
        lambda parts, manifest: parts.pop("db/log/000001"),
        lambda parts, manifest: parts.update({"files/more": b"x"}),
        lambda parts, manifest: parts.update({"agents/mine.py": b"other"}),
        lambda parts, manifest: manifest["parts"].reverse(),
        lambda parts, manifest: manifest["parts"].append(manifest["parts"][0]),
        lambda parts, manifest: manifest["parts"][0].update(name="../config.toml"),
        lambda parts, manifest: manifest["parts"][2].update(size=-1),
        lambda parts, manifest: manifest["parts"][2].update(sha256="00" * 32),
    ],
)
async def test_what_differs_from_its_list_is_refused(made, change):
    folder, ring = made
    bad = remade(folder / "good", folder / "bad", change, ring.node, listed=False)
    await refused(folder, bad, BackupDamaged)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "1"}, {"taken_at": -1}, {"tables": []}, {"node": "x"}, {"more": 1}, {"kind": "agent"},
        {"stopped": "no"}, {"schema_revision": "../0"}, {"engine": "mysql"}, {"tables": {}}, {"schema_revision": ""},
        {"left_out": ["x" * 501]}, {"id": ""},
    ],
)  # fmt: skip
async def test_a_manifest_that_is_none_is_refused(made, change):
    folder, ring = made
    bad = remade(folder / "good", folder / "bad", lambda parts, manifest: manifest.update(change), ring.node)
    await refused(folder, bad, BackupDamaged)


async def test_newer_archives_and_newer_schemas_are_refused(made):
    folder, ring = made
    newer = remade(folder / "good", folder / "bad", lambda parts, manifest: manifest.update(format=2), ring.node)
    await refused(folder, newer, BackupNewer)
    schema = {"schema_revision": "9999"}
    newer = remade(folder / "good", folder / "bad", lambda parts, manifest: manifest.update(schema), ring.node)
    await refused(folder, newer, NewerSchema)


async def test_a_configuration_of_a_newer_version_is_refused(made):
    folder, ring = made

    def more(parts, manifest):
        parts[FILE] += b"\n[weather]\nsunny = true\n"

    await refused(folder, remade(folder / "good", folder / "bad", more, ring.node), ConfigInvalid, "weather")


@pytest.mark.parametrize(
    "name",
    [
        "control.json",
        "node.db",
        "lock",
        "token",
        "passphrase",
        "db/log",
        "db/LOG/000001",
        "relay",
        "relay/1",
        "files",
        "x",
    ],
)
async def test_a_part_without_a_place_is_refused(made, name):
    folder, ring = made
    bad = remade(folder / "good", folder / "bad", lambda parts, manifest: parts.update({name: b"x"}), ring.node)
    await refused(folder, bad, (BackupUnsafe, BackupDamaged))


async def test_a_part_behind_the_list_is_refused(made):
    folder, _ = made
    parts = parts_of(folder / "good")
    await refused(folder, write_parts(folder / "bad", parts | {"files/x": b"x"}), BackupUnsafe, "behind")
    swapped = {name: parts[name] for name in (*list(parts)[:-2], "signature.json", "manifest.json")}
    await refused(folder, write_parts(folder / "bad", swapped), BackupDamaged, "at its end")


async def test_a_name_that_is_both_file_and_folder_is_refused(made):
    folder, ring = made

    def both(parts, manifest):
        parts.update({"files/a": b"x", "files/a/b": b"x"})

    await refused(folder, remade(folder / "good", folder / "bad", both, ring.node), BackupUnsafe, "both")


# ---- rows that make no database


def rows(*lines):
    def change(parts, manifest):
        parts["db/log/000001"] = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        manifest["tables"]["log"]["rows"] = len(lines)

    return change


@pytest.mark.parametrize(
    "lines",
    [
        ([1, "a", 1, "t"],),
        ([1, "a", 1, "t", "d", "more"],),
        ({"n": 1},),
        (["1", "a", 1, "t", "d"],),
        ([1, 1, 1, "t", "d"],),
        ([1, None, 1, "t", "d"],),
        ([1, "a", 1.5, "t", "d"],),
        ([1, "a", True, "t", "d"],),
        ([1, "a", 1, "t", ["d"]],),
        ([1, "a", 1, "t", "d"], [1, "b", 1, "t", "d"]),
        ([1, "a", 1 << 63, "t", "d"],),
    ],
)
async def test_a_row_that_does_not_fit_its_table_is_refused(made, lines):
    folder, ring = made
    await refused(folder, remade(folder / "good", folder / "bad", rows(*lines), ring.node), BackupDamaged)


@pytest.mark.parametrize("body", [b"not json\n", b"[1,\n", b"\xff\n", b"[" * 2_000 + b"\n", b"\n"])
async def test_a_line_that_is_no_row_is_refused(made, body):
    folder, ring = made

    def change(parts, manifest):
        parts["db/log/000001"] = body

    await refused(folder, remade(folder / "good", folder / "bad", change, ring.node), BackupDamaged)


async def test_bytes_that_are_no_base64_are_refused(made):
    folder, ring = made
    row = ["00", "m", "sat", "k", 1, "live", "o", "no base64!"]

    def change(parts, manifest):
        parts["db/proof/000001"] = orjson.dumps(row) + b"\n"
        manifest["tables"]["proof"]["rows"] = 1

    await refused(folder, remade(folder / "good", folder / "bad", change, ring.node), BackupDamaged)
    row[-1] = base64.b64encode(b"good").decode()
    await restored(remade(folder / "good", folder / "bad", change, ring.node), folder / "new")


@pytest.mark.parametrize(
    "change",
    [
        lambda tables: tables["log"].update(rows=19),
        lambda tables: tables["log"].update(rows=21),
        lambda tables: tables.pop("meta"),
        lambda tables: tables.update(evil={"columns": [["a", "text"]], "rows": 0}),
        lambda tables: tables["log"]["columns"].append(["evil", "text"]),
        lambda tables: tables["log"]["columns"].pop(),
        lambda tables: tables["log"]["columns"][0].reverse(),
        lambda tables: tables["log"].update(columns=[["n", "int"], ["n", "int"]]),
    ],
)
async def test_tables_that_are_not_those_of_the_schema_are_refused(made, change):
    folder, ring = made
    bad = remade(folder / "good", folder / "bad", lambda parts, manifest: change(manifest["tables"]), ring.node)
    await refused(folder, bad, (BackupDamaged,))


async def test_a_name_of_a_column_never_reaches_sql(made):
    folder, ring = made

    def inject(parts, manifest):
        manifest["tables"]["log"]["columns"][0][0] = 'n"; drop table proof; --'

    await refused(folder, remade(folder / "good", folder / "bad", inject, ring.node), BackupDamaged)


# ---- where it is to be


async def test_a_home_that_is_there_stays_and_with_replace_is_kept_beside(made):
    folder, _ = made
    with pytest.raises(BackupTarget):
        await restored(folder / "good", folder / "h")
    (folder / "h" / "mark").write_text("the old one")
    done = await restored(folder / "good", folder / "h", replace=True)
    assert done.before is not None
    assert (done.before / "mark").read_text() == "the old one"
    assert not (folder / "h" / "mark").exists()


async def test_an_empty_folder_is_taken(made):
    folder, _ = made
    (folder / "new").mkdir()
    await restored(folder / "good", folder / "new")
    assert (folder / "new/keys.json").exists()


async def test_a_file_in_the_homes_place_is_left_alone(made):
    folder, _ = made
    (folder / "file").write_text("mine")
    for replace in (False, True):
        with pytest.raises(BackupTarget):
            await restored(folder / "good", folder / "file", replace=replace)
    assert (folder / "file").read_text() == "mine"


async def test_while_a_node_runs_there_nothing_is_restored(made):
    folder, _ = made
    holding = (
        "import sys, time\nfrom pathlib import Path\nfrom node.home import Lock\n"
        "with Lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    node = subprocess.Popen([sys.executable, "-c", holding, str(folder / "h")], stdout=subprocess.PIPE)
    try:
        assert node.stdout is not None
        assert node.stdout.readline() == b"held\n"
        for replace in (False, True):
            with pytest.raises(AlreadyRunning):
                await restored(folder / "good", folder / "h", replace=replace)
    finally:
        node.kill()
        node.wait()


async def test_without_room_nothing_is_made(made, monkeypatch):
    folder, _ = made
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    for free in (1_000, 1 << 20):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: usage(1, 1, free))
        await refused(folder, folder / "good", BackupRoom)


async def test_a_disk_that_fills_in_the_middle_leaves_nothing(made, monkeypatch):
    folder, _ = made

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("node.backup.unpack.os.fsync", full)
    await refused(folder, folder / "good", OSError)


async def test_an_archive_that_is_swapped_between_its_two_readings_is_noticed(made, monkeypatch):
    folder, ring = made

    def evil(parts, manifest):
        parts["agents/mine.py"] = b"evil = True\n"

    good, bad = (folder / "good").read_bytes(), remade(folder / "good", folder / "bad", evil, ring.node).read_bytes()
    from node.backup import restore

    through = restore.check

    def swapped(*args):
        checked = through(*args)
        (folder / "good").write_bytes(bad)
        return checked

    monkeypatch.setattr(restore, "check", swapped)
    await refused(folder, folder / "good", BackupDamaged, "changed while")
    (folder / "good").write_bytes(good)


async def test_moved_is_believed_only_of_a_node_that_was_stopped(made):
    folder, ring = made
    await take_to(folder / "h", ring, folder / "running", stopped=False)
    await refused(folder, folder / "running", InvalidInput, "old copy", moved=True)
    await restored(folder / "good", folder / "new", moved=True)


async def test_a_failed_exchange_puts_the_old_home_back(made, monkeypatch):
    folder, _ = made
    from pathlib import Path

    rename = Path.rename

    def failing(self, target):
        if ".restoring-" in self.name:
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    before = (folder / "h/keys.json").read_bytes()
    with pytest.raises(OSError, match="busy"):
        await restored(folder / "good", folder / "h", replace=True)
    assert (folder / "h/keys.json").read_bytes() == before
    assert not list(folder.glob("*before*"))
    assert not list(folder.glob(".h.restoring*"))


@pytest.mark.needs("postgres")
async def test_a_database_that_holds_something_is_left_alone(made):
    folder, _ = made
    url = await fresh_database()
    await refused(folder, folder / "good", BackupTarget, "not empty", database=url)


async def test_addresses_with_passwords_and_files_elsewhere_are_refused(made):
    folder, _ = made
    for url in (
        "postgresql://me:secret@localhost/x",
        "sqlite:////tmp/elsewhere.db",
        "mysql://x/y",
        "sqlite:///:memory:",
    ):
        error = await refused(folder, folder / "good", InvalidInput, database=url)
        assert "secret" not in str(error)


def test_a_hostile_archive_does_not_take_long(tmp_path):
    """Nothing in it makes the reader work longer than its own bytes are worth."""
    import gzip
    import tarfile

    from node.backup.check import check

    with gzip.open(tmp_path / "many", "wb", 1) as out:
        for number in range(20_000):
            out.write(tarfile.TarInfo(f"files/{number}").tobuf(tarfile.USTAR_FORMAT))
        out.write(bytes(1024))
    began = time.process_time()
    with pytest.raises(BackupDamaged):
        check(tmp_path / "many", 1 << 30)
    assert time.process_time() - began < 20


async def test_what_a_killed_restore_left_goes_with_the_next_one_and_what_another_one_is_at_stays(made):
    folder, _ = made
    left, busy = folder / ".new.restoring-0123456789ab", folder / ".new.restoring-ba9876543210"
    for draft in (left, busy):
        (draft / "files").mkdir(parents=True)
    other = folder / ".old.restoring-0123456789ab"
    other.mkdir()
    handle = os.open(busy, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        await restored(folder / "good", folder / "new")
    finally:
        os.close(handle)
    assert (left.exists(), busy.exists(), other.exists()) == (False, True, True)


async def test_every_folder_of_a_restored_home_is_on_the_disk_before_it_gets_its_name(made, monkeypatch):
    folder, _ = made
    synced, named = set(), []
    real, rename = os.fsync, Path.rename

    def fsync(handle):
        real(handle)
        synced.add(os.fstat(handle).st_ino)

    def renamed(self, target):
        named.append({path for path in (self, *self.rglob("*")) if path.is_dir() and path.stat().st_ino not in synced})
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    await restored(folder / "good", folder / "new")
    assert named == [set()]
    assert (folder / "new" / "files" / "in" / "agent").is_dir()
    assert folder.stat().st_ino in synced
