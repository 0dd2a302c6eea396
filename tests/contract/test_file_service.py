"""What every file service keeps, whatever it is about: one suite over all that a node mounts, real parts behind them.

The node is built as `vendo up` builds it, on a real database, and does not run: nothing outside of it answers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from core.error import InvalidInput, NotFound, VendoError
from core.unit import Insert
from fs.error import BadPath, BodyTooLarge, IsDirectory, NotDirectory, Unsupported
from fs.handle import Open, Seen, open_file
from fs.path import MAX_NAME, MAX_PATH
from fs.protocol import Stat, let_go
from fs.session import Batch, Role, Session
from fs.tree import README, SMALL_BODY
from node.agent.log import topic
from node.app import Node
from tests.integration.backup.home_part import make_home
from tests.prepared_part import prepared

TREES = ("node", "agent")
HOSTILE = [
    b"", b" ", b"\xff\xfe", b"\0", b"{", b"[]", b"null", b"1e999", b'{"a":1}', b'"text"', b"{" * 3_000,
    b"[" * 60_000, b'{"name":"\\ud800"}', b'{"name":"a","name":"b"}', b'{"kind":1e400}', b"'; DROP TABLE agent; --",
]  # fmt: skip
NAMES = ["x", "none-of-this", "\N{GREEK SMALL LETTER ALPHA}", "-", "a" * MAX_NAME, "' or 1=1 --", "0" * 64, "~"]
# What these do would end the node, or take minutes of waiting for parts that do not run here
LEFT_OUT = {"/wallet/restore", "/upkeep/seal"}


@asynccontextmanager
async def built(folder: Path) -> AsyncIterator[Node]:
    """A node with all of its services, not running."""
    async with prepared(folder, make_home(folder)) as node:
        yield node


def operator(node: Node, key: str = "k") -> Session:
    return Session("operator", Role.OPERATOR, key, unit=node.database)


async def every_file(node: Node, tree: str) -> AsyncIterator[tuple[str, Stat]]:
    """Every path that a listing leads to, with what the listing says of it."""
    space, session = node.namespace(tree), operator(node)
    waiting = ["/"]
    while waiting:
        above = waiting.pop()
        for stat in await space.list(above, session):
            path = above.rstrip("/") + "/" + stat.name
            yield path, stat
            if stat.is_dir:
                waiting.append(path)


async def outcome(doing: Awaitable[object]) -> VendoError | None:
    """The refusal, or None; everything else is a fault of the service."""
    try:
        async with asyncio.timeout(20):
            await doing
    except VendoError as error:
        return error
    return None


@pytest.mark.parametrize("tree", TREES)
async def test_what_is_listed_is_there_and_is_what_the_listing_says(tree: str, tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, session, seen = node.namespace(tree), operator(node), 0
        async for path, listed in every_file(node, tree):
            stat = await space.stat(path, session)
            assert (stat.name, stat.is_dir) == (listed.name, listed.is_dir), path
            seen += 1
            if stat.is_dir:
                continue
            refused = await outcome(space.list(path, session))
            assert isinstance(refused, NotDirectory), path
        assert seen > 40


@pytest.mark.parametrize("tree", TREES)
async def test_every_directory_has_a_readme_that_names_all_of_its_fixed_entries(tree: str, tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, session = node.namespace(tree), operator(node)
        async for path, listed in every_file(node, tree):
            if not listed.is_dir:
                continue
            text = (await space.read(f"{path}/{README}", session)).decode()
            for stat in await space.list(path, session):
                if stat.name != README and stat.about and not stat.is_dir:
                    assert stat.name in text, path
            refused = await outcome(space.read(path, session))
            assert refused is None or isinstance(refused, IsDirectory), path


@pytest.mark.parametrize("tree", TREES)
async def test_a_file_does_what_it_says_it_can_and_refuses_the_rest(tree: str, tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, session = node.namespace(tree), operator(node)
        async for path, stat in every_file(node, tree):
            if stat.is_dir:
                continue
            if stat.readable:
                refused = await outcome(space.read(path, session))
                assert refused is None or not isinstance(refused, Unsupported), f"{path}: {refused}"
            else:
                assert isinstance(await outcome(space.read(path, session)), Unsupported), path
            if not stat.writable:
                assert isinstance(await outcome(space.write(path, b"x", session)), Unsupported), path
            if not stat.callable:
                assert isinstance(await outcome(space.call(path, b"x", session)), Unsupported), path
            if not stat.watchable:
                assert isinstance(await outcome(anext(space.watch(path, session, 0))), Unsupported), path
            if not stat.removable:
                assert isinstance(await outcome(space.remove(path, session)), Unsupported), path
            assert isinstance(await outcome(space.mkdir(path + "/below", session)), VendoError), path
            assert await outcome(space.mkdir(path, session)) is not None, path


@pytest.mark.parametrize("tree", TREES)
async def test_names_that_are_not_there_and_names_that_are_none_are_refused_everywhere(
    tree: str, tmp_path: Path
) -> None:
    async with built(tmp_path / "home") as node:
        space, session = node.namespace(tree), operator(node)
        folders = [path async for path, stat in every_file(node, tree) if stat.is_dir]
        for path in folders:
            for name in NAMES:
                where = f"{path}/{name}"
                if len(where) > MAX_PATH:
                    continue
                refused = await outcome(space.stat(where, session))
                assert refused is None or isinstance(refused, NotFound | InvalidInput), f"{where}: {refused}"
            for name in ("..", ".", "", "a%2fb", "a\\b", "a\0", "a\n", " a", "e\u0301", "\u202e", "a" * (MAX_NAME + 1)):
                for doing in (
                    space.stat(f"{path}/{name}", session),
                    space.read(f"{path}/{name}", session),
                    space.write(f"{path}/{name}", b"", session),
                    space.call(f"{path}/{name}", b"", session),
                    space.remove(f"{path}/{name}", session),
                    space.mkdir(f"{path}/{name}", session),
                    space.rename(f"{path}/{name}", "/x", session),
                ):
                    assert isinstance(await outcome(doing), BadPath), f"{path}/{name!r}"


@pytest.mark.parametrize("tree", TREES)
async def test_no_body_gets_more_out_of_a_file_than_an_answer_or_a_refusal(tree: str, tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, tried = node.namespace(tree), 0
        paths = [(path, stat) async for path, stat in every_file(node, tree) if stat.writable or stat.callable]
        for path, stat in paths:
            if path in LEFT_OUT:
                continue
            for number, body in enumerate(HOSTILE):
                session = operator(node, f"{path}-{number}")
                for doing in (
                    *([space.write(path, body, session)] if stat.writable else []),
                    *([space.call(path, body, session)] if stat.callable else []),
                ):
                    await outcome(doing)
                    tried += 1
        assert tried > 100


@pytest.mark.parametrize("tree", TREES)
async def test_a_body_that_is_longer_than_a_file_takes_is_refused_also_in_pieces(tree: str, tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, session = node.namespace(tree), operator(node)

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * SMALL_BODY

        async for path, _ in every_file(node, tree):
            stat = await space.stat(path, session)
            if stat.is_dir or stat.max_bytes is None:
                continue
            long = b"x" * (stat.max_bytes + 1)
            if stat.writable:
                assert isinstance(await outcome(space.write(path, long, session)), BodyTooLarge), path
                assert isinstance(await outcome(space.write(path, endless(), session)), BodyTooLarge), path
            if stat.callable:
                assert isinstance(await outcome(space.call(path, long, session)), BodyTooLarge), path


async def test_two_watchers_see_the_same_and_a_late_one_sees_the_past(tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space = node.namespace("agent")
        for number in range(5):
            await space.call("/inbox/new", b"hello %d" % number, operator(node, f"k{number}"))
        streams = [path async for path, stat in every_file(node, "agent") if stat.watchable]
        assert streams

        async def gather(path: str, after: int, most: int, patience: float = 30.0) -> list[tuple[int, bytes]]:
            """So many records, or fewer if nothing comes for a while."""
            found: list[tuple[int, bytes]] = []
            records = space.watch(path, operator(node), after)
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                while len(found) < most:
                    record = await asyncio.wait_for(anext(records), patience)
                    found.append((record.id, record.data))
            await let_go(records)
            return found

        for path in streams:
            first = await gather(path, 0, 1_000, patience=0.5)
            again, late = await asyncio.gather(
                gather(path, 0, len(first)), gather(path, first[0][0] if first else 0, max(0, len(first) - 1))
            )
            assert again == first, path
            assert late == first[1:], path
            assert [one for one, _ in first] == sorted({one for one, _ in first}), path


async def test_the_status_is_read_the_inbox_written_and_the_trace_watched(tmp_path: Path) -> None:
    """The exit line of the seed's second milestone."""
    async with built(tmp_path / "home") as node:
        space, session = node.namespace("agent"), operator(node)
        assert orjson.loads(await space.read("/status", session))["name"] == "agent"
        async with await open_file(Seen(space, session), "/inbox", Open.WRITE) as handle:
            await handle.write(b"hel")
            await handle.write(b"lo")
        (row,) = await node.database.select("inbox", {"agent": "agent", "cause": "message"})
        assert orjson.loads(row["payload"]) == {"text": "hello"}
        records = space.watch("/logs/trace", session)
        waiting = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.2)
        log = {"agent": "agent", "at_ms": 1, "type": "said", "data": '{"word":"x"}'}
        await node.database.commit([Insert("log", log)])
        node.feed.grew(topic("agent"))
        record = await asyncio.wait_for(waiting, 30)
        assert orjson.loads(record.data)["data"] == {"word": "x"}
        await let_go(records)


async def test_a_tick_writes_nothing_before_its_commit_whatever_it_asks_of_its_files(tmp_path: Path) -> None:
    async with built(tmp_path / "home") as node:
        space, before = node.namespace("agent"), await _rows(node)
        session = Session("agent:agent", Role.AGENT, "tick-1", batch=Batch())
        async for path, stat in every_file(node, "agent"):
            for body in (b"hello", b'{"description":"x"}', b'{"text":"x"}'):
                if stat.writable:
                    await outcome(space.write(path, body, session))
                if stat.callable:
                    await outcome(space.call(path, body, session))
            if stat.removable:
                await outcome(space.remove(path, session))
        assert await _rows(node) == before


async def _rows(node: Node) -> dict[str, int]:
    tables = ("agent", "inbox", "goal", "alarm", "interest", "hook", "item", "effect", "entry", "outbox", "purchase")
    return {table: await node.database.count(table, {}) for table in tables}
