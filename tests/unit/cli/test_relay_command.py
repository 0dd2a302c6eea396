"""`vendo relay list` against a control plane."""

import json
import time

from cli.main import run
from cli.output import ExitCode
from node.overview import RelayOverview
from node.storage.memory import MemoryDatabase
from relays.health import RelayHealth
from tests.unit.cli.node_part import running


class Watched:
    urls = ("wss://good", "wss://bad")

    def __init__(self, *states: RelayHealth) -> None:
        self.states = list(states)

    def health(self) -> list[RelayHealth]:
        return self.states


GOOD = RelayHealth("wss://good", up=True, since=int(time.time()) - 7_300, received=12)
BAD = RelayHealth(
    "wss://bad", failures=4, last_error="refused \x1b[31m", forged=2, stopped={"notes": "blocked: not for you"}
)
GOOD.delay.add(0.012)
NAMED = RelayHealth("wss://named", up=True)


async def shown(*states: RelayHealth) -> list[dict[str, object]]:
    return await RelayOverview(Watched(*states), MemoryDatabase()).relays()


async def test_each_relay_is_a_line_that_says_how_it_is_and_what_is_wrong(tmp_path, capsys):
    async with running(tmp_path, {"nostr/relays": await shown(GOOD, BAD, NAMED)}) as node:
        assert await node.vendo("relay", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["wss://good", "up", "2", "h", "12"]
    assert "12/12 ms" in lines[1]
    assert lines[2].startswith("wss://bad")
    for word in ("down", "refused", "notes: blocked: not for you", "2 forged", "4 tries in a row failed"):
        assert word in lines[2]
    assert "\x1b" not in lines[2]
    assert "wss://named (not ours)" in lines[3]


async def test_with_json_it_is_all_that_is_known(tmp_path, capsys):
    rows = await shown(GOOD)
    async with running(tmp_path, {"nostr/relays": rows}) as node:
        assert await node.vendo("relay", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == rows


async def test_without_relays_it_says_so(tmp_path, capsys):
    async with running(tmp_path, {"nostr/relays": []}) as node:
        assert await node.vendo("relay", "list") == 0
    assert "no relay" in capsys.readouterr().err


def test_without_a_running_node_it_exits_69_and_says_so(tmp_path, capsys):
    assert run(["relay", "list", "--home", str(tmp_path)]) == ExitCode.UNAVAILABLE
    assert "not running" in capsys.readouterr().err
