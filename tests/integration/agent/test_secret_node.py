"""Secrets in a whole node: over a restart, in a backup, in what it shows; and over HTTP, with goals and memory."""

import asyncio
from pathlib import Path

import aiohttp
import orjson
import pytest

from fs.error import AccessDenied, NoSuchFile, Unsupported
from fs.session import Role, Session
from node import home as homes
from node.agent.replay.redactor import HANDLE
from node.app import Node
from tests.integration.backup.home_part import make_home, parts_of, restored, take_to
from tests.prepared_part import prepared

OWN, SHARED = "sesame-open-0123456789", "the node's own one 0123"


def operator(node: Node) -> Session:
    return Session("operator", Role.OPERATOR, "k", unit=node.database)


async def names(node: Node, agent: str, session: Session) -> list[str]:
    found = await node.namespace(agent).read("/secrets", session)
    return [one["name"] for one in orjson.loads(found)]


async def test_secrets_are_kept_over_a_restart_and_in_a_backup_and_stand_open_nowhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ring = make_home(home)
    async with prepared(home, ring) as node:
        await node.namespace("agent").write("/secrets/own", OWN.encode(), operator(node))
        await node.namespace("node").write("/secrets/shared", SHARED.encode(), operator(node))
        assert node._redactor.text(f"it is {OWN}") == f"it is {HANDLE}"
    async with prepared(home, ring) as node:
        assert await names(node, "agent", operator(node)) == ["own"]
        assert await names(node, "node", operator(node)) == ["shared"]
        assert await node.safe.reveal("agent", "secret:own") == OWN
        assert await node.safe.reveal("agent", "secret:node/shared") == SHARED
        assert node._redactor.text(f"{OWN}, {SHARED}") == f"{HANDLE}, {HANDLE}", "known before anybody has used them"
    await take_to(home, ring, tmp_path / "backup")
    await restored(tmp_path / "backup", tmp_path / "again")
    async with prepared(tmp_path / "again", ring) as node:
        assert await node.safe.reveal("agent", "secret:own") == OWN
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for body in (*files, *parts_of(tmp_path / "backup").values()):
        assert OWN.encode() not in body
        assert SHARED.encode() not in body


async def test_an_agent_sees_the_names_of_its_own_and_sets_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with prepared(home, make_home(home)) as node:
        space, agent = node.namespace("agent"), Session("agent:agent", Role.AGENT, "k", unit=node.database)
        await space.write("/secrets/own", OWN.encode(), operator(node))
        assert await names(node, "agent", agent) == ["own"]
        for doing in (
            space.write("/secrets/own", b"another one", agent),
            space.remove("/secrets/own", agent),
            node.namespace("node").list("/secrets", agent),
        ):
            with pytest.raises(AccessDenied):
                await doing
        for session in (agent, operator(node)):
            with pytest.raises(Unsupported):
                await space.read("/secrets/own", session)
            with pytest.raises(NoSuchFile):
                await space.read("/secrets/other", session)
        assert await node.safe.reveal("agent", "secret:own") == OWN


async def test_over_http_all_three_are_files(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with prepared(home, make_home(home)) as node:
        ready, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(node.control.run(ready, stop))
        try:
            await asyncio.wait_for(ready.wait(), 60)
            headers = {"Authorization": f"Bearer {homes.read_token(home)}"}
            async with aiohttp.ClientSession(node.control.url, headers=headers) as http:
                told = [await _asked(http, *one[:3]) for one in _ANSWERS]
        finally:
            stop.set()
            await asyncio.wait_for(task, 60)
        for (method, path, _, wanted), (status, text) in zip(_ANSWERS, told, strict=True):
            assert status in wanted, (method, path, text)
        assert OWN not in "".join(text for _, text in told)
        assert orjson.loads(told[9][1].splitlines()[-1])["value"] == {"cups": 2}


async def _asked(http: aiohttp.ClientSession, method: str, path: str, body: str) -> tuple[int, str]:
    headers = {"Destination": f"/agents/agent{body}"} if method == "MOVE" else {}
    async with http.request(
        method, f"/agents/agent{path}", data=body if method == "PUT" else None, headers=headers
    ) as answer:
        return answer.status, await answer.text()


_ANSWERS = (
    ("PUT", "/secrets/own", OWN, {204}), ("GET", "/secrets/own", "", {405}), ("GET", "/secrets", "", {200}),
    ("PUT", "/secrets/own", "short", {400}), ("DELETE", "/secrets/own", "", {204}),
    ("DELETE", "/secrets/own", "", {404}), ("PUT", "/memory/context/tea", '{"cups": 2}', {204}),
    ("MKCOL", "/memory/notes", "", {201}), ("MOVE", "/memory/context/tea", "/memory/notes/tea", {201, 204}),
    ("GET", "/memory/export", "", {200}), ("DELETE", "/memory/notes", "", {409}),
    ("DELETE", "/memory/notes/tea", "", {204}), ("GET", "/memory/notes/tea", "", {404}),
    ("PUT", "/goals/tea", '{"description": "x"}', {204}), ("GET", "/goals/list", "", {200}),
    ("PUT", "/goals/tea", "{}", {400}), ("DELETE", "/goals/tea", "", {204}), ("GET", "/goals/tea", "", {404}),
)  # fmt: skip
