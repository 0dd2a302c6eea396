"""deploy/: systemd takes the unit as it is, finds it well hardened, and hears the node; a container's file is sound."""

import asyncio
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.identity.passphrase import CREDENTIAL
from node.share.sharing import PUT_OUT
from tests.market_part import ECHO_FREE, Spec, market, run, until

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "vendo.service").read_text(encoding="utf-8")
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
OWN_RELAY = {"enabled = false": "enabled = true", "port = 7777": "port = 0"}
MOST_EXPOSED = 15  # tenths, as systemd-analyze counts: 2.0 is "OK"; a unit without anything has 9.6


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.M)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is installed here."""
    here = Path(sys.executable).parent / "vendo"
    path = tmp_path / "vendo.service"
    path.write_text(UNIT.replace("/opt/vendo/.venv/bin/vendo", str(here)), encoding="utf-8")
    assert f"ExecStart={here} up" in path.read_text()
    return path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs("systemd")
def test_systemd_takes_the_unit_without_a_word(unit: Path) -> None:
    ran = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


@pytest.mark.needs("systemd")
def test_a_setting_that_systemd_does_not_know_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("PrivateTmp=yes", "PrivateTemp=yes"))
    ran = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))
    assert "PrivateTemp" in ran.stdout + ran.stderr


@pytest.mark.needs("systemd")
def test_the_unit_is_hardened(unit: Path) -> None:
    ran = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(unit))
    assert ran.returncode == 0, ran.stdout


def test_the_unit_fits_the_node() -> None:
    assert settings("Type") == ["notify"]
    assert settings("NotifyAccess") == ["main"]
    assert settings("KillMode") == ["mixed"], "the node ends its own children"
    assert settings("Restart") == ["on-failure"]
    assert str(PUT_OUT) not in settings("RestartPreventExitStatus")[0].split(), "who was put out is started again"
    assert settings("LoadCredentialEncrypted") == [CREDENTIAL]
    assert settings("ExecStart")[0].split()[1:] == ["up"]
    assert not re.search(r"PASSPHRASE|PASSWORD|nsec1", UNIT)


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end of the socket, and what it puts into a service's environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        yield ear


class Heard:
    """All that came so far."""

    def __init__(self, ear: socket.socket) -> None:
        self._ear, self.words = ear, list[str]()

    def more(self) -> list[str]:
        try:
            while True:
                self.words.append(self._ear.recv(4_096).decode())
        except BlockingIOError:
            return self.words

    async def lives(self, since: int, times: int) -> bool:
        return self.more()[since:].count("WATCHDOG=1") >= times

    async def has(self, word: str) -> str:
        async def found() -> str:
            return next((one for one in self.more() if one.startswith(word)), "")

        return str(await until(found, word))


def children(pid: int) -> list[Path]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(folder)
        except OSError:
            continue
    return found


async def test_a_node_says_that_it_is_ready_lives_and_ends(tmp_path: Path, ear: socket.socket) -> None:
    heard = Heard(ear)
    asyncio.get_running_loop().add_reader(ear, heard.more)  # its queue is short, and a full one loses the last words
    async with market(tmp_path, {"node": Spec(ECHO_FREE, OWN_RELAY)}, mint=False) as town:
        child = town.nodes["node"]
        ready = await heard.has("READY=1")
        assert child.said["npub"] in ready
        assert child.said["control"] in ready
        before = len(heard.more())
        await until(lambda: heard.lives(before, 2), "two more signs of life")
        healthy = await run(sys.executable, str(DEPLOY / "health.py"), env={"VENDO_HOME": str(town.homes["node"])})
        assert healthy.code == 0, healthy.err
        started = children(child.process.pid)
        assert started, "its own relay, at least"
        for one in started:
            assert b"NOTIFY_SOCKET" not in (one / "environ").read_bytes(), "nobody else speaks in its name"
        assert await town.down("node") == 0, town.log("node")
        assert (await heard.has("STOPPING=1")).startswith("STOPPING=1")
        gone = await run(sys.executable, str(DEPLOY / "health.py"), env={"VENDO_HOME": str(town.homes["node"])})
        assert (gone.code, "does not answer" in gone.err) == (1, True)


# ---- the container's file


def instructions() -> list[tuple[str, str]]:
    """Each instruction, with its lines joined."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINER, flags=re.M)
    return [
        (words.partition(" ")[0], words.partition(" ")[2].strip())
        for words in re.sub(r"\\\n", " ", text).splitlines()
        if words.strip()
    ]


def of(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_all_that_is_copied_is_there_and_nothing_else_reaches_the_build() -> None:
    taken = [one for rest in of("COPY") if not rest.startswith("--from") for one in shlex.split(rest)[:-1]]
    assert taken
    for one in taken:
        assert (ROOT / one).exists(), one
    lines = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    seen = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[1] == "*"
    assert sorted(seen) == sorted(taken)


def test_every_folder_of_the_program_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {f"{one} {one}" for one in packages} <= set(of("COPY"))


def test_the_image_runs_the_node_as_nobody_special_and_holds_no_secret() -> None:
    assert (of("ENTRYPOINT"), of("CMD")) == (['["vendo"]'], ['["up"]'])
    assert "vendo" in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    (user,) = of("USER")
    assert int(user.partition(":")[0]) > 0
    assert [word for word, _ in instructions()].index("USER") < [word for word, _ in instructions()].index("ENTRYPOINT")
    assert of("VOLUME") == ["/var/lib/vendo"]
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]
    assert "--require-hashes" in of("RUN")[0]
    assert not re.search(r"PASSPHRASE|PASSWORD|TOKEN=|nsec1", CONTAINER)
    environment = dict(one.partition("=")[::2] for rest in of("ENV") for one in shlex.split(rest))
    assert environment["VENDO_HOME"].startswith("/var/lib/vendo/")
    assert environment["CREDENTIALS_DIRECTORY"] == "/run/secrets"


def test_the_health_check_is_the_one_that_is_tested() -> None:
    (check,) = of("HEALTHCHECK")
    (copied,) = [rest for rest in of("COPY") if rest.startswith("deploy/health.py")]
    assert copied.split()[1] in check
