"""`vendo doctor` as a command: beside a node that runs, after one that was killed, and where another took its port."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.market_part import ECHO_FREE, Spec, free_port, market, run, vendo

LIMIT_S = 30.0  # on a busy machine; alone it is two


def named(ran: Any) -> dict[str, Any]:
    return {one["name"]: one for one in ran.json["checks"]}


async def test_beside_a_node_and_after_its_death(tmp_path: Path) -> None:
    port, relay = free_port(), free_port()
    replace = {
        "port = 0 ": f"port = {port} ", "enabled = false": "enabled = true", "port = 7777": f"port = {relay}",
    }  # fmt: skip
    async with market(tmp_path, {"node": Spec(ECHO_FREE, replace)}, mint=False) as town:
        begun = time.monotonic()
        ran = await town.vendo("node", "doctor")
        assert time.monotonic() - begun < LIMIT_S
        checks = named(ran)
        assert ran.code == 0, [one for one in ran.json["checks"] if one["state"] == "fail"]
        assert ran.json["ok"] is True
        assert checks["process"]["state"] == checks["control plane"]["state"] == "ok"
        assert checks["port of the control plane"]["detail"] == f"127.0.0.1:{port} is this node's."
        assert checks["port of the relay"]["detail"] == f"127.0.0.1:{relay} is this node's."
        assert "the newest" in checks["database"]["detail"]
        assert checks["clock"]["state"] == "ok"
        assert checks[f"relay {town.relay}"]["state"] == "ok"
        assert all(one["fix"] for one in ran.json["checks"] if one["state"] != "ok")

        await town.nodes["node"].kill()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
        async with server:
            ran = await town.vendo("node", "doctor")
        assert ran.code == 78
        assert "it ended without a goodbye" in named(ran)["process"]["detail"]
        check = named(ran)["port of the control plane"]
        assert "is taken by process" in check["detail"]
        assert str(port) in check["fix"]


@pytest.mark.needs("mount")
async def test_without_a_network_names_are_not_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "h"
    words = ("--relay", "wss://relay.invalid", "--mint", "https://mint.invalid", "--no-passphrase", "--yes", "--json")
    assert (await vendo("init", "--home", str(home), "--port", "0", *words)).code == 0
    begun = time.monotonic()
    ran = await run("unshare", "--net", sys.executable, "-m", "cli.main", "doctor", "--home", str(home), "--json")
    assert time.monotonic() - begun < LIMIT_S
    assert ran.code == 69, ran
    told = {one["name"]: one for one in json.loads(ran.out)["checks"]}
    assert told["relay wss://relay.invalid"]["state"] == told["mint https://mint.invalid"]["state"] == "fail"
    assert told["clock"]["state"] == "ok"
