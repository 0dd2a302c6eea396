"""A whole node on a small disk that fills up: it says so, takes nothing new, goes on with what it has, and recovers."""

from pathlib import Path
from typing import Any

import pytest

from node.disk import free_bytes
from tests.disk_part import small_disk
from tests.market_part import Market, Spec, market, until

pytestmark = pytest.mark.needs("mount")
MB = 1 << 20


async def _ready(town: Market) -> tuple[int, Any]:
    async with town.http.get(f"{town.nodes['node'].said['control']}/readyz") as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_node_whose_disk_is_nearly_full_says_so_and_takes_nothing_new_until_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "small", 96) as folder:
        specs: dict[str, Any] = {"node": Spec(replace={"min_free_mb = 128 ": "min_free_mb = 32 "})}
        async with market(folder, specs, mint=False) as town:
            status, answer = await town.call("node", "node/agents/new", {"name": "b1", "program": "buyer"}, "b1")
            assert status == 200, answer
            assert (await _ready(town))[0] == 200
            ran = await town.vendo("node", "send", "b1", "hello")
            assert ran.code == 0, ran
            await until(lambda: _quiet(town), "its tick")

            (folder / "ballast").write_bytes(bytes(max(0, free_bytes(folder) - 20 * MB)))
            await until(lambda: _is(town, 503), "the node to notice")
            _, body = await _ready(town)
            assert "disk" in str(body)
            assert (await town.get("node", "node/status"))["disk"]["low"] is True
            (tmp_path / "small-file").write_bytes(b"no archive")
            for argv, code in (
                (("send", "b1", "not now"), "node.disk_low"),
                (("agent", "export", "b1", str(tmp_path / "x")), "node.disk_low"),
                (("agent", "import", str(tmp_path / "small-file")), "node.disk_low"),
                (("agent", "import", str(folder / "ballast")), "backup.room"),
            ):
                ran = await town.vendo("node", *argv)
                assert (ran.code, ran.error_code) == (75, code), ran
            assert not (tmp_path / "x").exists()
            assert (await town.vendo("node", "gc")).code == 0, "what is old may go, just now"
            ran = await town.vendo("node", "backup", str(tmp_path / "backup"))
            assert ran.code == 0, "and what is there can be brought to another disk"
            assert (await town.get("node", "b1/status"))["queue_depth"] == 0

            (folder / "ballast").unlink()
            await until(lambda: _is(town, 200), "the node to go on by itself")
            ran = await town.vendo("node", "send", "b1", "now again")
            assert ran.code == 0, ran
            await until(lambda: _quiet(town), "its tick")
            async with town.http.get(
                f"{town.nodes['node'].said['control']}/metrics", headers=town.headers("node")
            ) as metrics:
                text = await metrics.text()
            assert "disk" in text


async def _is(town: Market, status: int) -> bool:
    return (await _ready(town))[0] == status


async def _quiet(town: Market) -> bool:
    status = await town.get("node", "b1/status")
    return bool(status["ticks"] and not status["queue_depth"])
