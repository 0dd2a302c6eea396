"""`vendo backup` and `vendo restore` as commands: files that are whole or not there, pipes, and what is said."""

import os
import subprocess
import sys

from node import home
from node.config import FILE
from relays.key import npub
from tests.integration.backup.home_part import make_home
from tests.market_part import run, vendo


async def test_a_backup_goes_through_a_pipe_and_comes_out_of_one(tmp_path):
    ring = make_home(tmp_path / "one")
    command = (
        f'"$PY" -m cli.main backup - --home {tmp_path / "one"} '
        f'| "$PY" -m cli.main restore - --home {tmp_path / "two"} --json'
    )
    ran = await run("sh", "-c", command, env={**os.environ, "PY": sys.executable})
    assert ran.code == 0, ran
    answer = ran.json
    assert (answer["home"], answer["before"], answer["npub"]) == (str(tmp_path / "two"), None, npub(ring.node.pubkey))
    assert answer["stopped"] is True
    assert not list(tmp_path.glob(".vendo-restore-*"))
    assert home.open_keyring(tmp_path / "two").words == ring.words


async def test_a_backup_that_fails_leaves_no_file_and_one_that_was_there_stays(tmp_path):
    make_home(tmp_path / "one")
    target, config = tmp_path / "backup", tmp_path / "one" / FILE
    target.write_text("the old one")
    text = config.read_text()
    config.write_text("this is no TOML")
    ran = await vendo("backup", str(target), "--home", str(tmp_path / "one"), "--json")
    assert (ran.code, ran.error_code) == (78, "config.invalid")
    assert target.read_text() == "the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "one"]
    config.write_text(text)
    ran = await vendo("backup", str(target), "--home", str(tmp_path / "one"), "--json")
    assert ran.code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert ran.json["bytes"] == target.stat().st_size
    assert any("passphrase" in line for line in ran.json["left_out"])


async def test_a_backup_does_not_go_among_the_files_that_it_is_of(tmp_path):
    make_home(tmp_path / "one")
    (tmp_path / "one/agents").mkdir()
    for place in ("one/backup", "one/agents/backup", "one/keys.json", "one/../one/config.toml"):
        ran = await vendo("backup", str(tmp_path / place), "--home", str(tmp_path / "one"), "--json")
        assert (ran.code, ran.error_code) == (64, "input.invalid"), place
    assert home.open_keyring(tmp_path / "one")


async def test_an_encrypted_home_needs_its_passphrase_where_no_node_runs_to_sign(tmp_path):
    path = tmp_path / "one"
    home.create(path, relays=["ws://127.0.0.1:9"], mints=[], port=0, passphrase="open sesame", log_n=10)
    ran = await vendo("backup", str(tmp_path / "b"), "--home", str(path), "--json")
    assert (ran.code, ran.error_code) == (77, "key.locked")
    assert not (tmp_path / "b").exists()
    env = {**os.environ, "VENDO_PASSPHRASE": "open sesame"}
    argv = [sys.executable, "-m", "cli.main", "backup", str(tmp_path / "b"), "--home", str(path), "--json"]
    assert subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0
    assert b"open sesame" not in (tmp_path / "b").read_bytes()
    ran = await vendo("restore", str(tmp_path / "b"), "--home", str(tmp_path / "two"), "--json")
    assert ran.code == 0, "what is encrypted is restored as it is"
    assert (tmp_path / "two/keys.json").read_bytes() == (path / "keys.json").read_bytes()


async def test_a_damaged_backup_says_so_and_exits_with_65(tmp_path):
    make_home(tmp_path / "one")
    assert (await vendo("backup", str(tmp_path / "b"), "--home", str(tmp_path / "one"))).code == 0
    raw = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(raw[: len(raw) // 2])
    ran = await vendo("restore", str(tmp_path / "b"), "--home", str(tmp_path / "two"), "--json")
    assert (ran.code, ran.error_code) == (65, "backup.damaged")
    assert not (tmp_path / "two").exists()
    ran = await vendo("restore", str(tmp_path / "absent"), "--home", str(tmp_path / "two"), "--json")
    assert ran.code == 78
