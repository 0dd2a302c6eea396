"""What holds for every test: a clean environment, no outside world, and no part that is missing in silence.

* `@pytest.mark.needs("node")` skips a test whose part is absent; the end of the run names it and the command that
  enables it. Under CI=true any skip fails the run.
* Settings of whoever runs the tests are taken away, and HOME is a folder that goes when the run ends.
* A connection to anything but this machine fails the test that tried; names do not resolve.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"

# --- the environment ------------------------------------------------------------------------------------------------

_MEDDLING = ("VENDO_", "MINT_", "CASHU_", "WALLET_", "NOSTR_", "FAKEWALLET_", "LIGHTNING_", "PG", "XDG_", "NLTK_")
_ASKED_FOR = {"VENDO_TEST_POSTGRES"}  # a PostgreSQL that is there already (tests/postgres_part.py)
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_HOME = pytest.StashKey[str]()


def _clear_environment() -> None:
    for name in list(os.environ):
        if (name.startswith(_MEDDLING) and name not in _ASKED_FOR) or name.lower() in _PROXIES:
            del os.environ[name]


def pytest_configure(config: pytest.Config) -> None:
    _clear_environment()
    config.stash[_HOME] = tempfile.mkdtemp(prefix="vendo-test-home-")
    os.environ["HOME"] = config.stash[_HOME]
    sys.addaudithook(_watch)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash.get(_HOME, ""), ignore_errors=True)


# --- examples -------------------------------------------------------------------------------------------------------

_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True, "database": None}
settings.register_profile("sample", max_examples=100, **_PATIENT)
settings.register_profile("torture", max_examples=5_000, **_PATIENT)  # within an hour, all of them
settings.load_profile("sample")

# --- the outside world ----------------------------------------------------------------------------------------------

_outside: list[str] = []


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_here(host: object) -> bool:
    if not isinstance(host, str):
        return isinstance(host, int)  # a vsock or netlink number, not an Internet address
    address = _address(host)
    return host in ("", "localhost") if address is None else address.is_loopback or address.is_unspecified


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """The interpreter's own account of what is done (PEP 578): nothing in Python connects without passing here."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if isinstance(address, tuple) and address and not _is_here(address[0]):
            _outside.append(f"{event} {address[0]!r} port {address[1]}")
            raise ConnectionRefusedError(f"tests do not leave this machine: {address}")
    elif event == "socket.getaddrinfo":
        host = args[0].decode() if isinstance(args[0], bytes) else args[0]
        if isinstance(host, str) and host not in ("", "localhost") and _address(host) is None:
            raise socket.gaierror(socket.EAI_NONAME, f"tests resolve no names: {host}")


@pytest.fixture(autouse=True)
def _no_outside_world() -> Iterator[None]:
    _outside.clear()
    yield
    if _outside:
        pytest.fail(f"the test tried to leave this machine: {', '.join(_outside)}")


# --- parts that may be absent ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Something a test needs besides Python."""

    is_there: Callable[[], bool]
    remedy: str


def _has_node() -> bool:
    """Node, and the very packages that are listed: older ones would fail tests that were written for the newer."""
    folder = ROOT / "tests/interop/node"
    if shutil.which("node") is None or not (folder / "node_modules/.stamp").exists():
        return False
    try:
        wanted = json.loads((folder / "package.json").read_text()).get("dependencies", {})
        return all(_version(folder / "node_modules" / name) == version for name, version in wanted.items())
    except (OSError, ValueError):
        return False


def _version(package: Path) -> str:
    return str(json.loads((package / "package.json").read_text()).get("version"))


def _has_relays() -> bool:
    return all((ROOT / ".tool" / name).exists() for name in ("relays/.stamp", "khatru.stamp"))


def _has_nostr_dvm() -> bool:
    return (ROOT / ".tool/nostr_dvm/.stamp").exists()


def _has_lightning() -> bool:
    return shutil.which("setpriv") is not None and (ROOT / ".tool/lightning/.stamp").exists()


def _has_docker() -> bool:
    argv = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        return subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def _has_postgres() -> bool:
    there = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb") is not None
    return there or "VENDO_TEST_POSTGRES" in os.environ


def _may_mount() -> bool:
    from tests.disk_part import may_mount

    return may_mount()


PARTS = {
    "node": Part(_has_node, "make test-deps (root)"),
    "relays": Part(_has_relays, "make test-deps (root)"),
    "nostr_dvm": Part(_has_nostr_dvm, "make test-deps (root)"),
    "lightning": Part(_has_lightning, "make test-deps (root)"),
    "docker": Part(_has_docker, "start a Docker engine"),
    "curl": Part(lambda: shutil.which("curl") is not None, "make test-deps (root)"),
    "systemd": Part(lambda: shutil.which("systemd-analyze") is not None, "make test-deps (root)"),
    "postgres": Part(_has_postgres, "make test-deps (root)"),
    "mount": Part(_may_mount, "run the tests as root, where file systems may be mounted"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=sorted(PARTS), help="only tests that need this part")


_FIRST = ("acceptance", "property", "interop", "contract", "integration")  # files whose tests take long


_TOO_LATE = [r"^TimeoutError", r"^Failed: Timeout", r"waited [0-9.]+ s for", r"did not (start|end)"]
_NEVER_AGAIN = ("kill", "backup", "restore", "storage", "wallet", "contract", "nutshell", "two_processes", "move")
_NEVER_AGAIN += ("settlement",)


def _is_real(item: pytest.Item) -> bool:
    """Whether a busy machine alone may make it fail, and nothing is hidden by another try."""
    parts = item.path.relative_to(ROOT / "tests").parts
    if any(word in part for part in parts for word in _NEVER_AGAIN):
        return False
    return parts[0] in ("acceptance", "interop", "integration") or parts[:2] == ("unit", "cli")


def _rank(item: pytest.Item) -> int:
    kind = item.path.relative_to(ROOT / "tests").parts[0]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long ones first, so that all workers end at the same time; the order within each kind is as random as it was.

    Where processes and clocks are real, a test for which something came too late is tried once more, since a busy
    machine may hold up any of them; it is named and counted as a rerun. What was wrong is not tried again, and neither
    is anything that is killed, paid or stored: there a thing that comes too late once may be one that is lost.
    """
    items.sort(key=_rank)
    for item in items:
        if item.path.is_relative_to(ROOT / "tests") and _is_real(item):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=_TOO_LATE))
    part = config.getoption("--part")
    if part is not None:
        kept = [item for item in items if any(part in marker.args for marker in item.iter_markers("needs"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@cache
def _is_there(name: str) -> bool:
    return PARTS[name].is_there()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if not _is_there(name):
                why = f"needs {name}: {PARTS[name].remedy}"
                pytest.skip(why)  # on a machine without it; under CI=true the end of the run makes it a failure


def _skipped(config: pytest.Config) -> list[tuple[str, str]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    found = []
    for report in reporter.stats.get("skipped", ()) if reporter else ():
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found.append((report.nodeid, why.removeprefix("Skipped: ")))
    return sorted(found)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if IN_CI and exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = _skipped(config)
    if not skipped:
        return
    terminalreporter.section("not run", yellow=not IN_CI, red=IN_CI)
    for name, why in skipped:
        terminalreporter.line(f"{name}: {why}")
    if IN_CI:
        terminalreporter.line("With CI=true a test that is not run fails the run.")
