"""`vendo init`, `doctor` and `ledger verify`: what needs no running node."""

import json
import socket
import stat

from aiohttp import web
from aiohttp.test_utils import TestServer

from cli.diagnosis import State, diagnose
from cli.main import run
from cli.output import ExitCode
from node import config
from node.home import CONTROL, CURL_AUTH, KEYS, TOKEN, Lock, open_keyring, read_token, write_control, write_curl_auth
from relays.key import Key

DEAD = "ws://127.0.0.1:9"


def init(home, *words):
    return run(["init", "--home", str(home), "--relay", DEAD, "--no-passphrase", *words])


def test_init_makes_a_private_home_with_finite_limits_and_shows_the_words_once(tmp_path, capsys):
    home, owner = tmp_path / "h", Key.generate().npub
    assert init(home, "--mint", "http://127.0.0.1:3338", "--port", "0", "--owner", owner, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["words"].split()) == 12
    assert made["owner"] == owner
    settings = config.load(home)
    assert (settings.node.relays, settings.node.mints, settings.node.port) == ((DEAD,), ("http://127.0.0.1:3338",), 0)
    assert settings.limits.amount("per_job").value > 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in (KEYS, TOKEN):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert made["words"] not in (home / config.FILE).read_text()


def test_init_writes_the_token_as_a_header_that_nobody_else_can_read(tmp_path):
    assert init(tmp_path) == 0
    file, token = tmp_path / CURL_AUTH, read_token(tmp_path)
    assert file.read_text() == f"Authorization: Bearer {token}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.stat().st_ino
    write_curl_auth(tmp_path)
    assert file.stat().st_ino == before, "one that fits stays as it is"
    for spoilt in (None, b"Authorization: Bearer old\n", b"\xff"):
        file.unlink() if spoilt is None else file.write_bytes(spoilt)
        write_curl_auth(tmp_path)
        assert file.read_text() == f"Authorization: Bearer {token}\n"
    file.chmod(0o644)
    write_curl_auth(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_init_never_overwrites_a_home(tmp_path, capsys):
    assert init(tmp_path / "h") == 0
    before = (tmp_path / "h" / KEYS).read_bytes()
    assert init(tmp_path / "h") == ExitCode.CONFIG
    assert "home.exists" in capsys.readouterr().err
    assert (tmp_path / "h" / KEYS).read_bytes() == before


def test_init_with_a_wrong_address_makes_nothing(tmp_path, capsys):
    assert run(["init", "--home", str(tmp_path / "h"), "--no-passphrase", "--relay", "http://x"]) == ExitCode.CONFIG
    assert not (tmp_path / "h").exists()


def up(home, capsys, *words):
    code = run(["up", "--home", str(home), "--json", *words])
    return code, json.loads(capsys.readouterr().out)["error"]


def test_up_listens_elsewhere_only_where_the_way_in_is_encrypted(tmp_path, capsys):
    init(tmp_path)
    file = tmp_path / config.FILE
    text = file.read_text().replace('host = "127.0.0.1"', 'host = "0.0.0.0"', 1)
    file.write_text(text)
    capsys.readouterr()
    code, error = up(tmp_path, capsys)
    assert (code, error["code"]) == (ExitCode.CONFIG, "config.invalid")
    assert "encrypted way in" in error["message"]
    named = text.replace("names = []", 'names = ["node.example"]')
    file.write_text(named.replace("behind_proxy = false", "behind_proxy = true"))
    code, error = up(tmp_path, capsys, "--insecure-loopback")
    assert (code, error["code"]) == (ExitCode.CONFIG, "config.invalid")
    assert "--insecure-loopback" in error["message"]


def test_the_ledger_of_a_node_that_never_ran_is_not_there(tmp_path, capsys):
    init(tmp_path)
    assert run(["ledger", "verify", "--home", str(tmp_path)]) == ExitCode.DATA
    assert "vendo up" in capsys.readouterr().err


def found(checks, name):
    return next(check for check in checks if check.name == name)


async def test_the_doctor_names_a_home_that_is_not_there(tmp_path):
    check = found(await diagnose(tmp_path / "none"), "home")
    assert check.state is State.FAIL
    assert "vendo init" in check.fix


def _refusing() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def _relay(request: web.Request) -> web.StreamResponse:
    if "Upgrade" not in request.headers:
        return web.json_response({}, headers={"Date": "Thu, 01 Jan 2026 00:00:00 GMT"})
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    await connection.receive()
    await connection.send_str('["EOSE","doctor"]')
    return connection


def _mint(*nuts: str):
    async def info(request: web.Request) -> web.Response:
        return web.json_response({"version": "Nutshell/0", "nuts": {nut: {"supported": True} for nut in nuts}})

    return info


async def _keysets(request: web.Request) -> web.Response:
    return web.json_response({"keysets": [{"id": "00aa", "unit": "sat", "active": True, "input_fee_ppk": 100}]})


async def _world(tmp_path, *nuts: str):
    app = web.Application()
    app.router.add_get("/relay", _relay)
    app.router.add_get("/v1/info", _mint(*nuts))
    app.router.add_get("/v1/keysets", _keysets)
    server = TestServer(app)
    await server.start_server()
    base = f"http://127.0.0.1:{server.port}"
    relay = f"ws://127.0.0.1:{server.port}/relay"
    words = ["init", "--home", str(tmp_path), "--no-passphrase", "--relay", relay, "--relay", DEAD]
    words += ["--mint", base, "--mint", _refusing()]
    assert run(words) == 0
    return server, relay, base


async def test_the_doctor_asks_relays_and_mints(tmp_path):
    server, relay, mint = await _world(tmp_path, "7", "9", "11", "12")
    try:
        checks = await diagnose(tmp_path)
    finally:
        await server.close()
    assert found(checks, f"relay {relay}").state is State.OK
    assert found(checks, f"mint {mint}").state is State.OK
    failed = [check for check in checks if check.state is State.FAIL]
    assert all(check.outside for check in failed if check.name != "clock")
    assert "connection refused" in found(checks, f"relay {DEAD}").detail
    assert "differ among themselves" in found(checks, "clock").detail


async def test_the_doctor_names_what_a_mint_lacks(tmp_path):
    server, _, mint = await _world(tmp_path, "7", "9")
    try:
        check = found(await diagnose(tmp_path), f"mint {mint}")
    finally:
        await server.close()
    assert check.state is State.FAIL
    assert check.detail == "It lacks NUT-11, NUT-12, which locked payments need."


async def test_the_doctor_tells_a_running_node_from_one_that_is_not(tmp_path):
    init(tmp_path)
    assert found(await diagnose(tmp_path), "process").state is State.WARN
    with Lock(tmp_path):
        assert "does not listen yet" in found(await diagnose(tmp_path), "process").detail
        write_control(tmp_path, "http://127.0.0.1:1")
        assert "It listens at http://127.0.0.1:1" in found(await diagnose(tmp_path), "process").detail
    assert (tmp_path / CONTROL).exists()
    assert "without a goodbye" in found(await diagnose(tmp_path), "process").detail


async def test_the_doctor_names_keys_that_others_can_read(tmp_path):
    init(tmp_path)
    (tmp_path / KEYS).chmod(0o644)
    (tmp_path / TOKEN).unlink()
    checks = await diagnose(tmp_path)
    assert found(checks, KEYS).fix == f"Run: chmod 600 {tmp_path / KEYS}"
    assert found(checks, TOKEN).state is State.FAIL


def test_a_setting_that_is_wrong_makes_the_doctor_exit_78_and_name_it(tmp_path, capsys):
    init(tmp_path)
    file = tmp_path / config.FILE
    file.write_text(file.read_text().replace("btc_usd = 65000", "btc_usd = -1"))
    capsys.readouterr()
    assert run(["doctor", "--home", str(tmp_path), "--json"]) == ExitCode.CONFIG
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert any("fx.btc_usd" in check["detail"] for check in told["checks"])


def test_a_relay_that_is_away_makes_the_doctor_exit_69(tmp_path, capsys):
    init(tmp_path)
    assert run(["doctor", "--home", str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert f"FAIL  relay {DEAD}" in capsys.readouterr().out


def test_a_place_where_nothing_can_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert init(tmp_path / "file" / "home", "--json") == ExitCode.CONFIG
    assert str(tmp_path / "file") in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_script_that_says_nothing_gets_encrypted_keys_and_a_passphrase_file(tmp_path, capsys):
    home = tmp_path / "h"
    assert run(["init", "--home", str(home), "--relay", DEAD, "--yes"]) == 0
    assert str(home / "passphrase") in capsys.readouterr().err
    assert (home / "passphrase").stat().st_mode & 0o777 == 0o600
    assert json.loads((home / KEYS).read_text())["lock"].startswith("ncryptsec1")
    words = open_keyring(home).words
    assert words not in (home / KEYS).read_text()


def test_bad_input_leaves_no_passphrase_behind(tmp_path):
    home = tmp_path / "h"
    assert run(["init", "--home", str(home), "--yes", "--relay", "http://x"]) == ExitCode.CONFIG
    assert not home.exists()
