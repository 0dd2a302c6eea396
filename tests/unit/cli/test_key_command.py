"""`vendo key`, and what `init` wants to know: on homes without a running node."""

import errno
import io
import json
import os
import pty
import sys

import keyring
import pytest

from cli import rekey
from cli.main import run
from cli.output import ExitCode
from cli.passphrase import choose
from core.error import InvalidInput
from node import config
from node.home import KEYS, create, lock_keys, open_keyring
from node.identity.passphrase import VARIABLE
from relays.key import Key
from relays.nip49 import decrypt_key
from tests.unit.node.identity.test_keystore import MemoryKeyring

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.fixture
def plain(tmp_path):
    create(tmp_path / "h", relays=["ws://127.0.0.1:9"], mints=[], words=WORDS, log_n=10)
    return tmp_path / "h"


@pytest.fixture
def os_keyring():
    before, ours = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_home_is_locked_with_the_operating_system_s_keyring_and_opens_with_it(plain, os_keyring, capsys):
    assert run(["key", "encrypt", "--home", str(plain), "--passphrase-keyring", "--json"]) == 0
    assert said(capsys)["encrypted"] is True
    assert WORDS.split()[0] not in (plain / KEYS).read_text()
    assert open_keyring(plain).words == WORDS
    ((_, name),) = os_keyring.held
    assert name == open_keyring(plain).node.npub


def test_init_keeps_its_passphrase_in_the_keyring_before_anything_is_locked(tmp_path, os_keyring, capsys):
    argv = ["init", "--home", str(tmp_path / "h"), "--relay", "ws://127.0.0.1:9", "--passphrase-keyring", "--json"]
    assert run(argv) == 0
    assert open_keyring(tmp_path / "h").words == said(capsys)["words"]


def test_without_a_keyring_nothing_is_locked(plain, capsys):
    before = (plain / KEYS).read_bytes()
    held = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    try:
        assert run(["key", "encrypt", "--home", str(plain), "--passphrase-keyring", "--json"]) == ExitCode.UNAVAILABLE
    finally:
        keyring.set_keyring(held)
    assert (plain / KEYS).read_bytes() == before
    assert said(capsys)["error"]["code"] == "unavailable"


def test_a_new_passphrase_s_file_is_named_in_the_configuration_and_comments_stay(plain, tmp_path, capsys):
    commented = (plain / config.FILE).read_text().count("#")
    assert run(["key", "encrypt", "--home", str(plain), "--passphrase-file", str(tmp_path / "p"), "--json"]) == 0
    assert config.load(plain).keys.passphrase_file == str(tmp_path / "p")
    assert (plain / config.FILE).read_text().count("#") == commented
    assert (plain / config.FILE).stat().st_mode & 0o077 == 0
    assert open_keyring(plain).words == WORDS


def test_an_older_configuration_without_keys_gets_the_setting(plain, tmp_path, capsys):
    text = (plain / config.FILE).read_text()
    before, _, rest = text.partition("[keys]")
    (plain / config.FILE).write_text(before + "[[agent]]" + rest.partition("[[agent]]")[2])
    assert run(["key", "encrypt", "--home", str(plain), "--passphrase-file", str(tmp_path / "p")]) == 0
    assert open_keyring(plain).words == WORDS


