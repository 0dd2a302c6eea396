"""tests/conftest.py: no missing part in silence, no outside world, no settings of whoever runs the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[2] / "conftest.py"
INI = """
[pytest]
markers = needs(part): needs a part
asyncio_mode = auto
"""


@pytest.fixture
def run(tmp_path):
    def _run(text: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "suite" / "tests"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONFTEST, folder / "conftest.py")
        (folder.parent / "pytest.ini").write_text(INI)
        (folder / "test_it.py").write_text(text)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST"))}
        argv = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", *words, str(folder)]
        return subprocess.run(argv, cwd=folder.parent, env=kept | env, capture_output=True, text=True, timeout=200)

    return _run


NEEDS_NODE = """
import pytest

@pytest.mark.needs("node")
def test_a_foreign_client(): ...

def test_of_python(): ...
"""


def test_a_missing_part_is_named_with_what_enables_it(run):
    done = run(NEEDS_NODE)
    assert done.returncode == 0
    assert "tests/test_it.py::test_a_foreign_client: needs node: make test-deps (root)" in done.stdout


@pytest.mark.needs("node")
@pytest.mark.parametrize(("there", "runs"), [("3.7.1", True), ("3.6.0", False)])
def test_older_packages_than_are_listed_are_a_missing_part(run, tmp_path, there, runs):
    folder = tmp_path / "suite" / "tests" / "interop" / "node"
    package = folder / "node_modules" / "@cashu" / "cashu-ts"
    package.mkdir(parents=True)
    (folder / "node_modules" / ".stamp").touch()
    (folder / "package.json").write_text('{"dependencies": {"@cashu/cashu-ts": "3.7.1"}}')
    (package / "package.json").write_text(f'{{"version": "{there}"}}')
    assert ("needs node: make test-deps (root)" not in run(NEEDS_NODE).stdout) == runs


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_in_ci_a_missing_part_fails_the_run_by_name(run, workers):
    done = run(NEEDS_NODE, *workers, CI="true")
    assert done.returncode == 1
    assert "test_a_foreign_client" in done.stdout
    assert "With CI=true a test that is not run fails the run." in done.stdout


def test_in_ci_a_skip_of_any_kind_fails_the_run(run):
    done = run("import pytest\n\ndef test_it():\n    pytest.skip('not today')\n", CI="true")
    assert done.returncode == 1
    assert "test_it: not today" in done.stdout


def test_in_ci_a_run_without_skips_passes(run):
    assert run("def test_it(): ...\n", CI="true").returncode == 0


OUTSIDE = """
import asyncio, socket

def test_connect():
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    except OSError:
        pass

async def test_asyncio():
    try:
        await asyncio.open_connection("192.0.2.1", 80)
    except OSError:
        pass

def test_datagram():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))
    except OSError:
        pass
"""


def test_a_test_that_leaves_the_machine_fails_even_if_it_swallows_the_error(run):
    done = run(OUTSIDE)
    assert done.returncode == 1
    assert done.stdout.count("the test tried to leave this machine") >= 3
    assert "3 errors" in done.stdout


HERE = """
import os, socket
import pytest

def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        socket.create_connection(("localhost", server.getsockname()[1])).close()

def test_names():
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("relay.example", 443)

def test_environment():
    assert "VENDO_HOME" not in os.environ
    assert "MINT_PRIVATE_KEY" not in os.environ
    assert "https_proxy" not in os.environ
    assert os.environ["HOME"] != "/nowhere"
    assert os.listdir(os.environ["HOME"]) == []
"""


def test_loopback_is_open_names_do_not_resolve_and_settings_are_gone(run):
    done = run(HERE, VENDO_HOME="/x", MINT_PRIVATE_KEY="x", https_proxy="http://127.0.0.1:1", HOME="/nowhere")
    assert done.returncode == 0, done.stdout
