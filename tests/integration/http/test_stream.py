import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from fs.protocol import Record
from node.http import stream
from tests.integration.http.plane_part import plane


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif line.startswith(":"):
            yield {"comment": line[1:].strip()}
        else:
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value


async def take(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    found = []
    async with asyncio.timeout(5):
        async for event in events(answer):
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_stream_resumes_from_a_cursor_without_gap_or_repeat() -> None:
    async with plane() as (made, http):
        for word in ("one", "two", "three"):
            await made.log(word)
        async with http.get("/agents/a/logs/trace?watch=1&after=0") as answer:
            assert answer.content_type == "text/event-stream"
            first = await take(answer, 2)
        assert [event["event"] for event in first] == ["said", "said"]
        async with http.get("/agents/a/logs/trace?watch=1", headers={"Last-Event-ID": first[-1]["id"]}) as answer:
            waiting = asyncio.create_task(take(answer, 2))
            await asyncio.sleep(0.05)
            await made.log("four")
            rest = await waiting
        assert ["three" in rest[0]["data"], "four" in rest[1]["data"]] == [True, True]
        ids = [int(event["id"]) for event in first + rest]
        assert ids == sorted(set(ids))


async def test_without_a_cursor_only_what_comes_is_sent_and_all_watchers_see_it() -> None:
    async with plane() as (made, http):
        await made.log("past")
        headers = {"Accept": "text/event-stream"}
        answers = [await http.get("/agents/a/logs/trace", headers=headers) for _ in range(5)]
        waiting = [asyncio.create_task(take(answer, 1)) for answer in answers]
        await asyncio.sleep(0.1)
        await made.log("now")
        found = await asyncio.gather(*waiting)
        assert all("now" in one[0]["data"] for one in found)
        assert len({one[0]["id"] for one in found}) == 1
        for answer in answers:
            answer.close()


async def test_a_finished_stream_ends_and_says_so() -> None:
    async with (
        plane() as (_, http),
        http.get("/agents/a/odd/short?watch=true", headers={"Last-Event-ID": "1"}) as answer,
    ):
        async with asyncio.timeout(5):
            found = [event async for event in events(answer)]
    assert [event.get("id") for event in found] == ["2", "3", None]
    assert found[0]["data"] == "line 2\nof two"
    assert (found[-1]["event"], found[-1]["data"]) == ("end", '{"reason":"complete"}')


async def test_streams_end_when_the_node_stops() -> None:
    async with plane() as (made, http):
        answer = await http.get("/agents/a/logs/trace?watch=1")
        reading = asyncio.create_task(take(answer, 1))
        await asyncio.sleep(0.05)
        made.control._stop.set()
        assert (await reading)[0]["data"] == '{"reason":"shutdown"}'
        assert made.control._streams <= 1


async def test_a_client_that_leaves_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.http.control.serve_stream", _hurried)
    async with plane() as (made, http):
        answer = await http.get("/agents/a/logs/trace?watch=1")
        assert (await take(answer, 1))[0] == {"comment": "keep-alive"}
        assert made.control._streams == 1
        answer.close()
        async with asyncio.timeout(5):
            while made.control._streams:
                await asyncio.sleep(0.01)


async def _hurried(request, records: AsyncIterator[Record], stop: asyncio.Event):  # type: ignore[no-untyped-def]
    return await stream.serve_stream(request, records, stop, keep_alive_s=0.02)


async def test_what_cannot_be_watched_says_so_before_the_stream_begins() -> None:
    async with plane() as (_, http):
        for path, status in (
            ("/agents/a/identity/pubkey?watch=1", 405),
            ("/agents/a/nothing?watch=1", 404),
            ("/agents/a/logs/trace?watch=1&after=x", 400),
            ("/agents/a/logs/trace?watch=1&after=-1", 400),
            ("/agents/a/logs/trace?watch=1&after=99999999999999999999", 400),
        ):
            async with http.get(path) as answer:
                assert answer.status == status, path
        async with http.get("/agents/a/logs/trace?watch=0", headers={"Accept": "text/event-stream"}) as answer:
            assert answer.content_type != "text/event-stream"
