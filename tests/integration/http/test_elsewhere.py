"""Two control planes of one node: whichever is asked, the steward answers, and nothing is handed over twice."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fs.namespace import Access, Mount
from fs.service.transfer import transfer_service
from fs.session import Role
from node.depot import Depot
from node.http.control import ControlPlane
from node.http.elsewhere import FOR, SHELF, Elsewhere
from node.http.token import Grant, Tokens, digest
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN, Plane
from tests.integration.http.test_file_verb import Room

MEMBERS = "member-token"
OX = "ab" * 32


@dataclass
class Peers:
    """What one process knows of the others."""

    leads: bool = False
    host: str = "here"
    about: dict[str, str] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)

    def steward(self) -> dict[str, str]:
        return self.about

    def neighbours(self) -> list[str]:
        return self.beside


@dataclass
class Process:
    plane: Plane
    peers: Peers
    elsewhere: Elsewhere
    http: aiohttp.ClientSession
    ready: list[bool]
    files: dict[tuple[str, str], bytes]


@asynccontextmanager
async def process(name: str, **about: Any) -> AsyncIterator[Process]:
    plane, peers, ready = Plane(), Peers(**about), [False]
    files: dict[tuple[str, str], bytes] = {}

    async def shelf(agent: str, ox: str) -> bytes | None:
        return files.get((agent, ox))

    async with aiohttp.ClientSession() as inner:
        elsewhere = Elsewhere(peers, lambda: ready[0], MEMBERS, inner, shelf)
        grants = [
            (digest(f"{TOKEN}-{name}"), Grant("operator", Role.OPERATOR)),
            (digest(f"{AGENT_TOKEN}-{name}"), Grant("agent:a", Role.AGENT)),
        ]
        plane.control = ControlPlane(
            plane.namespace, plane.agents, Tokens(grants), plane.unit, checks={}, elsewhere=elsewhere
        )
        up, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(plane.control.run(up, stop))
        await up.wait()
        headers = {"Authorization": f"Bearer {TOKEN}-{name}"}
        try:
            async with aiohttp.ClientSession(plane.control.url, headers=headers) as http:
                yield Process(plane, peers, elsewhere, http, ready, files)
                stop.set()
                await asyncio.wait_for(task, 60)
        finally:
            stop.set()
            await asyncio.wait_for(task, 60)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Process, Process]]:
    """The steward, and another one that knows it."""
    async with process("one", leads=True) as one:
        one.ready[0] = True
        about = {"url": one.plane.control.url, "host": "here"}
        async with process("two", about=about, beside=[one.plane.control.url]) as two:
            yield one, two


async def test_the_other_one_answers_like_the_steward_with_its_own_token() -> None:
    async with pair() as (one, two):
        async with two.http.post("/agents/a/odd/echo", data=b'{"x": 1}', headers={"Idempotency-Key": "k"}) as answer:
            assert (answer.status, await answer.json(), answer.headers["Idempotency-Key"]) == (200, {"x": 1}, "k")
        assert (one.plane.keys, two.plane.keys) == (["k"], [])
        async with two.http.get("/agents/a/odd/binary") as answer:
            assert (await answer.read(), answer.content_type) == (b"\xff\x00", "application/octet-stream")
        async with two.http.head("/agents/a/odd/echo") as answer:
            assert answer.headers["Allow"] == "HEAD, POST"
        async with two.http.get("/agents/a/goals/", headers={"Accept": "text/plain"}) as answer:
            assert answer.status == 200
        async with two.http.get("/agents") as answer:
            assert [agent["name"] for agent in await answer.json()] == ["a", "b"]


async def test_an_upload_of_any_length_goes_on_in_pieces_and_one_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    body, where = secrets.token_bytes(3 << 20), "/agents/a/transfer/" + "ab" * 16

    async def pieces(upto: int) -> AsyncIterator[bytes]:
        for at in range(0, upto, 100_000):
            yield body[at : at + 100_000]
        if upto < len(body):
            raise ConnectionError

    async with pair() as (one, two):
        one.plane.more.append(Mount("/transfer", transfer_service(Depot(tmp_path, Room())), Access.ADMIN))
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await two.http.put(where, data=pieces(1 << 20))
        async with two.http.get(where) as answer:
            assert answer.status == 404
        for data in (pieces(len(body)), body):
            async with two.http.put(where, data=data) as answer:
                assert answer.status == 204, await answer.text()
            async with one.http.get(where) as answer:
                assert await answer.read() == body
            async with two.http.delete(where) as answer:
                assert answer.status == 204
        assert list((tmp_path / "transfer").iterdir()) == []


async def test_a_body_that_the_file_does_not_take_is_refused_as_the_steward_refuses_it() -> None:
    async with pair() as (one, two):
        for http in (one.http, two.http):
            async with http.put("/agents/a/goals/x", data=b"x" * (3 << 20)) as answer:
                assert (answer.status, (await answer.json())["code"]) == (413, "fs.too_large")
            async with http.put("/agents/a/goals/x", data=b"x", headers={"Content-Encoding": "gzip"}) as answer:
                assert (answer.status, (await answer.json())["code"]) == (415, "http.encoded")


async def test_a_token_that_is_no_text_is_one_that_nobody_knows() -> None:
    async with pair() as (_, two):
        port = int(two.plane.control.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /agents HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer ".encode()
        writer.write(head + b"\xff\xfe\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(60):
            assert (await reader.read()).split(b" ", 2)[1] == b"401"
        writer.close()


async def test_an_error_of_the_steward_comes_as_it_is_and_a_key_is_made_once() -> None:
    async with pair() as (one, two):
        async with two.http.get("/agents/nobody/goals/") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            key = answer.headers["Idempotency-Key"]
        assert one.plane.keys == [key]


async def test_what_a_caller_may_do_is_what_it_may_do_there() -> None:
    async with pair() as (_, two):
        agent = {"Authorization": f"Bearer {AGENT_TOKEN}-two"}
        async with two.http.get("/agents/a/odd/binary", headers=agent) as answer:
            assert answer.status == 200
        async with two.http.get("/agents/a/admin/binary", headers=agent) as answer:
            assert answer.status in (403, 404)
        async with two.http.get("/agents/b/odd/binary", headers=agent) as answer:
            assert answer.status == 403
        for token in ("wrong", f"{TOKEN}-one"):
            async with two.http.get("/agents", headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == 401


async def test_a_stream_comes_through_as_it_grows_and_ends_with_the_watcher() -> None:
    async with pair() as (one, two):
        async with two.http.get("/agents/a/logs/trace?watch=1&after=0") as answer:
            assert answer.content_type == "text/event-stream"
            await one.plane.log("first")
            await one.plane.log("second")
            seen = b""
            async with asyncio.timeout(60):
                while b"second" not in seen:
                    seen += await answer.content.readany()
            assert b"first" in seen
        async with two.http.get("/agents/a/odd/short?watch=1", headers={"Last-Event-ID": "2"}) as answer:
            text = await answer.text()
        assert "id: 3" in text
        assert "id: 2" not in text
        assert "complete" in text


async def test_health_and_its_own_status_each_tells_by_itself() -> None:
    async with pair() as (one, two):
        one.ready[0] = False
        for path in ("/healthz", "/readyz"):
            async with two.http.get(path) as answer:
                assert answer.status == 200
        async with two.http.get("/agents/node/status") as answer:
            assert (await answer.json())["code"] == "not_found", "it was looked up here, where there is no such tree"


async def test_without_a_steward_that_can_be_reached_it_says_so_and_does_nothing() -> None:
    async with pair() as (one, two):
        two.peers.about = {}
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "node.no_steward")
        two.peers.about = {"url": "http://127.0.0.1:9", "host": "here"}
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "node.no_steward")
        two.peers.about = {"url": one.plane.control.url, "host": "there"}
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            problem = await answer.json()
        assert problem["code"] == "node.no_steward"
        assert one.plane.control.url in problem["remedy"]
        assert one.plane.keys == two.plane.keys == []


async def test_a_request_is_handed_over_once() -> None:
    async with pair() as (one, two):
        one.ready[0], one.peers.leads = False, False
        one.peers.about = {"url": two.plane.control.url, "host": "here"}  # each takes the other for the steward
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            assert (await answer.json())["code"] == "node.no_steward"
        one.peers.leads = True
        async with two.http.post("/agents/a/odd/echo", data=b"x") as answer:
            assert (await answer.json())["code"] == "node.no_steward", "it has not taken up its work yet"
        assert one.plane.keys == two.plane.keys == []


async def test_members_find_an_agent_s_file_with_each_other_and_nobody_else_does() -> None:
    async with pair() as (one, two):
        one.files["a", OX] = b"\x00bytes"
        assert await two.elsewhere.find("a", OX) == b"\x00bytes"
        assert await two.elsewhere.find("b", OX) is None
        assert await two.elsewhere.find("../a", OX) == b"\x00bytes", "a path is no way out"
        async with two.http.get(f"{one.plane.control.url}{SHELF}a/{OX}") as answer:
            assert answer.status == 401
        async with one.http.get(f"{SHELF}a/{OX}", headers={FOR: "operator"}) as answer:
            assert answer.status == 404
