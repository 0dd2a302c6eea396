"""All commands at once: which of them change anything, that these take a key, that all take --json and --help."""

import json
import subprocess
import sys
import time

import pytest
import typer.main

from cli.main import app, run
from cli.output import ExitCode
from tests.unit.cli.wire_part import answer, listening

FILE = "@file@"  # stands for a file that is there

# Commands with an effect on a running node, and words that make them ask for it.
EFFECTS = {
    "pause": [],
    "resume": [],
    "send": ["a", "hello"],
    "buy": ["--kind", "5001", "--input", "x"],
    "agent add": ["a"],
    "agent set": ["a", "--settings", FILE],
    "agent reload": ["p"],
    "agent delete": ["a", "--yes"],
    "agent export": ["a", "out.agent"],
    "agent import": [FILE],
    "agent thaw": ["a", "--yes"],
    "agent tick": ["a"],
    "agent send": ["a", "hello"],
    "agent goals": ["a", "g", "--remove"],
    "agent hibernate": ["a"],
    "agent wake": ["a"],
    "agent stop": ["a"],
    "agent start": ["a"],
    "agent release": ["a"],
    "inbox replay": ["a", "e"],
    "inbox discard": ["a", "e"],
    "hook new": ["a", "ci"],
    "hook delete": ["a", "h"],
    "sell start": ["5050", "--price", "21sat"],
    "sell price": ["5050", "--price", "0"],
    "sell pause": [],
    "sell resume": ["5050"],
    "sell stop": ["5050"],
    "prepaid open": ["0" * 64, "5"],
    "prepaid close": ["0" * 32],
    "wallet receive": ["cashuBx"],
    "wallet deposit": ["5"],
    "wallet send": ["5"],
    "wallet move": ["5"],
    "wallet pay": ["lnbc1x"],
    "wallet invoice": ["5"],
    "wallet give-up": ["a" * 32],
    "wallet withdraw": ["lnbc1x", "--yes"],
    "wallet restore": [],
    "key new": ["a"],
    "key import": ["a", "--file", FILE],
    "key bunker": ["a", "--file", FILE],
    "key rotate": ["a"],
    "key retire": ["a"],
    "token new": ["--operator"],
    "token revoke": ["t"],
    "write": ["/note", "text"],
    "call": ["/note", "text"],
    "rm": ["/note"],
    "mkdir": ["/notes"],
    "mv": ["/note", "/other"],
}
# Commands that only look.
LOOKS = {
    "status": [],
    "jobs": [],
    "reputation": ["0" * 64],
    "fraud prove": ["0" * 32],
    "sell list": [],
    "prepaid list": [],
    "sell status": [],
    "sell earnings": [],
    "ls": [],
    "tree": [],
    "cat": ["/status"],
    "watch": ["/logs/trace"],
    "agent list": [],
    "agent status": ["a"],
    "agent logs": ["a"],
    "agent programs": [],
    "inbox list": ["a"],
    "inbox dead": ["a"],
    "hook list": ["a"],
    "wallet balance": [],
    "wallet mints": [],
    "wallet audit": [],
    "wallet lightning": [],
    "relay list": [],
    "key list": [],
    "key show": ["a"],
    "token list": [],
    "replay": ["a"],
}
# Commands without a key, though they POST or change something, and why.
WITHOUT_KEY = {
    "agent secret": "it looks: a secret is never in what can be read",
    "hook secret": "it looks: a secret is never in what can be read",
    "key lookup": "it looks: whom it asks needs a body",
    "gc": "what is deleted is not deleted again",
    "chat": "a talk: each line is a message of its own",
    "mount": "what is done to the files has keys of its own",
    "backup": "the node signs the backup's digest, which changes nothing there",
    "restore": "no node runs",
    "init": "no node runs, and a home that is there is left",
    "up": "it is the node",
    "demo": "it has nodes of its own",
    "doctor": "it looks",
    "config show": "it looks",
    "config check": "it looks",
    "completion": "it asks nobody",
    "agent new": "it writes files of its own, and leaves those that are there",
    "ledger verify": "it looks",
    "fraud verify": "it looks, and asks nobody",
    "relay up": "it is the relay",
    "relay export": "it looks",
    "relay import": "no relay runs, and what is there is passed over",
    "key export": "it looks",
    "key encrypt": "it works on the home",
}


def commands():
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        for sub, leaf in getattr(command, "commands", {"": command}).items():
            found[f"{name} {sub}".strip()] = leaf
    return found


COMMANDS = commands()


def options(name):
    return {option for part in COMMANDS[name].params for option in part.opts}


def words_of(name, table, folder):
    (folder / "file").write_text("{}")
    given = [str(folder / word.replace(FILE, "file")) if word in (FILE, "out.agent") else word for word in table[name]]
    return [*name.split(), *given, "--home", str(folder)]


def test_of_every_command_it_is_known_whether_it_changes_anything():
    tables = [*EFFECTS, *LOOKS, *WITHOUT_KEY]
    assert sorted(tables) == sorted(COMMANDS)


def test_every_command_with_an_effect_takes_a_key_and_no_other_does():
    assert {name for name in COMMANDS if "--key" in options(name)} == set(EFFECTS)


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_is_told_before_the_call_and_an_answer_that_is_lost_names_it(name, tmp_path, capsys):
    """In words, in JSON, and for a key that was given: what is asked then is the same request."""
    words = words_of(name, EFFECTS, tmp_path)
    with listening(tmp_path, lambda asked: b"" if asked.method != "GET" else answer(b"[]")) as asked:
        assert run(words) == ExitCode.TEMPORARY
        shown = capsys.readouterr()
        key, lines = asked[-1].key, shown.err.splitlines()
        assert shown.out == ""
        assert [line for line in lines if line.startswith("key: ")] == [f"key: {key}"]
        assert lines.index(f"key: {key}") < len(lines) - 1
        assert f"--key {key}" in lines[-1]
        assert lines[-1].endswith("[cli.answer_lost]")

        assert run([*words, "--json"]) == ExitCode.TEMPORARY
        shown = capsys.readouterr()
        assert f"key: {asked[-1].key}\n" in shown.err
        assert json.loads(shown.out)["error"]["code"] == "cli.answer_lost"

        assert run([*words, "--key", "mine", "--json"]) == ExitCode.TEMPORARY
        shown = capsys.readouterr()
        assert "key:" not in shown.err
        assert json.loads(shown.out)["error"]["code"] == "cli.answer_lost"
    effects = [one.key for one in asked if one.method != "GET"]
    assert len(set(effects)) == len(effects) == 3
    assert effects[-1] == "mine"


@pytest.mark.parametrize("name", LOOKS)
def test_a_command_that_looks_changes_nothing(name, tmp_path, capsys):
    with listening(tmp_path, lambda asked: answer(b"[]")) as asked:
        run([*words_of(name, LOOKS, tmp_path), *(["--retry", "0"] if name == "watch" else [])])
    assert asked
    assert {one.method for one in asked} <= {"GET", "HEAD"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_in_json_and_explains_itself_at_once(name, capsys):
    assert "--json" in options(name)
    began = time.process_time()
    assert run([*name.split(), "--help"]) == ExitCode.OK
    assert time.process_time() - began < 2.0
    shown = capsys.readouterr()
    assert "Usage: vendo" in shown.out
    assert shown.err == ""


def test_the_command_is_there_without_the_node_s_own_modules():
    heavy = ("aiohttp", "sqlalchemy", "nostr_sdk", "cashu", "node.app", "node.config", "asyncio")
    code = f"import sys; import cli.main; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert ran.stdout.strip() in ("[]", "['asyncio']")
