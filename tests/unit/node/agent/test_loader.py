"""Where programs come from, and what keeps one from being used."""

import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distribution
from pathlib import Path

import pytest

from core.error import InvalidInput
from node.agent.error import NoProgram, ProgramBroken, ProgramTaken, ProgramUnsafe
from node.agent.load.loader import GROUP, Loader
from node.agent.program import Context, Nothing, Program, Trigger

GOOD = """
from pydantic import BaseModel
from node.agent.program import Context, Nothing, Program, Trigger

class Count(BaseModel):
    total: int = 0

class Counter(Program[Count, Nothing]):
    state_type, config_type = Count, Nothing

    async def on_trigger(self, ctx: Context[Count, Nothing], trigger: Trigger) -> None:
        ctx.state.total += {step}
"""


class BuiltIn(Program[Nothing, Nothing]):
    name = "buyer"
    state_type, config_type = Nothing, Nothing

    async def on_trigger(self, ctx: Context[Nothing, Nothing], trigger: Trigger) -> None:
        """Nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    made = tmp_path / "agents"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which packages are imported."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if name.startswith("made_"):
            del sys.modules[name]


def write(folder: Path, name: str, text: str = GOOD.format(step=1), mode: int = 0o600) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    path.chmod(mode)
    return path


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def loader(folder: Path | None = None, *entries: EntryPoint) -> Loader:
    return Loader([BuiltIn()], folder, lambda: entries)


def test_a_file_in_the_home_is_a_program_and_its_digest_is_that_of_its_source(folder: Path) -> None:
    path = write(folder, "counter")
    made = loader(folder)
    assert "counter" in made
    program = made["counter"]
    assert (program.name, program.digest) == ("counter", hashlib.sha256(path.read_bytes()).hexdigest())
    assert program.state_type().total == 0
    assert made["counter"] is program
    assert list(made) == ["buyer", "counter"]
    (row,) = [row for row in made.rows() if row["name"] == "counter"]
    assert row == {
        "name": "counter", "source": "file", "where": str(path), "digest": program.digest, "problem": "",
    }  # fmt: skip


def test_a_module_may_say_which_of_its_objects_is_the_program(folder: Path) -> None:
    write(folder, "two", GOOD.format(step=1) + "\nclass Other(Counter):\n    name = 'two'\n\nprogram = Other()\n")
    assert type(loader(folder)["two"]).__name__ == "Other"


def test_a_file_is_run_when_it_is_needed_and_not_before(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    write(folder, "eager", f"open({str(mark)!r}, 'w').close()\n" + GOOD.format(step=1))
    made = loader(folder)
    assert "eager" in made
    assert [row["name"] for row in made.rows()] == ["buyer", "eager"]
    assert not mark.exists()
    made["eager"]
    assert mark.exists()


def test_an_entry_point_is_imported_when_it_is_needed_and_not_before(package: Path) -> None:
    (package / "made_counter.py").write_text("class Shape: pass\n" + GOOD.format(step=2))
    made = loader(None, entry("installed", "made_counter:Counter"))
    assert "installed" in made
    assert made.rows()[1]["where"] == "made_counter:Counter"
    assert "made_counter" not in sys.modules
    program = made["installed"]
    assert program.name == "installed"
    assert program.digest == hashlib.sha256((package / "made_counter.py").read_bytes()).hexdigest()


def test_the_digest_of_an_entry_point_depends_on_its_packages_version(package: Path) -> None:
    source = GOOD.format(step=2).encode()
    (package / "made_versioned.py").write_bytes(source)
    info = package / "made_versioned-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-versioned\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nversioned = made_versioned:Counter\n")
    made = Loader([BuiltIn()], None, lambda: distribution("made-versioned").entry_points)
    assert made["versioned"].digest == hashlib.sha256(source + b"\0made-versioned\x001.5").hexdigest()
    assert made.rows()[1]["where"] == "made_versioned:Counter of made-versioned 1.5"


def test_what_is_installed_is_found_by_its_group(package: Path) -> None:
    (package / "made_found.py").write_text(GOOD.format(step=2))
    info = package / "made_found-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-found\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nfound-here = made_found:Counter\n")
    assert "found-here" in Loader()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named"),
        ("raise RuntimeError('secret words')\n", "RuntimeError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("x = 1\n", "has 0 Program classes"),
        (GOOD.format(step=1) + GOOD.format(step=1).replace("Counter", "Second"), "has 2 Program classes"),
        ("program = 7\n", "gives a int"),
        (GOOD.format(step=1) + "    name = 'another'\n", "calls its program 'another'"),
        (GOOD.format(step=1).replace("total: int = 0", "total: int"), "ValidationError"),
        (GOOD.format(step=1).replace("state_type, config_type = Count, Nothing", "state_type = Count"), "config_type"),
        (GOOD.format(step=1) + "    version = 0\n", "version"),
    ],
)
def test_a_broken_file_says_why_and_stops_only_itself(folder: Path, text: str, why: str) -> None:
    write(folder, "broken", text)
    write(folder, "whole")
    made = loader(folder)
    with pytest.raises(ProgramBroken) as raised:
        made["broken"]
    assert why in raised.value.message
    assert "secret words" not in raised.value.message
    assert made["whole"].name == "whole"
    (problem,) = [row["problem"] for row in made.rows() if row["problem"]]
    assert problem.startswith("program.broken: ")
    assert "vendo_agent_broken" not in sys.modules


def test_a_broken_file_is_run_once_however_often_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    write(folder, "broken", f"open({str(count)!r}, 'a').write('x')\nraise ValueError\n")
    made = loader(folder)
    for _ in range(3):
        with pytest.raises(ProgramBroken):
            made["broken"]
        assert made.get("broken") is None
    assert count.read_text() == "x"


def test_a_file_that_others_may_write_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = write(folder, "open", f"open({str(mark)!r}, 'w').close()\n", mode=0o620)
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(ProgramUnsafe, match="written by others"):
            loader(folder)["open"]
    path.chmod(0o600)
    for place in (folder, folder.parent):
        before = place.stat().st_mode
        place.chmod(0o770)
        with pytest.raises(ProgramUnsafe, match="written by others"):
            loader(folder)["open"]
        place.chmod(before)
    assert not mark.exists()


def test_a_link_and_what_is_no_file_is_not_run(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(GOOD.format(step=1))
    (folder / "linked.py").symlink_to(outside)
    (folder / "dangling.py").symlink_to(tmp_path / "nothing.py")
    os.mkfifo(folder / "pipe.py", 0o600)
    (folder / "directory.py").mkdir(mode=0o700)
    made = loader(folder)
    for name in ("linked", "dangling", "pipe", "directory"):
        assert name in made
        with pytest.raises(NoProgram):
            made[name]


def test_a_file_of_another_user_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "foreign")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ProgramUnsafe, match="another user"):
        loader(folder)["foreign"]


def test_a_name_that_two_sources_claim_is_nobodys(folder: Path, package: Path) -> None:
    (package / "made_counter.py").write_text(GOOD.format(step=2))
    write(folder, "twice")
    made = loader(folder, entry("twice", "made_counter:Counter"), entry("same", "a:b"), entry("same", "c:d"))
    for name in ("twice", "same"):
        with pytest.raises(ProgramTaken, match="both claim"):
            made[name]
    assert "made_counter" not in sys.modules
    assert {row["name"] for row in made.rows() if "program.taken" in row["problem"]} == {"twice", "same"}


def test_what_is_built_in_keeps_its_name(folder: Path) -> None:
    write(folder, "buyer")
    made = loader(folder)
    assert type(made["buyer"]) is BuiltIn
    assert "buyer.py is not used" in made.rows()[0]["problem"]


def test_tests_and_other_files_are_no_programs(folder: Path) -> None:
    for name in ("test_counter", "conftest", "_part", "Upper", "a.b"):
        write(folder, name)
    made = loader(folder)
    assert list(made) == ["buyer"]
    assert not {"test_counter", "conftest", "_part", "../agents/counter", ""} & set(made)
    assert "../counter" not in made
    with pytest.raises(KeyError):
        made["test_counter"]


def test_a_changed_file_is_taken_up_when_asked_for_and_a_broken_change_leaves_the_old(folder: Path) -> None:
    path = write(folder, "counter")
    made = loader(folder)
    first = made["counter"]
    write(folder, "counter", GOOD.format(step=2))
    assert made["counter"] is first
    second = made.reload("counter")
    assert made["counter"] is second
    assert second.digest == hashlib.sha256(path.read_bytes()).hexdigest() != first.digest
    write(folder, "counter", "def (")
    with pytest.raises(ProgramBroken):
        made.reload("counter")
    assert made["counter"] is second
    with pytest.raises(NoProgram):
        made.reload("missing")


def test_a_file_that_was_broken_and_put_right_is_taken_up(folder: Path) -> None:
    write(folder, "counter", "def (")
    made = loader(folder)
    with pytest.raises(ProgramBroken):
        made["counter"]
    write(folder, "counter")
    with pytest.raises(ProgramBroken):
        made["counter"]
    assert made.reload("counter").name == "counter"
    assert made["counter"].name == "counter"
    assert [row["problem"] for row in made.rows()] == ["", ""]


def test_what_can_be_said_without_running_anything_is_said(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    write(folder, "eager", f"open({str(mark)!r}, 'w').close()\nraise ValueError\n")
    write(folder, "broken", "def (")
    write(folder, "buyer")
    write(folder, "open", mode=0o666)
    write(folder, "twice")
    found = loader(folder, entry("twice", "a:b")).check()
    assert {name: error.code for name, error in found.items()} == {
        "broken": "program.broken", "buyer": "program.taken", "open": "program.unsafe", "twice": "program.taken",
    }  # fmt: skip
    assert not mark.exists()


def test_only_files_are_taken_up_while_the_node_runs(folder: Path, package: Path) -> None:
    (package / "made_fixed.py").write_text(GOOD.format(step=2))
    made = loader(folder, entry("installed", "made_fixed:Counter"))
    made["installed"]
    for name in ("installed", "buyer"):
        with pytest.raises(InvalidInput):
            made.reload(name)


def test_a_file_that_comes_while_the_node_runs_is_found(folder: Path) -> None:
    made = loader(folder)
    assert "late" not in made
    write(folder, "late")
    assert "late" in made
    assert made["late"].name == "late"


def test_what_a_program_prints_when_it_is_loaded_is_not_on_standard_output(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "loud", "print('{\"npub\": 1}')\n" + GOOD.format(step=1))
    assert loader(folder)["loud"].name == "loud"
    said = capsys.readouterr()
    assert said.out == ""
    assert "npub" in said.err


def test_a_node_without_a_folder_of_agents_has_what_is_built_in(tmp_path: Path) -> None:
    made = loader(tmp_path / "agents")
    assert (list(made), len(made), made.get("x")) == (["buyer"], 1, None)
