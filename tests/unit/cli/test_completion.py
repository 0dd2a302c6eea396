"""Completion as shells ask for it: their own words in, names out, and never a word on the terminal."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cli.completion import VARIABLE
from cli.completion import answer as complete
from cli.main import root, run
from tests.unit.cli.node_part import running, write_home
from tests.unit.cli.wire_part import listening


def ask(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What bash would be told for a line with the cursor at its end."""
    words = line.split(" ")
    env = {
        **os.environ, "_VENDO_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1), "VENDO_HOME": str(home),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "cli.main"], env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def words(monkeypatch, capsys):
    """The same without a process of its own."""

    async def words(line: str, home: Path) -> set[str]:
        given = line.split(" ")
        monkeypatch.setenv(VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(given))
        monkeypatch.setenv("COMP_CWORD", str(len(given) - 1))
        monkeypatch.setenv("VENDO_HOME", str(home))
        assert await asyncio.to_thread(complete, root()) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        return set(shown.out.split())

    return words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell, capsys):
    assert run(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "_VENDO_COMPLETE=complete_" in text
    assert run(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"].strip() == text.strip()
    if found := shutil.which(shell):
        assert subprocess.run([found, "-n"], input=text, text=True, capture_output=True, check=False).returncode == 0


async def test_bash_itself_completes(tmp_path, capsys):
    assert run(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    program = tmp_path / "vendo"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli.main "$@"\n')
    program.chmod(0o700)
    code = f"""
        . {tmp_path / "script"}
        COMP_WORDS=(vendo agent tick he); COMP_CWORD=3
        _vendo_completion {program} he tick
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    async with running(tmp_path / "h", {"x": "1"}, ["helper", "hermit", "other"]):
        env = {**os.environ, "VENDO_HOME": str(tmp_path / "h")}
        argv = ["bash", "--norc", "-c", code]
        ran = await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True, text=True, check=True)
    assert (ran.stdout.split(), ran.stderr) == (["helper", "hermit"], "")


def test_another_shell_is_not_known(capsys):
    assert run(["completion", "tcsh"]) == 64
    assert capsys.readouterr().out == ""


async def test_commands_options_agents_and_paths_are_completed(tmp_path, words):
    async with running(tmp_path, {"compute/policy": "{}", "compute/jobs/j1": "{}"}, ["helper", "hermit", "a b;$(x)"]):
        assert {"wallet", "watch", "write"} <= await words("vendo w", tmp_path)
        assert "--after" in await words("vendo watch --", tmp_path)
        assert await words("vendo agent tick he", tmp_path) == {"helper", "hermit"}
        assert await words("vendo agent tick a", tmp_path) == set(), "a shell would take it for more than a name"
        assert await words("vendo ls --agent n", tmp_path) == {"node"}
        assert await words("vendo cat /co", tmp_path) == {"/compute/"}
        assert await words("vendo cat /compute/", tmp_path) == {"/compute/README", "/compute/policy", "/compute/jobs/"}


async def test_a_home_on_the_line_is_the_one_that_is_asked(tmp_path, words):
    (tmp_path / "other").mkdir()
    async with running(tmp_path / "h", {"x": "1"}, ["helper"]):
        assert await words(f"vendo agent status --home {tmp_path / 'h'} he", tmp_path / "other") == {"helper"}


def test_without_a_node_there_are_no_names_and_no_words(tmp_path):
    for line in ("vendo agent tick he", "vendo nosuch thing"):
        ran = ask(line, tmp_path)
        assert (ran.stdout.strip(), ran.stderr) == ("", ""), line
    write_home(tmp_path, "http://127.0.0.1:9")
    assert ask("vendo agent tick he", tmp_path).stdout.strip() == ""


def test_a_node_that_does_not_answer_holds_nobody_up(tmp_path):
    over = threading.Event()

    def never(asked):
        over.wait(40)
        return b""

    with listening(tmp_path, never):
        began = time.monotonic()
        ran = ask("vendo agent tick he", tmp_path)
        took = time.monotonic() - began
        over.set()
        assert (ran.stdout.strip(), ran.stderr) == ("", "")
        assert took < 30
