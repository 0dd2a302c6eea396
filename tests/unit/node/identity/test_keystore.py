"""The seed words at rest, and where their passphrase comes from."""

import json
import os
import stat
import subprocess
import sys

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordSetError

from core.error import InvalidInput, Unavailable
from node import home as homes
from node.identity.error import KeysDamaged, PassphraseNeeded
from node.identity.keystore import Locked, Plain, locked_text, plain_text, read_keys, replace_private, write_private
from node.identity.passphrase import CREDENTIAL, VARIABLE, Sources, ask_new, from_keyring, into_keyring, read_file
from relays.error import WrongPassphrase
from relays.key import Keyring

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
RING, COST = Keyring(WORDS), 10
ORDER = ("environment", "file", "keyring", "prompt")


def locked(path, passphrase="right", ring=RING) -> Locked:
    path.unlink(missing_ok=True)
    write_private(path, locked_text(ring, passphrase, COST))
    keys = read_keys(path)
    assert isinstance(keys, Locked)
    return keys


def secret_file(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


class MemoryKeyring(KeyringBackend):
    """A keyring of the operating system, in memory: keyring's own way to add one."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service, username):
        return self.held.get((service, username))

    def set_password(self, service, username, password):
        if not password:
            raise PasswordSetError
        self.held[service, username] = password

    def delete_password(self, service, username):
        del self.held[service, username]


@pytest.fixture
def os_keyring():
    before, ours = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


def test_locked_words_come_back_with_the_passphrase_and_are_nowhere_without_it(tmp_path):
    keys = locked(tmp_path / "keys.json")
    assert keys.ring("right").words == WORDS
    raw = (tmp_path / "keys.json").read_bytes()
    assert b"legal" not in raw
    assert b"ncryptsec1" in raw
    assert keys.log_n == COST
    with pytest.raises(WrongPassphrase):
        keys.ring("wrong")


def test_plain_words_still_open(tmp_path):
    write_private(tmp_path / "keys.json", plain_text(RING))
    keys = read_keys(tmp_path / "keys.json")
    assert isinstance(keys, Plain)
    assert keys.ring().node.pubkey == RING.node.pubkey
    assert "legal" not in repr(keys)


def test_words_of_another_file_do_not_open_under_this_lock(tmp_path):
    keys, other = locked(tmp_path / "a"), locked(tmp_path / "b")
    for mixed in (Locked(keys.node, keys.lock, other.sealed), Locked("npub1x", keys.lock, keys.sealed)):
        with pytest.raises(KeysDamaged):
            mixed.ring("right")


def _ring_of(path):
    keys = read_keys(path)
    return keys.ring() if isinstance(keys, Plain) else keys.ring("right")


@pytest.mark.parametrize("field", ["node", "lock", "words", "version"])
def test_a_file_without_one_of_its_fields_is_damaged(tmp_path, field):
    path = tmp_path / "keys.json"
    locked(path)
    body = json.loads(path.read_text())
    del body[field]
    path.write_text(json.dumps(body))
    with pytest.raises(InvalidInput):
        _ring_of(path)  # without a version it is taken for words, which it is not


@pytest.mark.parametrize("text", ["", "{", "[]", '{"words": 1}', '{"version": 9, "words": ""}'])
def test_junk_is_damaged(tmp_path, text):
    with pytest.raises(KeysDamaged):
        read_keys(secret_file(tmp_path / "keys.json", text))


def test_a_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "keys.json"
    locked(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="others"):
        read_keys(path)


def test_replacing_leaves_a_private_file_whole(tmp_path):
    path = tmp_path / "keys.json"
    locked(path, "old")
    replace_private(path, locked_text(RING, "new", COST))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]
    keys = read_keys(path)
    assert isinstance(keys, Locked)
    assert keys.ring("new").words == WORDS
    with pytest.raises(WrongPassphrase):
        keys.ring("old")


def test_the_first_source_that_has_one_gives_the_passphrase(tmp_path, os_keyring):
    keys = locked(tmp_path / "keys.json")
    file = secret_file(tmp_path / "p", "right\n")
    into_keyring(keys.node, "right")
    asked = []

    def ask(text):
        asked.append(text)
        return "right"

    for order in (("environment",), ("file",), ("keyring",), ("prompt",)):
        sources = Sources(order, file, {VARIABLE: "right"}, ask)
        assert sources.unlock(keys).words == WORDS
    assert len(asked) == 1


def test_the_environment_s_passphrase_is_gone_once_it_was_read(tmp_path):
    environ = {VARIABLE: "right", "OTHER": "x"}
    assert Sources(ORDER, None, environ).unlock(locked(tmp_path / "keys.json")).words == WORDS
    assert environ == {"OTHER": "x"}


def test_a_wrong_passphrase_is_told_by_its_source_and_no_other_is_tried(tmp_path, os_keyring):
    keys = locked(tmp_path / "keys.json")
    into_keyring(keys.node, "right")
    before = (tmp_path / "keys.json").read_bytes()
    with pytest.raises(WrongPassphrase, match="file"):
        Sources(ORDER, secret_file(tmp_path / "p", "wrong"), {}, lambda _: "right").unlock(keys)
    assert (tmp_path / "keys.json").read_bytes() == before


def test_a_person_may_try_three_times(tmp_path):
    keys, answers = locked(tmp_path / "keys.json"), iter(["a", "b", "right"])
    assert Sources(ORDER, None, {}, lambda _: next(answers)).unlock(keys).words == WORDS
    answers = iter(["a", "b", "c", "right"])
    with pytest.raises(WrongPassphrase):
        Sources(("prompt",), None, {}, lambda _: next(answers)).unlock(keys)
    assert next(answers) == "right"


def test_without_any_source_the_keys_stay_locked(tmp_path):
    with pytest.raises(PassphraseNeeded):
        Sources(("environment", "file", "prompt"), None, {}).unlock(locked(tmp_path / "keys.json"))


def test_a_credential_of_systemd_is_a_file(tmp_path):
    secret_file(tmp_path / CREDENTIAL, "right")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert Sources(("file",), None, environ).unlock(locked(tmp_path / "keys.json")).words == WORDS


def test_a_passphrase_s_file_is_its_first_line_and_private(tmp_path):
    assert read_file(secret_file(tmp_path / "p", " two words \r\nmore\n")) == " two words "
    for text, mode in (("right", 0o644), ("", 0o600), ("\n", 0o600), ("x" * 5_000, 0o600)):
        with pytest.raises(InvalidInput):
            read_file(secret_file(tmp_path / "p", text, mode))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(tmp_path / "none")


def test_a_machine_without_a_keyring_has_nothing_and_takes_nothing():
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    try:
        assert from_keyring("npub") is None
        with pytest.raises(Unavailable):
            into_keyring("npub", "x")
    finally:
        keyring.set_keyring(before)


def test_a_new_passphrase_is_asked_for_twice():
    answers = iter(["a", "a"])
    assert ask_new(lambda _: next(answers)) == "a"
    for wrong in (["a", "b"], ["", ""]):
        given = iter(wrong)
        with pytest.raises(InvalidInput):
            ask_new(lambda _, given=given: next(given))


def test_a_home_opens_with_the_file_that_its_configuration_names(tmp_path):
    file = secret_file(tmp_path / "p", "right")
    home = tmp_path / "home"
    made = homes.create(
        home, relays=["ws://127.0.0.1:1"], mints=[], passphrase="right", passphrase_file=file, log_n=COST
    )
    assert made.words not in (home / homes.KEYS).read_text()
    assert homes.open_keyring(home).words == made.words
    secret_file(file, "wrong")
    with pytest.raises(WrongPassphrase):
        homes.open_keyring(home)


def test_a_relative_file_is_in_the_home(tmp_path):
    home = tmp_path / "home"
    made = homes.create(home, relays=["ws://127.0.0.1:1"], mints=[], passphrase="right", log_n=COST)
    secret_file(home / "p", "right")
    settings = home / "config.toml"
    settings.write_text(settings.read_text().replace('passphrase_file = ""', 'passphrase_file = "p"'))
    assert homes.open_keyring(home).words == made.words
    assert os.environ.get(VARIABLE) is None


def test_a_node_leaves_its_passphrase_to_no_process_and_its_memory_to_no_file(tmp_path):
    """Also where the passphrase was not needed: the keys are readable, or another source came first."""
    code = (
        "import os, resource; from node.identity.passphrase import shield; shield(); "
        f"print({VARIABLE!r} in os.environ, resource.getrlimit(resource.RLIMIT_CORE));"
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    environ = {**os.environ, VARIABLE: "right"}
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout == "False (0, 0)\n0\n"


def test_what_was_made_shows_no_words(tmp_path):
    made = homes.create(tmp_path / "home", relays=["ws://127.0.0.1:1"], mints=[])
    assert made.words not in repr(made)
