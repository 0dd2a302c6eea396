"""What `vendo doctor` finds of relays, mints, and by their clocks of this machine's."""

import time
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cli.checkup.clock import astray, clock, middle
from cli.checkup.finding import State
from cli.checkup.outside import demands
from cli.diagnosis import diagnose
from cli.main import run
from relays.nip11 import Information

NOW = 1_800_000_000.0
DEAD = "ws://127.0.0.1:9"
NUTS = {nut: {"supported": True} for nut in ("7", "9", "11", "12")}
SAT = {"id": "00aa", "unit": "sat", "active": True, "input_fee_ppk": 100}


@pytest.mark.parametrize(
    ("offsets", "state", "words"),
    [
        ([], State.OK, "no server was there"),
        ([0.4], State.OK, "as the servers do"),
        ([-4.0, 3.0, 0.1], State.OK, "as the servers do"),
        ([12.0, 11.0, 12.5], State.WARN, "12 s ahead of the 3 of 3"),
        ([-61.0, -62.0], State.FAIL, "61 s behind"),
        ([90.0], State.FAIL, "90 s ahead of"),
        ([0.0, 500.0], State.WARN, "differ among themselves"),
        ([0.0, 500.0, -500.0], State.WARN, "differ among themselves"),
    ],
)
def test_the_clock_is_judged_by_those_servers_that_agree(offsets, state, words):
    check = clock({f"s{number}": one for number, one in enumerate(offsets)}, NOW)
    assert check.state is state, check
    assert words in check.detail
    assert check.fix or state is State.OK


def test_a_server_whose_own_clock_is_wrong_is_told_apart_from_ours():
    assert astray({"a": 0.1, "b": 0.2, "c": 7_200.0}) == {"c": pytest.approx(7_199.8)}
    assert astray({"a": 100.1, "b": 100.2, "c": 0.0}) == {"c": pytest.approx(100.1)}, "then it is we who are wrong"
    assert astray({"a": 0.0, "b": 100.0}) == {}
    assert astray({}) == {}
    assert middle([5.0, -1.0]) == -1.0


def test_what_a_relay_asks_for_is_told():
    assert demands(Information()) == []
    assert demands(Information(auth_required=True, max_message_length=131_072)) == []
    told = " ".join(demands(Information(payment_required=True, min_pow_difficulty=20, max_message_length=4_096)))
    assert all(word in told for word in ("paid", "20 bits", "4096 bytes"))


class World:
    """A relay and a mint whose answers can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.headers: dict[str, str] = {}
        self.information: dict[str, Any] = {}
        self.keysets: Any = {"keysets": [SAT]}
        app = web.Application()
        app.router.add_get("/relay", self._relay)
        app.router.add_get("/other", self._relay)
        app.router.add_get("/v1/info", self._info)
        app.router.add_get("/v1/keysets", self._keys)
        self.server = TestServer(app)

    def _dated(self) -> dict[str, str]:
        return {"Date": formatdate(time.time() + self.ahead, usegmt=True), **self.headers}

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return web.json_response(self.information, headers=self._dated())
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        await connection.receive()
        await connection.send_str('["EOSE","doctor"]')
        return connection

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "Nutshell/0", "nuts": NUTS}, headers=self._dated())

    async def _keys(self, request: web.Request) -> web.Response:
        return web.json_response(self.keysets)


@pytest.fixture
async def world():
    made = World()
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
def home(tmp_path, world):
    base = f"127.0.0.1:{world.server.port}"
    words = ["--relay", f"ws://{base}/relay", "--relay", DEAD, "--mint", f"http://{base}", "--no-passphrase"]
    assert run(["init", "--home", str(tmp_path / "h"), "--port", "0", *words]) == 0
    return tmp_path / "h"


async def found(home, start, end=""):
    return next(one for one in await diagnose(home) if one.name.startswith(start) and one.name.endswith(end))


async def test_a_relay_that_is_away_is_a_warning_while_another_one_answers(home):
    away = await found(home, "relay", "1:9")
    assert (away.state, away.outside) == (State.WARN, True)
    assert "connection refused" in away.detail
    assert "curl" in away.fix
    assert (await found(home, "relay", "/relay")).state is State.OK
    assert [one for one in await diagnose(home) if one.state is State.FAIL] == []


@pytest.mark.parametrize(("ahead", "state"), [(0, State.OK), (20, State.WARN), (300, State.FAIL)])
async def test_the_clock_is_compared_with_relays_and_mints(home, world, ahead, state):
    world.ahead = ahead
    check = await found(home, "clock")
    assert check.state is state, check
    assert check.fix == ("" if state is State.OK else "Run: sudo timedatectl set-ntp true")


async def test_an_answer_from_a_cache_is_as_old_as_it_says(home, world):
    world.ahead, world.headers = -300, {"Age": "300"}
    assert (await found(home, "clock")).state is State.OK


async def test_a_relay_that_wants_to_be_paid_is_a_warning(home, world):
    world.information = {"limitation": {"payment_required": True}, "payments_url": "https://pay.example"}
    check = await found(home, "relay", "/relay")
    assert check.state is State.WARN
    assert "https://pay.example" in check.detail


@pytest.mark.parametrize("keysets", [{"keysets": [SAT | {"active": False}]}, {"keysets": [SAT | {"unit": "usd"}]}, []])
async def test_a_mint_without_keys_for_sat_fails(home, world, keysets):
    world.keysets = keysets
    check = await found(home, "mint")
    assert (check.state, check.detail) == (State.FAIL, "It has no active keys for sat.")
