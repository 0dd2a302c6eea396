"""All verbs of files over HTTP: removal, renaming, directories, streams, long listings, long bodies both ways."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from core.unit import UnitOfWork
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record, Stat
from fs.service.transfer import transfer_service
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.depot import Depot
from node.http.control import ControlPlane
from node.http.token import Tokens
from node.storage.memory import MemoryDatabase
from tests.shelf_part import MOST, Keep

TOKEN = "operator-token"
MANY = 5_000


class Room:
    """A disk that never ends."""

    def check(self) -> None:
        pass


class Stage:
    """What is mounted for these tests."""

    def __init__(self, home: Path) -> None:
        self.keep, self.home = Keep(), home
        self.unit: UnitOfWork = MemoryDatabase()
        self.url = ""

    def namespace(self, name: str) -> Namespace:
        if name == "node":
            return Namespace([Mount("/agents", self.agents_tree(), Access.ADMIN)])
        return Namespace(
            [
                Mount("/keep", self.keep, Access.WRITE),
                Mount("/transfer", transfer_service(Depot(self.home, Room())), Access.ADMIN),
                Mount("/odd", self.odd(), Access.WRITE),
                Mount("/hud", self.odd(), Access.READ, public=True),
            ],
            {"/both": ("/keep", "/odd")},
        )

    def agents_tree(self) -> Tree:
        async def new(body: bytes, session: Session) -> bytes:
            return b'{"made": "x"}'

        async def delete(body: bytes, session: Session) -> bytes:
            return b'{"status": "deleted"}'

        async def find(name: str, session: Session) -> Folder:
            return Folder("one", {"delete": File("d", call=delete)})

        return Tree(Folder("agents", {"new": File("n", call=new)}, find=find))

    def odd(self) -> Tree:
        async def now(session: Session) -> bytes:
            return b"what is there\n"

        async def watch(session: Session, after: int | None) -> AsyncIterator[Record]:
            for number in range((after or 0) + 1, 4):
                yield Record(number, b"%d" % number, "n")

        async def entries(session: Session) -> AsyncIterator[Stat]:
            for number in range(MANY):
                yield Stat(f"{number:06}", False, readable=True)

        async def broken(session: Session) -> AsyncIterator[bytes]:
            yield b"x" * 1_000
            raise RuntimeError("in the middle")

        return Tree(
            Folder(
                "odd",
                {
                    "log": File("a stream", read=now, watch=watch, stream=True),
                    "value": File("a value that can be watched", read=now, watch=watch),
                    "many": Folder("many", entries=entries),
                    "broken": File("breaks", pieces=broken),
                },
            )
        )

    async def agents(self) -> AsyncIterator[dict[str, Any]]:
        for number in range(MANY):
            yield {"name": f"a{number:06}", "status": "dormant"}


@asynccontextmanager
async def plane(folder: Path) -> AsyncIterator[tuple[Stage, aiohttp.ClientSession]]:
    made = Stage(folder)
    control = ControlPlane(made.namespace, made.agents, Tokens.for_operator(TOKEN), made.unit)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(control.run(ready, stop))
    await ready.wait()
    try:
        async with aiohttp.ClientSession(control.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
            made.url = control.url
            yield made, http
            stop.set()
            await asyncio.wait_for(task, 60)
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def code(answer: aiohttp.ClientResponse) -> str:
    return str((await answer.json(content_type=None))["code"])


async def test_a_file_is_put_moved_and_deleted_and_a_directory_made(tmp_path: Path) -> None:
    async with plane(tmp_path) as (made, http):
        assert (await http.put("/agents/a/keep/f", data=b"body")).status == 204
        assert (await http.request("MKCOL", "/agents/a/keep/d")).status == 201
        for target in ("/agents/a/keep/d/g", f"{made.url}/agents/a/keep/d/h"):
            source = "/agents/a/keep/f" if target.endswith("g") else "/agents/a/keep/d/g"
            answer = await http.request("MOVE", source, headers={"Destination": target})
            assert answer.status == 204, await answer.text()
        assert made.keep.files == {(): None, ("d",): None, ("d", "h"): b"body"}
        answer = await http.delete("/agents/a/keep/d")
        assert (answer.status, await code(answer)) == (409, "fs.not_empty")
        assert (await http.delete("/agents/a/keep/d/h")).status == 204
        assert (await http.delete("/agents/a/keep/d")).status == 204
        answer = await http.delete("/agents/a/keep/d")
        assert (answer.status, await code(answer)) == (404, "fs.not_found")
        head = await http.head("/agents/a/keep")
        assert head.headers["X-File-Type"] == "directory"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Destination": ""},
        {"Destination": "/agents/b/keep/g"},
        {"Destination": "http://elsewhere:1/agents/a/keep/g"},
        {"Destination": "/agents/a/keep/../../b/keep/g"},
        {"Destination": "/agents/a/keep/%2e%2e/g"},
        {"Destination": "/agents/a/keep/g?x=1"},
        {"Destination": "/agents/a"},
        {"Destination": "/agents/a/odd/g"},
        {"Destination": "/agents/a/keep/f"},
        {"Destination": "http://[bad/agents/a/keep/g"},
    ],
)
async def test_a_move_to_nowhere_or_somebody_else_is_refused(headers: dict[str, str], tmp_path: Path) -> None:
    async with plane(tmp_path) as (made, http):
        made.keep.files["f",] = b"body"
        answer = await http.request("MOVE", "/agents/a/keep/f", headers=headers)
        assert 400 <= answer.status < 500, await answer.text()
        assert made.keep.files == {(): None, ("f",): b"body"}


async def test_a_stream_answers_plain_get_with_events_and_watch_0_with_what_is_there(tmp_path: Path) -> None:
    async with plane(tmp_path) as (_, http):
        async with http.get("/agents/a/odd/log") as answer:
            assert answer.content_type == "text/event-stream"
            assert (await answer.text()).count("event: n\n") == 3
        for path, query in (("log", "?watch=0"), ("value", ""), ("value", "?watch=0")):
            async with http.get(f"/agents/a/odd/{path}{query}") as answer:
                assert await answer.text() == "what is there\n"
        async with http.get("/agents/a/odd/value?watch=1&after=2") as answer:
            assert (await answer.text()).count("event: n\n") == 1
        async with http.get("/agents/a/odd/log?watch=maybe") as answer:
            assert (answer.status, await code(answer)) == (400, "http.bad_request")
        head = await http.head("/agents/a/odd/log")
        assert (head.headers["X-File-Type"], head.headers["X-File-Watch"]) == ("stream", "1")
        head = await http.head("/agents/a/odd/value")
        assert (head.headers["X-File-Type"], head.headers["X-File-Watch"]) == ("file", "1")


async def test_a_long_listing_comes_whole_in_every_form(tmp_path: Path) -> None:
    async with plane(tmp_path) as (_, http):
        async with http.get("/agents/a/odd/many/") as answer:
            assert answer.headers["Transfer-Encoding"] == "chunked"
            listed = await answer.json()
        assert [one["name"] for one in listed] == ["README", *(f"{number:06}" for number in range(MANY))]
        async with http.get("/agents/a/odd/many", headers={"Accept": "application/x-ndjson"}) as answer:
            lines = (await answer.text()).splitlines()
        assert [orjson.loads(line) for line in lines] == listed
        async with http.get("/agents/a/odd/many", headers={"Accept": "text/plain"}) as answer:
            assert (await answer.text()).splitlines()[-1] == f"{MANY - 1:06}"
        async with http.get("/agents") as answer:
            assert len(await answer.json()) == MANY
        async with http.get("/agents/a/odd/", headers={"Accept": "application/x-ndjson"}) as answer:
            assert len((await answer.text()).splitlines()) == 5


async def test_an_archive_goes_up_and_down_in_pieces_and_an_upload_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    body = secrets.token_bytes(3 << 20)
    where = "/agents/a/transfer/" + "ab" * 16

    async def pieces(upto: int) -> AsyncIterator[bytes]:
        for at in range(0, upto, 100_000):
            yield body[at : at + 100_000]
        if upto < len(body):
            raise ConnectionError

    async with plane(tmp_path) as (_, http):
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await http.put(where, data=pieces(1 << 20))
        assert (await http.get(where)).status == 404
        answer = await http.put(where, data=pieces(len(body)))
        assert answer.status == 204, await answer.text()
        async with http.get(where) as answer:
            assert await answer.read() == body
        answer = await http.put(where, data=b"another")
        assert (answer.status, await code(answer)) == (409, "fs.exists")
        assert [one["name"] for one in await (await http.get("/agents/a/transfer")).json()] == ["README", "ab" * 16]
        assert (await http.delete(where)).status == 204
        assert [path.name for path in (tmp_path / "transfer").iterdir()] == []
        for name in ("x", "AB" * 16, "ab" * 17):
            assert (await http.put(f"/agents/a/transfer/{name}", data=b"x")).status == 404


async def test_a_content_that_breaks_off_never_looks_whole(tmp_path: Path) -> None:
    async with plane(tmp_path) as (_, http):
        with pytest.raises(aiohttp.ClientError):
            async with http.get("/agents/a/odd/broken") as answer:
                await answer.read()


async def test_a_body_that_is_too_long_for_its_file_is_refused_before_it_has_come(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 65_536

    async with plane(tmp_path) as (made, http):
        made.keep.files["f",] = b"old"
        for data in (b"x" * (MOST + 1), b"x" * 100_000):
            answer = await http.put("/agents/a/keep/f", data=data)
            assert (answer.status, await code(answer)) == (413, "fs.too_large")
        try:
            answer = await http.put("/agents/a/keep/f", data=endless())
            assert answer.status == 413
            answer.close()
        except aiohttp.ClientError:
            pass  # the node has closed the connection while more was coming
        assert made.keep.files["f",] == b"old"


async def test_agents_are_made_and_deleted_at_the_short_addresses(tmp_path: Path) -> None:
    async with plane(tmp_path) as (_, http):
        assert await (await http.post("/agents", data=b"{}")).json() == {"made": "x"}
        assert await (await http.delete("/agents/x")).json() == {"status": "deleted"}
        answer = await http.put("/agents", data=b"{}")
        assert answer.status == 405


async def test_a_method_that_nobody_knows_and_a_body_where_none_belongs_are_refused(tmp_path: Path) -> None:
    async with plane(tmp_path) as (made, http):
        made.keep.files["f",] = b"old"
        for method in ("PATCH", "PROPFIND", "OPTIONS"):
            answer = await http.request(method, "/agents/a/keep/f")
            assert answer.status == 405, method
        for method in ("DELETE", "MKCOL"):
            answer = await http.request(method, "/agents/a/keep/f", data=b"body")
            assert answer.status == 400, method
        assert made.keep.files["f",] == b"old"
