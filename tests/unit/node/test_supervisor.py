"""What the node tells systemd: real datagrams to a real socket, from the loop, and in nobody else's environment."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.clock import SystemClock
from node.supervisor import Supervisor

CLOCK = SystemClock()


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(address)
        ear.setblocking(False)
        yield ear


def heard(ear: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(ear.recv(4_096).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_it_says_when_it_is_ready_and_when_it_ends(tmp_path, form):
    name = str(tmp_path / "s") if form == "path" else f"@vendo-test-{os.getpid()}-{tmp_path.name}"
    with listening(name.replace("@", "\0")) as ear:
        supervisor = Supervisor.adopt({"NOTIFY_SOCKET": name}, CLOCK)
        supervisor.ready("npub1x at\nhttp://127.0.0.1:1")
        supervisor.stopping()
        supervisor.stopping()
        assert heard(ear) == [
            "READY=1\nSTATUS=npub1x at http://127.0.0.1:1",
            "STOPPING=1\nSTATUS=finishing what is open",
        ]


def test_the_variables_are_gone_afterwards(tmp_path):
    environ = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Supervisor.adopt(environ, CLOCK)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234", "/nowhere/at/all", "/" + "x" * 200])
async def test_where_nobody_listens_nothing_is_said_and_nothing_breaks(address):
    supervisor = Supervisor.adopt({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}, CLOCK)
    async with supervisor.attending(asyncio.Event()):
        supervisor.ready("here")
        await asyncio.sleep(0)


async def _lived(tmp_path, environ: dict[str, str], seconds: float) -> list[str]:
    with listening(str(tmp_path / "s")) as ear:
        supervisor = Supervisor.adopt({"NOTIFY_SOCKET": str(tmp_path / "s"), **environ}, CLOCK)
        async with supervisor.attending(asyncio.Event()):
            await asyncio.sleep(seconds)
            return heard(ear)


async def test_signs_of_life_come_at_half_of_the_interval(tmp_path):
    own = {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": str(os.getpid())}
    assert 2 <= (await _lived(tmp_path, own, 1.0)).count("WATCHDOG=1") <= 6


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "never"}, {"WATCHDOG_USEC": "9" * 20}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}],
)
async def test_without_an_interval_of_its_own_it_gives_none(tmp_path, environ):
    assert await _lived(tmp_path, environ, 0.2) == []


async def test_a_loop_that_stands_still_gives_no_sign_of_life(tmp_path):
    with listening(str(tmp_path / "s")) as ear:
        supervisor = Supervisor.adopt({"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "200000"}, CLOCK)
        async with supervisor.attending(asyncio.Event()):
            await asyncio.sleep(0.05)
            heard(ear)
            time.sleep(0.5)
            assert heard(ear) == []
            await asyncio.sleep(0.05)
            assert set(heard(ear)) == {"WATCHDOG=1"}


async def test_the_end_is_said_at_once_and_life_goes_on_until_it_has_come(tmp_path):
    with listening(str(tmp_path / "s")) as ear:
        supervisor, stop = Supervisor(str(tmp_path / "s"), 0.2, CLOCK), asyncio.Event()
        async with supervisor.attending(stop):
            await asyncio.sleep(0.05)
            stop.set()
            await asyncio.sleep(0.3)
            said = heard(ear)
        (at,) = [number for number, words in enumerate(said) if words.startswith("STOPPING=1")]
        assert set(said[at + 1 :]) == {"WATCHDOG=1"}
        assert heard(ear) == []
