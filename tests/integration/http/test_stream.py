import asyncio
from collections.abc import AsyncIterator

import aiohttp

from node.http.hub import Hub
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN, plane


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
    async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
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


async def test_a_client_that_leaves_is_forgotten() -> None:
    async with plane() as (made, http):
        made.control._files._hub = Hub(keep_alive_s=0.02, look_s=0.02)
        answer = await http.get("/agents/a/logs/trace?watch=1")
        assert (await take(answer, 1))[0] == {"comment": "keep-alive"}
        assert made.control._files._hub.watchers == 1
        answer.close()
        async with asyncio.timeout(60):
            while made.control._files._hub.watchers:
                await asyncio.sleep(0.01)


async def test_many_who_watch_a_trace_share_one_reading_and_see_the_same() -> None:
    async with plane() as (made, http):
        for word in ("one", "two"):
            await made.log(word)
        past = {"Last-Event-ID": "0"}
        answers = [await http.get("/agents/a/logs/trace?watch=1", headers=past if n % 2 else {}) for n in range(20)]
        waiting = [asyncio.create_task(take(one, 4 if n % 2 else 2)) for n, one in enumerate(answers)]
        await asyncio.sleep(0.2)
        assert len(made.control._files._hub._shared) == 1
        for word in ("three", "four"):
            await made.log(word)
        found = await asyncio.gather(*waiting)
        assert {tuple(event["id"] for event in one[-2:]) for one in found} == {("3", "4")}
        assert all([event["id"] for event in one] == ["1", "2", "3", "4"] for one in found[1::2])
        for answer in answers:
            answer.close()


async def test_an_agent_and_the_operator_see_one_stream_each_as_themselves() -> None:
    async with plane() as (made, http):
        answers = [
            await http.get("/agents/a/logs/trace?watch=1", headers={"Authorization": f"Bearer {token}"})
            for token in (TOKEN, AGENT_TOKEN)
        ]
        waiting = [asyncio.create_task(take(answer, 1)) for answer in answers]
        await asyncio.sleep(0.2)
        assert {key[2] for key in made.control._files._hub._shared} == {"operator", "agent:a"}
        await made.log("now")
        assert all("now" in one[0]["data"] for one in await asyncio.gather(*waiting))
        for answer in answers:
            answer.close()


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
