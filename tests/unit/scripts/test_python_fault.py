"""scripts/python-fault.sh and the Makefile: an interpreter that cannot be used is named in exactly one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/python-fault.sh"


def fault(python: str | Path) -> str:
    return subprocess.run(["sh", SCRIPT, python], capture_output=True, text=True, check=True, timeout=200).stdout


@pytest.fixture
def without_venv(tmp_path):
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_a_good_interpreter_has_no_fault():
    assert fault(sys.executable) == ""


def test_an_interpreter_that_is_not_there_is_named():
    assert fault("/no/python3").count("\n") == 1


def test_an_interpreter_of_another_version_is_named(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = fault(old)
    assert said.startswith(f"{old} is not Python 3.11 or 3.12")
    assert said.count("\n") == 1


def test_a_missing_venv_names_the_package(without_venv):
    said = fault(without_venv)
    assert "python3-venv" in said
    assert said.count("\n") == 1


def test_make_stops_with_that_one_line(without_venv, tmp_path):
    for name in ("Makefile", "scripts", "requirements", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    argv = ["make", "install", f"PYTHON={without_venv}"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if line.strip()] == [done.stderr.strip()]
    assert "python3-venv" in done.stderr