def test_a_passphrase_is_changed_and_taken_off(plain, tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    for file in (old, new):
        assert run(["key", "encrypt", "--home", str(plain), "--passphrase-file", str(file), "--json"]) == 0
        assert said(capsys) == {"node": open_keyring(plain).node.npub, "encrypted": True, "scrypt_log_n": 10}
    assert old.read_text() != new.read_text()
    old.unlink()
    assert open_keyring(plain).words == WORDS
    assert run(["key", "encrypt", "--home", str(plain), "--json"]) == ExitCode.REFUSED
    assert said(capsys)["error"]["code"] == "key.locked", "nobody is there to be asked for a new one"
    assert run(["key", "encrypt", "--home", str(plain), "--no-passphrase", "--json"]) == 0
    assert said(capsys)["encrypted"] is False
    new.unlink()
    assert open_keyring(plain).words == WORDS


def test_a_wrong_current_passphrase_changes_nothing(plain, tmp_path, monkeypatch, capsys):
    lock_keys(plain, open_keyring(plain), "right", 10)
    before = (plain / KEYS).read_bytes()
    monkeypatch.setenv(VARIABLE, "wrong")
    argv = ["key", "encrypt", "--home", str(plain), "--passphrase-file", str(tmp_path / "p"), "--json"]
    assert run(argv) == ExitCode.REFUSED
    assert said(capsys)["error"]["code"] == "key.passphrase"
    assert (plain / KEYS).read_bytes() == before
    assert VARIABLE not in os.environ


def test_a_person_at_a_terminal_types_the_new_passphrase_twice(tmp_path):
    """In a process of its own, whose terminal is a real pseudo-terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        home = str(tmp_path / "h")
        os.execv(
            sys.executable, [sys.executable, "-m", "cli.main", "init", "--home", home, "--relay", "ws://127.0.0.1:9"]
        )
    shown = io.BytesIO()
    for prompt, answer in ((b"Make a node", b"y\n"), (b"New passphrase", b"typed\n"), (b"same again", b"typed\n")):
        while prompt not in shown.getvalue():
            shown.write(os.read(terminal, 4_096))
        os.write(terminal, answer)
    try:
        while chunk := os.read(terminal, 4_096):
            shown.write(chunk)
    except OSError:
        pass  # the other side of a pseudo-terminal that has ended
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.getvalue()
    assert b"typed" not in shown.getvalue()
    assert "ncryptsec1" in (tmp_path / "h" / KEYS).read_text()


def test_exports_of_the_node_s_own_keys_open_with_their_passphrase(plain, tmp_path, capsys):
    for name in ("node", "operator"):
        argv = ["key", "export", name, "--home", str(plain), "--passphrase-file", str(tmp_path / "p"), "--json"]
        assert run(argv) == 0
        made = said(capsys)
        key = getattr(open_keyring(plain), name)
        assert "nsec" not in made
        assert decrypt_key(made["ncryptsec"], (tmp_path / "p").read_text().strip()).secret == key.secret
    assert run(["key", "export", "node", "--home", str(plain), "--reveal", "--json"]) == 0
    assert Key.parse(said(capsys)["nsec"]).secret == open_keyring(plain).node.secret
    assert run(["key", "export", "nobody", "--home", str(plain), "--reveal", "--json"]) == ExitCode.DATA


def test_an_export_asks_for_the_home_s_passphrase(plain, tmp_path, capsys):
    lock_keys(plain, open_keyring(plain), "right", 10)
    assert run(["key", "export", "node", "--home", str(plain), "--reveal", "--json"]) == ExitCode.REFUSED
    assert said(capsys)["error"]["code"] == "key.locked"


def test_one_way_to_encrypt_is_chosen_and_not_two(tmp_path):
    with pytest.raises(InvalidInput):
        choose(tmp_path / "p", False, True)
    with pytest.raises(InvalidInput):
        choose(None, True, True)
    assert not (tmp_path / "p").exists()


def test_a_change_that_ends_between_the_keyring_and_the_file_locks_nobody_out(plain, os_keyring, capsys, monkeypatch):
    """The passphrase before was random and stood in the keyring alone."""
    argv = ["key", "encrypt", "--home", str(plain), "--passphrase-keyring", "--json"]
    assert run(argv) == 0

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(rekey, "lock_keys", full)
        for _ in range(3):
            assert run(argv) != 0
    assert open_keyring(plain).words == WORDS
    assert run(argv) == 0
    assert open_keyring(plain).words == WORDS
    assert len(os_keyring.held) == 1, "what is not needed any more is not kept"
