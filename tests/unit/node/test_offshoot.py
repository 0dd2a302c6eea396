"""A further home for the same node: its keys and settings, and what one process needs for itself."""

import stat
from pathlib import Path

import pytest

from node import config
from node.error import ConfigInvalid, HomeExists, HomeMissing
from node.home import create, database_of, open_keyring, passphrase_sources, read_token
from node.share.offshoot import join

URL = "postgresql://vendo@/vendo?host=/run/postgresql"


def _home(path: Path, *, url: str = URL, more: dict[str, str] | None = None) -> Path:
    create(path, relays=["ws://127.0.0.1:7777"], mints=["http://127.0.0.1:3338"], database=url, name="first")
    text = (path / config.FILE).read_text()
    for old, new in (more or {}).items():
        assert old in text
        text = text.replace(old, new)
    (path / config.FILE).write_text(text)
    return path


def test_it_has_the_same_keys_and_settings_and_its_own_port_and_token(tmp_path: Path) -> None:
    first = _home(tmp_path / "first")
    made = join(tmp_path / "second", first)
    before, after = config.load(first), config.load(made.home)
    assert open_keyring(made.home).words == open_keyring(first).words
    assert read_token(made.home) != read_token(first)
    assert (before.node.port, after.node.port) == (8080, 0)
    assert after.model_copy(update={"node": after.node.model_copy(update={"port": 8080})}) == before
    assert "# 0 takes a free port" in (made.home / config.FILE).read_text(), "the comments are still there"
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.home.iterdir()} == {0o600}
    assert stat.S_IMODE(made.home.stat().st_mode) == 0o700


def test_files_that_are_named_in_the_settings_are_found_from_there(tmp_path: Path) -> None:
    first = _home(
        tmp_path / "first",
        more={
            'passphrase_file = ""': 'passphrase_file = "secret"',
            'password_file = ""': 'password_file = "password"',
            'nwc_file = ""': 'nwc_file = "wallet.nwc"',
        },
    )
    (first / "password").write_text("hush\n")
    (first / "password").chmod(0o600)
    made = join(tmp_path / "second", first, 9_000)
    assert config.load(made.home).node.port == 9_000
    assert "hush" in str(database_of(made.home, config.load(made.home).storage))
    assert passphrase_sources(made.home).file == first / "secret"
    assert config.load(made.home).lightning.nwc_file == str(first / "wallet.nwc")


def test_the_relay_stays_where_it_is_and_programs_come_along(tmp_path: Path) -> None:
    first = _home(tmp_path / "first", more={"enabled = false": "enabled = true"})
    (first / "agents").mkdir()
    (first / "agents" / "counter.py").write_text("# a program\n")
    (first / "agents" / "link.py").symlink_to(first / "agents" / "counter.py")
    made = join(tmp_path / "second", first)
    assert made.relay_left
    assert not config.load(made.home).relay.enabled
    assert [path.name for path in (made.home / "agents").iterdir()] == ["counter.py"]


def test_a_node_on_a_file_takes_no_second_process(tmp_path: Path) -> None:
    first = _home(tmp_path / "first", url="sqlite:///node.db")
    with pytest.raises(ConfigInvalid, match="one process"):
        join(tmp_path / "second", first)
    assert not (tmp_path / "second").exists()


def test_a_home_that_is_there_is_left_alone_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    first, second = _home(tmp_path / "first"), _home(tmp_path / "second")
    words = open_keyring(second).words
    with pytest.raises(HomeExists):
        join(second, first)
    assert open_keyring(second).words == words
    with pytest.raises(HomeMissing):
        join(tmp_path / "third", tmp_path / "nowhere")
