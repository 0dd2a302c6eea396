"""What `vendo doctor` finds on this machine: causes by name, and what to type."""

import asyncio
import fcntl
import json
import os
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli import diagnosis
from cli.checkup.finding import Loop, State, bounded, detached
from cli.checkup.machine import unmet
from cli.checkup.place import Running, disk, newest, process
from cli.checkup.port import Door, certificate, port
from cli.diagnosis import diagnose
from cli.main import run
from cli.output import ExitCode
from node import config
from node.backup.memo import Memo, note_backup
from node.home import CONTROL, KEYS, LOCK, PASSPHRASE, TOKEN, Lock, write_control
from node.storage.migration import make_at, revisions

DEAD = "ws://127.0.0.1:9"


@pytest.fixture
def home(tmp_path):
    made = tmp_path / "h"
    assert run(["init", "--home", str(made), "--relay", DEAD, "--port", "0", "--no-passphrase"]) == 0
    return made


def change(home, old, new):
    file = home / config.FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def found(home, name):
    return next(check for check in await diagnose(home) if check.name == name)


async def test_all_that_is_not_well_comes_with_what_to_do(home):
    (home / KEYS).chmod(0o640)
    (home / TOKEN).unlink()
    (home / LOCK).touch()
    home.chmod(0o755)
    change(home, 'program = "buyer"', 'program = "nobody"')
    change(home, "min_free_mb = 128", "min_free_mb = 1048576")
    bad = {check.name: check for check in await diagnose(home) if check.state is not State.OK}
    assert {KEYS, TOKEN, "keys", "home", "agent agent", "disk", "process", "backup", f"relay {DEAD}"} <= set(bad)
    assert [check.name for check in bad.values() if not check.fix] == []


async def test_a_sound_home_has_nothing_that_fails_here(home):
    assert [check for check in await diagnose(home) if check.state is State.FAIL and not check.outside] == []


# ---- time


async def test_nothing_waits_for_what_does_not_answer(home):
    (home / config.FILE).rename(home / "elsewhere")
    os.mkfifo(home / config.FILE)
    begun = time.monotonic()
    checks = await diagnose(home, 0.3)
    assert time.monotonic() - begun < 20
    check = next(check for check in checks if check.name == "config")
    assert check.state is State.FAIL
    assert "was not read within 0.3 s" in check.detail
    with (home / config.FILE).open("w"):  # the thread that still waits
        pass


async def test_a_server_that_takes_connections_and_says_nothing_costs_its_own_time_only(tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        at = f"127.0.0.1:{mute.getsockname()[1]}"
        words = ["--relay", f"ws://{at}", "--relay", f"ws://{at}/b", "--mint", f"http://{at}", "--no-passphrase"]
        assert run(["init", "--home", str(tmp_path / "h"), "--port", "0", *words]) == 0
        begun = time.monotonic()
        checks = await diagnose(tmp_path / "h", 0.4)
    assert time.monotonic() - begun < 20
    away = [check for check in checks if at in check.name]
    assert [check.detail for check in away] == ["It cannot be reached: no answer within 0.4 s."] * 3


async def test_the_port_of_a_node_that_is_too_busy_to_answer_is_not_said_to_be_somebody_elses(home, monkeypatch):
    monkeypatch.setattr(diagnosis, "PATIENCE_S", 0.4)
    with socket.socket() as mute, (home / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        taken = mute.getsockname()[1]
        change(home, "enabled = false", "enabled = true")
        change(home, "port = 7777 ", f"port = {taken} ")
        (home / CONTROL).write_text(json.dumps({"url": f"http://127.0.0.1:{taken}", "pid": os.getpid()}))
        check = await found(home, "port of the relay")
        assert (check.state, "did not say" in check.detail) == (State.WARN, True)
        fcntl.flock(lock, fcntl.LOCK_UN)
        (home / CONTROL).unlink()
        assert (await found(home, "port of the relay")).state is State.FAIL, "where no node runs it is somebody else"


def test_a_name_server_that_hangs_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(12))

    async def ask() -> None:
        await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("x", 1), 0.1)

    begun = time.monotonic()
    with asyncio.Runner(loop_factory=Loop) as runner, pytest.raises(TimeoutError):
        runner.run(ask())
    assert time.monotonic() - begun < 10


