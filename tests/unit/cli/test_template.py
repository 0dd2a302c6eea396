"""`vendo agent new`: what it writes is whole, safe and tested, whatever its name."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli import template
from cli.main import run
from cli.template import KINDS, FileThere, make
from core.error import InvalidInput
from node.agent.bench import AGENT, Bench
from node.agent.load import loader
from node.agent.load.loader import Loader
from node.agent.load.source import safe_source
from node.agent.program import Context, Nothing, Program, Trigger
from node.error import HomeMissing
from tests.unit.cli.node_part import running

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_the_tests_of_made_agents_pass_by_pytest_alone(home: Path) -> None:
    for kind, name in zip(KINDS, ("tea-timer", "web-one", "c"), strict=True):
        make(home, name, kind)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull]
    done = subprocess.run(
        [*argv, str(home / "agents")], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", "tea-timer", "class", "x1-2-y"])
def test_a_made_agent_has_its_name_everywhere_and_belongs_to_its_user(home: Path, kind: str, name: str) -> None:
    made = make(home, name, kind)
    for path in made.files:
        text = path.read_text()
        assert "@" not in text
        assert "sample" not in text.lower()
        compile(text, path, "exec")
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    safe_source(home / "agents" / f"{name}.py" if kind == "python" else made.files[0])
    assert (name in Loader((), home / "agents")) is (kind == "python")


def test_a_made_program_is_typed_and_may_be_loaded(home: Path) -> None:
    make(home, "tea-timer", "python")
    program = Loader((), home / "agents")["tea-timer"]
    assert (type(program).__name__, program.version) == ("TeaTimer", 1)
    with Bench(program) as bench:
        assert bench.message("hi").sent


def test_what_is_there_is_left(home: Path) -> None:
    made = make(home, "mine", "python")
    made.files[1].unlink()
    made.files[0].write_text("# mine\n")
    with pytest.raises(FileThere):
        make(home, "mine", "python")
    assert made.files[0].read_text() == "# mine\n"
    assert not made.files[1].exists()


@pytest.mark.parametrize("name", ["", "Mine", "1st", "../x", "a/b", "a b", "buyer", "webhook", "node", "x" * 32])
def test_a_name_that_is_none_is_refused(home: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        make(home, name, "python")
    with pytest.raises(InvalidInput):
        make(home, "good", "rust")
    with pytest.raises(HomeMissing):
        make(home / "missing", "good", "python")
    assert not (home / "agents").exists()


def test_the_command_says_what_comes_next(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "new", "tea", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "vendo agent add tea --program tea" in said
    assert run(["agent", "new", "web", "--kind", "webhook", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "agent add" in line)
    assert shlex.split(line)[-1] == '{"url": "http://127.0.0.1:8900/", "internal": true}'
    assert "WEB_SECRET=$(vendo agent secret web)" in said


async def test_what_the_running_node_has_is_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "tea", "source": "file", "where": "/x/tea.py", "digest": "ab" * 32, "problem": "program.broken: no"}
    answers = {
        "programs/list": [row], "programs/reload": row, "programs/secret": {"agent": "far", "secret": "whsec_x"},
        "agents/new": {"name": "tea"},
    }  # fmt: skip
    async with running(home / "node", answers) as node:
        assert await node.vendo("agent", "programs") == 0
        shown = capsys.readouterr().out
        assert "abababababab " in shown
        assert "program.broken: no" in shown
        assert await node.vendo("agent", "reload", "tea") == 0
        assert await node.vendo("agent", "secret", "far") == 0
        assert capsys.readouterr().out.endswith("whsec_x\n")
        settings = home / "settings.json"
        settings.write_text('{"greeting": "Hi"}')
        assert await node.vendo("agent", "add", "tea", "--program", "tea", "--config", f"@{settings}") == 0
        assert await node.vendo("agent", "add", "tea", "--config", "{") == 64
    asked = [(path, body) for path, body, _ in node.asked]
    assert asked[:2] == [("programs/reload", {"name": "tea"}), ("programs/secret", {"agent": "far"})]
    assert asked[2][1]["config"] == {"greeting": "Hi"}


def test_names_that_are_written_twice_are_the_same() -> None:
    assert template.AGENTS == loader.FOLDER


# --- the workbench --------------------------------------------------------------------------------------------------


class Odd(Program[Nothing, Nothing]):
    """Does what its messages say."""

    name = "odd"
    state_type, config_type = Nothing, Nothing

    async def on_trigger(self, ctx: Context[Nothing, Nothing], trigger: Trigger) -> None:
        match trigger.payload.get("text"):
            case "fail":
                raise ValueError
            case "buy":
                await ctx.fs.call("/compute/new", b'{"kind": 5001, "input": "x"}')
            case "keep":
                ctx.memory.set("k", [1])
                await ctx.fs.write("/goals/g", b'{"description": "x"}')
                ctx.log("key", key=(await ctx.fs.read("/identity/pubkey")).decode().strip())
            case "tick":
                ctx.set_alarm("often", every_ms=60_000)


def test_the_workbench_shows_what_a_tick_did_and_what_it_left() -> None:
    with Bench(Odd()) as bench:
        assert (bench.first.cause, bench.first.error) == ("initialize", "")
        assert bench.message("buy").calls == [("/compute/new", {"kind": 5001, "input": "x"})]
        assert bench.message("keep").log == [("key", {"key": AGENT})]
        assert bench.memory == {"k": [1]}
        assert bench.event("job.finished", job={}).cause == "event"


def test_the_workbench_lets_time_pass() -> None:
    with Bench(Odd()) as bench:
        bench.message("tick")
        assert bench.alarms == {"often": 60}
        assert [tick.cause for tick in bench.wait(minutes=3)] == ["alarm"] * 3
        assert bench.wait(seconds=59) == []
        assert len(bench.wait(hours=1)) == 60


def test_on_the_workbench_a_failure_is_tried_again_as_on_a_node() -> None:
    with Bench(Odd()) as bench:
        tick = bench.message("fail")
        assert tick.error.startswith("agent.failed")
        assert bench.dead == []
        assert len(bench.wait(minutes=1)) == 4
        assert len(bench.dead) == 1
