"""`vendo config`: what holds, where it stands, what is wrong with it, and what is never shown."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.main import run
from cli.output import ExitCode
from cli.setting import faults, places, safe, settings
from node.config import FILE, TEMPLATE, Config, parse, render
from relays.key import Key

OWNER = Key.generate().npub


def plain(**more):
    return render(owner=OWNER, relays=("ws://127.0.0.1:9",), mints=(), port=0, **more)


def line_with(text, beginning):
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


@pytest.fixture
def home(tmp_path):
    (tmp_path / FILE).write_text(plain())
    return tmp_path


def test_every_line_of_the_file_that_init_writes_is_found():
    text = plain()
    found = places(text)
    assert found[("node", "port")] == line_with(text, "port = ")
    assert found[("limits", "per_job_usd")] == line_with(text, "per_job_usd")
    assert found[("agent", 0, "name")] == line_with(text, "[[agent]]") + 1
    assert found[("relay",)] == line_with(text, "[relay]")

    def paths(value, path=()):
        if isinstance(value, dict) and path[:3] != ("agent", 0, "config"):
            return [one for name, part in value.items() for one in paths(part, (*path, name))]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [one for number, part in enumerate(value) for one in paths(part, (*path, number))]
        return [path]

    assert set(paths(tomllib.loads(text))) <= set(found)


def test_keys_are_found_among_long_strings_arrays_and_odd_names():
    text = '''# [not.a.table]
a."b.c".d = """
[x]
y = 1
"""
e = [ # a list
  { f = "]" }, '[',
]
[[t]]
[[t]]
g = 'h = 1' # i = 2
[t.u]
"j k" = { l = 1 }
'''
    assert places(text) == {
        ("a",): 2, ("a", "b.c"): 2, ("a", "b.c", "d"): 2, ("e",): 6, ("t", 0): 9, ("t", 1): 10, ("t", 1, "g"): 11,
        ("t", 1, "u"): 12, ("t", 1, "u", "j k"): 13,
    }  # fmt: skip


@given(st.text(alphabet="ab=[]{}\"'#\n. \\1", max_size=60))
def test_looking_for_lines_never_fails_whatever_the_text_is(text):
    last = text.count("\n") + 1
    assert all(1 <= line <= last for line in places(text).values())


def test_every_setting_is_shown_with_where_it_comes_from(home, capsys):
    assert run(["config", "show", "--origin", "--json", "--home", str(home)]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    text = (home / FILE).read_text()
    line = line_with(text, "per_job_usd")
    assert found["home"] == {"name": "home", "value": str(home), "origin": "command line (--home)", "line": None}
    assert found["limits.per_job_usd"]["value"] == "0.100000"
    assert found["limits.per_job_usd"]["origin"] == f"config.toml line {line}"
    assert found["limits.per_job_usd"]["line"] == line
    assert found["agent.0.tick_seconds"] == {
        "name": "agent.0.tick_seconds",
        "value": None,
        "origin": "default",
        "line": None,
    }
    for name, field in Config.model_fields.items():
        if name not in ("sell", "agent"):
            assert {f"{name}.{one}" for one in field.annotation.model_fields} <= set(found)


def test_without_origin_only_values_are_shown(home, capsys, monkeypatch):
    monkeypatch.setenv("VENDO_HOME", str(home))
    assert run(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["setting", "value"]
    assert ["node.port", "0"] in [line.split() for line in lines]
    assert run(["config", "show", "--origin"]) == 0
    shown = capsys.readouterr().out
    assert "environment variable VENDO_HOME" in shown


def test_no_secret_is_shown(home, capsys, monkeypatch):
    monkeypatch.setenv("VENDO_PASSPHRASE", "horse-battery")
    monkeypatch.setenv("VENDO_DATABASE_PASSWORD", "staple-correct")
    text = plain(database="postgresql://me@db.example/vendo")
    text = text.replace('relays = ["ws://127.0.0.1:9"]', 'relays = ["wss://me:hunter2@relay.example/?token=abc123"]')
    text = text.replace("config = {}", 'config = { api_key = "s3cret", argv = ["x", "--token", "t0ken"], where = "a" }')
    (home / FILE).write_text(text)
    assert run(["config", "show", "--origin", "--json", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    for secret in ("horse", "staple", "hunter2", "abc123", "s3cret", "t0ken"):
        assert secret not in shown
    found = {one["name"]: one for one in json.loads(shown)}
    assert found["storage.password"]["origin"] == "environment variable VENDO_DATABASE_PASSWORD"
    assert found["keys.passphrase"] == {
        "name": "keys.passphrase", "value": "…", "origin": "environment variable VENDO_PASSPHRASE", "line": None,
    }  # fmt: skip
    assert found["storage.url"]["value"] == "postgresql://me@db.example/vendo"
    assert found["agent.0.config"]["value"] == {"api_key": "…", "argv": ["x", "--token", "…"], "where": "a"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://me:pa:ss@rd@db/x", "postgresql://me:…@db/x"),
        ("https://x.example/?a=1&api_key=abc&b=2", "https://x.example/?a=1&api_key=…&b=2"),
        ("--api-key=abc", "--api-key=…"),
        ("take nsec1qqqqqqqq now", "take … now"),
        ("cashuBo2FteBtodHRw", "…"),
        ({"password": "", "public": "x"}, {"password": "", "public": "x"}),
        ({"db": {"auth_token": "y"}}, {"db": {"auth_token": "…"}}),
        ("pubkey=abc", "pubkey=abc"),
        (7, 7),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_hidden(value, shown):
    assert safe(value) == shown


def test_a_configuration_in_order_is_in_order(home, capsys):
    assert run(["config", "check", "--home", str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "faults": []}


@pytest.mark.parametrize(
    ("old", "new", "setting", "problem"),
    [
        (
            'per_job_usd = "0.10"',
            "per_job_usd = 0.1",
            "limits.per_job_usd",
            'write dollars as text, for example "0.10"',
        ),
        ("per_day_usd", "per_dy_usd", "limits.per_dy_usd", "there is no such setting; is per_day_usd meant?"),
        ("port = 0", "port = 70000", "node.port", "65535"),
        ("quote_window_ms = 1500", 'quote_window_ms = "soon"', "policy.quote_window_ms", "integer"),
        ('name = "agent"', 'name = "node"', "agent.0", "operator's own name"),
        ("[limits]", "[limitz]", "limitz", "is limits meant?"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(home, capsys, old, new, setting, problem):
    text = plain()
    assert text.count(old) >= 1
    (home / FILE).write_text(text.replace(old, new, 1))
    assert run(["config", "check", "--home", str(home), "--json"]) == ExitCode.CONFIG
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["setting"] == setting
    assert problem in fault["problem"]
    lines = text.replace(old, new, 1).splitlines()
    expected = (
        line_with(text, "[[agent]]")
        if setting == "agent.0"
        else next(n for n, one in enumerate(lines, 1) if new in one)
    )
    assert fault["line"] == expected
    assert run(["config", "check", "--home", str(home)]) == ExitCode.CONFIG
    assert capsys.readouterr().out.startswith(f"config.toml line {expected}: {setting}: ")
    assert run(["config", "show", "--home", str(home)]) == ExitCode.CONFIG
    assert f"config.toml line {expected}" in capsys.readouterr().err


def test_text_that_is_no_toml_is_told_with_its_line(home, capsys):
    (home / FILE).write_text(plain() + "\nnot toml\n")
    (fault,) = faults((home / FILE).read_text())
    assert fault.line == (home / FILE).read_text().count("\n")
    assert fault.problem.startswith("this is not TOML: ")
    (home / FILE).write_bytes(b"\xff")
    assert run(["config", "check", "--home", str(home)]) == ExitCode.CONFIG
    assert "not UTF-8" in capsys.readouterr().err


def test_without_a_home_there_is_nothing_to_check(tmp_path, capsys):
    assert run(["config", "check", "--home", str(tmp_path), "--json"]) == ExitCode.CONFIG
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "home.missing"


def test_what_is_shown_is_what_a_start_takes():
    text = plain()
    config = parse(text)
    found = {one.name: one.value for one in settings(config, text)}
    assert found["node.owner"] == OWNER
    assert found["tick.seconds"] == config.tick.seconds
    assert TEMPLATE.count("[[agent]]") == sum(name.endswith(".program") for name in found)
