"""`vendo inbox` and `vendo hook` against a control plane with the real inbox and the real hooks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from core.unit import Update
from fs.namespace import Access, Mount, Namespace
from fs.service.hooks import hooks_service
from fs.service.inbox import inbox_service
from node.agent.wake.porter import AgentHooks
from node.http.control import ControlPlane
from node.http.token import Tokens
from node.storage.memory import MemoryDatabase
from tests.integration.agent.inbox_part import Desk, desk, letter
from tests.unit.cli.node_part import SECRET, write_home


@asynccontextmanager
async def node(home: Path) -> AsyncIterator[Desk]:
    one = desk(MemoryDatabase())
    hooks = AgentHooks("a", one.unit, one.clock, lambda hook: f"secret-of-{hook}")
    spaces = Namespace(
        [
            Mount("/inbox", inbox_service(one.inbox()), Access.READ),
            Mount("/hooks", hooks_service(hooks), Access.ADMIN),
        ]
    )

    async def agents() -> list[dict[str, Any]]:
        return []

    plane = ControlPlane(lambda _: spaces, agents, Tokens.for_operator(SECRET), one.unit)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(plane.run(ready, stop))
    await ready.wait()
    write_home(home, plane.url)
    try:
        yield one
    finally:
        stop.set()
        await task


async def vendo(home: Path, *words: str) -> int:
    return await asyncio.to_thread(run, [*words, "--home", str(home)])


async def answer(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> Any:
    assert await vendo(home, *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


async def fill(one: Desk) -> None:
    for name in ("m1", "m2", "m3"):
        await one.unit.commit([letter("a", name)])
    failed = {"state": "dead", "error": "agent.failed: no", "tries": 5}
    for name in ("m2", "m3"):
        await one.unit.commit([Update("inbox", {"envelope_id": name}, set=failed)])


async def test_what_waits_and_what_is_dead_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with node(tmp_path) as one:
        await fill(one)
        assert [row["envelope_id"] for row in await answer(capsys, tmp_path, "inbox", "list", "a")] == ["m1"]
        assert [row["envelope_id"] for row in await answer(capsys, tmp_path, "inbox", "dead", "a")] == ["m2", "m3"]
        assert await vendo(tmp_path, "inbox", "dead", "a") == 0
        assert "agent.failed: no" in capsys.readouterr().out


async def test_one_or_all_of_the_dead_are_replayed_or_discarded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node(tmp_path) as one:
        await fill(one)
        for _ in range(2):
            found = await answer(capsys, tmp_path, "inbox", "replay", "a", "m2")
            assert found == {"envelope_id": "m2", "state": "new"}
        found = await answer(capsys, tmp_path, "inbox", "discard", "a", "m3")
        assert found == {"envelope_id": "m3", "state": "discarded"}
        assert await answer(capsys, tmp_path, "inbox", "replay", "a", "--all") == {"replayed": 0}
        assert await answer(capsys, tmp_path, "inbox", "discard", "a", "--all", "--yes") == {"discarded": 0}
        assert await one.states() == {"m1": "new", "m2": "new", "m3": "discarded"}
        assert await vendo(tmp_path, "inbox", "replay", "a", "nobody") == 65
        assert "not_found" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("replay", "a"), ("discard", "a"), ("replay", "a", "m1", "--all")])
async def test_one_or_all_must_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    async with node(tmp_path) as one:
        await fill(one)
        assert await vendo(tmp_path, "inbox", *words) == 64
        assert "--all" in capsys.readouterr().err
        assert (await one.states())["m2"] == "dead"


async def test_hooks_are_made_listed_and_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with node(tmp_path):
        made = await answer(capsys, tmp_path, "hook", "new", "a", "ci", "--scheme", "token", "--key", "k")
        assert (made["name"], made["event"], made["scheme"]) == ("ci", "webhook.ci", "token")
        assert await answer(capsys, tmp_path, "hook", "new", "a", "ci", "--scheme", "token", "--key", "k") == made
        assert await answer(capsys, tmp_path, "hook", "list", "a") == [made]
        shown = await answer(capsys, tmp_path, "hook", "secret", "a", made["id"])
        assert shown == {"id": made["id"], "secret": f"secret-of-{made['id']}"}
        assert await vendo(tmp_path, "hook", "list", "a") == 0
        assert "secret-of" not in capsys.readouterr().out
        assert (await answer(capsys, tmp_path, "hook", "delete", "a", made["id"]))["status"] == "deleted"
        assert await answer(capsys, tmp_path, "hook", "list", "a") == []
        assert await vendo(tmp_path, "hook", "new", "a", "A B") == 64
        capsys.readouterr()