async def test_a_check_that_hangs_or_may_not_look_is_told_as_such():
    def look() -> list:
        raise PermissionError(13, "Permission denied", "/x")

    (late,) = await bounded("slow", asyncio.sleep(9, []), "fix it", 0.05)
    (shut,) = await bounded("shut", detached(look), "fix it", 1.0)
    assert (late.state, late.detail, late.fix) == (State.FAIL, "There was no answer within 0.05 s.", "fix it")
    assert shut.detail == "It cannot be looked at: /x Permission denied."


# ---- the home


@pytest.mark.parametrize("name", [KEYS, TOKEN, "curl-auth", PASSPHRASE])
async def test_every_secret_that_others_can_read_is_named(home, name):
    (home / name).touch()
    (home / name).chmod(0o604)
    check = await found(home, name)
    assert (check.state, check.fix) == (State.FAIL, f"Run: chmod 600 {home / name}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_root_is_told_to_ask_as_the_node_s_user(home):
    os.chown(home, 65_534, 65_534)
    check = await found(home, "home")
    assert check.state is State.WARN
    assert "belongs to nobody, and this command runs as root" in check.detail
    assert check.fix == f"Run: sudo -u '#65534' vendo doctor --home {home}"
    os.chown(home / TOKEN, 65_534, 65_534)
    check = await found(home, KEYS)
    assert check.fix == f"Run: sudo chown --reference={home} {home / KEYS}"


async def test_a_folder_above_where_everybody_may_write_is_named(home):
    home.parent.chmod(0o777)
    check = await found(home, "home")
    assert (check.state, check.fix) == (State.WARN, f"Run: sudo chmod o-w {home.parent.resolve()}")


async def test_the_doctor_makes_nothing_and_leaves_the_lock_alone(home):
    before = sorted(home.iterdir())
    await diagnose(home)
    assert sorted(home.iterdir()) == before
    with Lock(home):
        assert (await found(home, "process")).state is State.WARN


async def test_a_node_that_holds_the_lock_and_does_not_answer_is_a_failure(home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Lock(home):
        write_control(home, url)
        check = await found(home, "control plane")
    assert check.state is State.FAIL
    assert f"{url} does not answer" in check.detail
    assert f"kill {os.getpid()}" in check.fix


def test_what_another_process_left_is_not_taken_for_the_running_one(tmp_path):
    check = process(tmp_path, Running("11", "http://127.0.0.1:1", "10"))
    assert check.state is State.WARN
    assert f"{CONTROL} is of process 10, which has ended" in check.detail


def test_the_disk_is_judged_by_the_node_s_own_limit(tmp_path):
    (check,) = disk([tmp_path], 1 << 60)
    assert check.state is State.FAIL
    assert "min_free_mb" in check.detail
    assert disk([tmp_path], 0)[0].state in (State.OK, State.WARN)


def test_files_from_the_future_are_told_without_a_network(home):
    assert newest(home, time.time()) == []
    (check,) = newest(home, time.time() - 7_300)
    assert "2 hours later than it is now" in check.detail


async def test_the_age_of_the_last_backup_is_known(home):
    assert (await found(home, "backup")).state is State.OK
    (home / LOCK).touch()
    assert (await found(home, "backup")).state is State.WARN
    note_backup(home, Memo(int(time.time()) - 3 * 86_400, "id", "/mnt/x"))
    check = await found(home, "backup")
    assert (check.state, check.detail) == (State.OK, "The last one was taken 3 days ago, to /mnt/x.")
    note_backup(home, Memo(int(time.time()) - 8 * 86_400, "id", "-"))
    assert (await found(home, "backup")).state is State.WARN
    (home / "last-backup").write_text("[]")
    assert (await found(home, "backup")).state is State.WARN


def test_a_backup_leaves_its_note_for_the_doctor(home, tmp_path, capsys):
    assert run(["backup", str(tmp_path / "b"), "--home", str(home)]) == 0
    capsys.readouterr()
    run(["doctor", "--home", str(home), "--json"])
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert str(tmp_path / "b") in checks["backup"]["detail"]


# ---- settings


def test_the_doctor_names_the_line_of_a_wrong_setting(home, capsys):
    change(home, "btc_usd = 65000", "btc_usd = -1")
    line = next(n for n, text in enumerate((home / config.FILE).read_text().splitlines(), 1) if "btc_usd" in text)
    capsys.readouterr()
    assert run(["doctor", "--home", str(home), "--json"]) == ExitCode.CONFIG
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert f"config.toml line {line}: fx.btc_usd" in checks["config"]["detail"]


async def test_a_passphrase_that_the_next_start_will_not_find_is_told_now(tmp_path):
    home = tmp_path / "h"
    assert run(["init", "--home", str(home), "--relay", DEAD, "--passphrase-file", str(tmp_path / "p")]) == 0
    assert "passphrase" not in {check.name for check in await diagnose(home)}
    (tmp_path / "p").chmod(0o644)
    assert (await found(home, "passphrase")).fix == f"Run: chmod 600 {tmp_path / 'p'}"
    (tmp_path / "p").unlink()
    assert "cannot be read" in (await found(home, "passphrase")).detail


# ---- the database


async def test_a_database_of_another_version_or_of_something_else_is_named(home):
    known = revisions()
    make_at(home / "node.db", known[-2])
    check = await found(home, "database")
    assert check.state is State.WARN
    assert f"its schema is {known[-2]}" in check.detail
    assert "vendo backup" in check.fix
    (home / "node.db").write_bytes(b"no database at all" * 100)
    assert (await found(home, "database")).state is State.FAIL


# ---- ports


def test_a_port_is_free_ours_or_named_with_who_has_it():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        door = Door("control plane", "127.0.0.1", number, "[node] port")
        taken = port(door, [])
        assert taken.state is State.FAIL
        assert f"taken by process {os.getpid()} (" in taken.detail
        assert f"sport = :{number}" in taken.fix
        assert port(door, [f"http://127.0.0.1:{number}"]).state is State.OK
    assert port(door, []).detail == f"127.0.0.1:{number} is free."
    assert port(Door("relay", "127.0.0.1", 0, "[relay] port"), []).state is State.OK
    away = port(Door("relay", "192.0.2.1", 7_777, "[relay] port"), [])
    assert (away.state, away.detail) == (State.FAIL, "192.0.2.1 is no address of this machine.")


def _certificate(home, days):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node.example")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days, hours=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (home / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (home / "key.pem").write_bytes(key.private_bytes(*plain))
    (home / "key.pem").chmod(0o600)


@pytest.mark.parametrize(("days", "state"), [(80, State.OK), (3, State.WARN), (-2, State.FAIL)])
def test_a_certificate_is_told_before_it_ends(home, days, state):
    change(home, 'tls_cert = ""', 'tls_cert = "cert.pem"')
    change(home, 'tls_key = ""', 'tls_key = "key.pem"')
    change(home, "names = []", 'names = ["node.example"]')
    _certificate(home, days)
    (check,) = certificate(home, config.load(home), time.time())
    assert check.state is state, check
    (home / "key.pem").unlink()
    (check,) = certificate(home, config.load(home), time.time())
    assert check.state is State.FAIL
    assert ssl.OPENSSL_VERSION


# ---- what is installed


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("pytest>=1", []),
        ("pytest[dev]>=1,<999", []),
        ("pytest>=1; extra == 'dev'", []),
        ("no-such-library>=1", ["no no-such-library"]),
        ("no-such-library; extra == 'dev'", []),
    ],
)
def test_requirements_are_read_as_metadata_writes_them(requirement, problem):
    assert list(unmet(requirement)) == problem


@pytest.mark.parametrize("bound", ["<1", "==0.0.1", ">=999", ">=1,<2"])
def test_a_library_of_another_version_is_named(bound):
    (problem,) = unmet(f"pytest{bound}")
    assert problem.startswith("pytest ")
    assert problem.endswith(f"instead of {bound}")
