"""Agents that are reached by webhook, over real HTTP: at once, later, slowly, wrongly, and across a restart."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from node.agent.outside.host import PREFIX
from node.agent.outside.turn import Door, Turn
from node.agent.outside.webhook import WebhookConfig
from node.agent.replay.rerun import replay
from node.agent.tick.limit import Own, TickLimits
from tests.integration.agent.outside_part import (
    AGENT_TOKEN,
    OPERATOR_TOKEN,
    QUICK,
    Call,
    Holder,
    Outskirts,
    ends,
    outskirts,
)

SECRET = "whsec_of-a-1"
Here = tuple[Outskirts, aiohttp.ClientSession]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with outskirts(tmp_path) as made:
        yield made


async def test_an_answer_with_a_commit_ends_the_turn_at_once(here: Here) -> None:
    node, _ = here
    node.receiver.answer = ends(
        {
            "commit": True,
            "state": {"heard": 1},
            "writes": [
                {"path": "/post/new", "body": "hello"},
                {"method": "PUT", "path": "/goals/g", "body": {"description": "1"}},
                {"path": "/turn/log", "body": {"type": "said", "data": {"kind": "x"}}},
            ],
        }
    )
    await node.webhook_agent()
    row = await node.ended(await node.say("hi"))
    assert (row["state"], row["tries"]) == ("done", 0)
    call = node.receiver.calls[-1]
    assert call.is_signed(SECRET)
    assert call.request.headers["Content-Type"] == "application/json"
    assert call.body["agent"] == "a"
    assert call.body["trigger"]["payload"] == {"text": "hi"}
    assert call.body["trigger"]["cause"] == "message"
    assert await node.state() == {"heard": 1}
    assert [body for _, body, _ in node.sent][-1] == b"hello"
    assert orjson.loads((await node.unit.select("goal", {"agent": "a"}))[0]["body"])["description"] == "1"
    assert node.asked == len(node.receiver.calls), "the gate was asked each time"
    assert {"kind": "x"} in await node.trace("said")


async def test_a_receiver_that_answers_202_acts_over_http_and_commits(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    await Holder.of(http, await node.called()).commit()  # `initialize`
    envelope_id = await node.say("hi")
    turn = Holder.of(http, await node.called(2))
    status, shown = await turn.ask("GET", "/turn")
    assert (status, shown["trigger"]["envelope_id"], shown["state"]) == (200, envelope_id, {})
    assert shown["until_ms"] > shown["now_ms"]
    assert await turn.ask("PUT", "/turn/state", {"n": 1}) == (202, {"status": "staged"})
    assert await turn.ask("POST", "/post/new", b"later") == (202, {"status": "staged"})
    assert await turn.ask("PUT", "/goals/g", {"description": "2"}) == (202, {"status": "staged"})
    assert (await turn.ask("GET", "/goals/"))[0] == 200
    assert await turn.ask("PUT", "/turn/memory/k", {"v": [1]}) == (202, {"status": "staged"})
    assert await turn.ask("GET", "/turn/memory/k") == (200, {"v": [1]})
    assert await turn.ask("GET", "/turn/memory") == (200, ["k"])
    assert await turn.ask("POST", "/turn/mark", {"id": "x"}) == (202, {"status": "staged"})
    assert await turn.ask("POST", "/turn/seen", {"id": "x"}) == (200, {"seen": True})
    alarm = {"id": "wake", "after_ms": 60_000, "payload": {"p": 1}}
    assert await turn.ask("POST", "/turn/alarm", alarm) == (202, {"status": "staged"})
    assert await turn.ask("POST", "/turn/watch", {"id": "w", "event": "job.updated"}) == (202, {"status": "staged"})
    before = len(node.sent)
    assert await node.state() == {}, "nothing is there before the commit"
    status, answer = await turn.commit({"state": {"n": 2}})
    assert (status, answer) == (200, {"status": "committed", "tick_id": shown["tick_id"]})
    assert (await node.row(envelope_id))["state"] == "done", "and when it answers all of it is"
    assert await node.state() == {"n": 2}
    assert len(node.sent) == before + 1
    assert [row["id"] for row in await node.unit.select("alarm", {"agent": "a"})] == ["wake"]
    assert [row["event"] for row in await node.unit.select("interest", {"agent": "a"})] == ["job.updated"]
    assert [row["value"] for row in await node.unit.select("item", {"agent": "a"})] == ['{"v":[1]}']
    assert await turn.commit({"state": {"n": 2}}) == (200, answer), "a commit that is sent again is answered the same"
    assert (await turn.commit({"state": {"n": 3}}))[0] == 410, "and another one is not"
    assert (await turn.ask("PUT", "/goals/g", {"description": "3"}))[0] == 410
    assert len(await node.unit.select("tick", {"agent": "a", "error": ""})) == 2


async def test_what_is_written_without_a_commit_is_never_there(here: Here) -> None:
    node, http = here
    await node.webhook_agent(limits=Own(seconds=3))
    turn = Holder.of(http, await node.called())
    assert (await turn.ask("PUT", "/goals/g", {"description": "2"}))[0] == 202
    assert (await turn.ask("POST", "/post/new", b"x"))[0] == 202
    row = await node.tried("initialize")
    assert row["error"].startswith("turn.expired")
    for method, path in (("GET", "/turn"), ("PUT", "/goals/g"), ("POST", "/turn/commit"), ("POST", "/turn/abort")):
        status, problem = await turn.ask(method, path, {} if method != "GET" else None)
        assert (status, problem["code"]) == (410, "turn.expired")
    assert not node.sent
    assert not await node.unit.select("goal")


async def test_an_abort_fails_the_tick_and_the_same_delivery_comes_again_with_a_new_token(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    first = await node.called()
    turn = Holder.of(http, first)
    await turn.ask("POST", "/post/new", b"x")
    status, answer = await turn.ask("POST", "/turn/abort", {"reason": "not today"})
    assert (status, answer["status"]) == (200, "aborted")
    row = await node.row("initialize")
    assert row["tries"] == 1
    assert "not today" in row["error"]
    second = await node.called(2)
    assert second.delivery == first.delivery
    assert second.token != first.token
    assert (await turn.ask("GET", "/turn"))[1]["code"] == "turn.over"
    assert (await Holder.of(http, second).commit())[0] == 200
    assert not node.sent


async def test_a_token_opens_its_own_agent_and_nothing_else(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    await node.webhook_agent("b")
    call = await node.called(2)
    one, other = (Holder.of(http, one) for one in node.receiver.calls[:2])
    name, foreign = call.body["agent"], node.receiver.calls[0].body["agent"]
    assert {name, foreign} == {"a", "b"}
    headers = {"Authorization": f"Bearer {other.token}"}
    base = node.control.url
    for method, path in (("GET", "/turn"), ("PUT", "/goals/x"), ("POST", "/turn/commit"), ("POST", "/turn/abort")):
        async with http.request(method, f"{base}/agents/{foreign}{path}", headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "http.other_agent")
    for path in ("/agents", "/metrics", "/agents/node/status", "/agents/", "/nothing"):
        async with http.get(base + path, headers=headers) as answer:
            assert answer.status in (403, 404), path
    assert (await other.ask("POST", "/secret/new", b"x"))[1]["code"] == "fs.access_denied"
    for wrong in (other.token[:-1], other.token + "x", PREFIX + "x" * 43):
        async with http.get(f"{base}/agents/{name}/turn", headers={"Authorization": f"Bearer {wrong}"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (410, "turn.over")
    for wrong in (other.token.removeprefix("v"), ""):
        async with http.get(f"{base}/agents/{name}/turn", headers={"Authorization": f"Bearer {wrong}"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "http.unauthorized")
    async with http.get(f"{base}/agents/{name}/turn", headers={**headers, "Host": "evil.example"}) as answer:
        assert answer.status == 421
    assert (await one.commit())[0] == (await other.commit())[0] == 200


async def test_acting_outside_of_a_turn_stays_as_it_is(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    await node.called()
    headers = {"Authorization": f"Bearer {AGENT_TOKEN}"}
    async with http.put(
        node.control.url + "/agents/a/goals/g", data=b'{"description": "x"}', headers=headers
    ) as answer:
        assert answer.status == 204
    async with http.get(node.control.url + "/agents/a/turn", headers=headers) as answer:
        assert answer.status == 404
    async with http.post(
        node.control.url + "/agents/a/turn/commit", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    ) as answer:
        assert answer.status == 404


async def test_a_body_that_is_too_long_or_none_is_refused_and_the_turn_goes_on(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    big = orjson.dumps({"x": "y" * (QUICK.state_bytes + 1)})
    for method, path, body, status in (
        ("PUT", "/turn/state", big, 413),
        ("PUT", "/turn/state", b"[]", 400),
        ("PUT", "/turn/state", b"\xff", 400),
        ("PUT", "/turn/state", b"x" * (2 << 20), 413),
        ("POST", "/turn/commit", b'{"states": {}}', 400),
        ("POST", "/turn/abort", b'{"reason": 1}', 400),
        ("POST", "/turn/log", b'{"type": "", "data": {}}', 400),
        ("POST", "/turn/log", b'{"type": "x", "data": []}', 400),
        ("POST", "/turn/alarm", b'{"id": "x", "after_ms": "soon"}', 400),
        ("POST", "/turn/alarm", b'{"id": "x"}', 400),
        ("POST", "/turn/seen", b"{}", 400),
        ("PUT", "/turn/memory/k", b"{", 400),
        ("GET", "/turn/memory/none", None, 404),
        ("GET", "/turn/nothing", None, 404),
        ("POST", "/turn/state", b"{}", 404),
        ("GET", "/turn/commit", None, 404),
        ("GET", "/nothing", None, 404),
        ("GET", "/goals/..%2f", None, 400),
        ("DELETE", "/turn", None, 405),
        ("GET", "/logs/trace?watch=1", None, 405),
    ):
        assert (await turn.ask(method, path, body))[0] == status, (method, path, body[:30] if body else None)
    for key in ("", "x" * 201, "é"):
        assert (await turn.ask("POST", "/post/new", b"x", {"Idempotency-Key": key}))[0] == 400
    assert (await turn.ask("POST", "/post/new", b"x", {"Idempotency-Key": "mine"}))[0] == 202
    assert (await turn.commit({"state": {"ok": True}}))[0] == 200
    assert [key for _, _, key in node.sent] == ["mine"]


async def test_requests_of_one_turn_are_dealt_with_one_at_a_time(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    answers = await asyncio.gather(*(turn.ask("PUT", "/turn/state", {"n": number}) for number in range(12)))
    assert {status for status, _ in answers} == {202}
    both = await asyncio.gather(turn.commit({"state": {"n": "a"}}), turn.commit({"state": {"n": "b"}}))
    assert sorted(status for status, _ in both) == [200, 410], "one of them was committed, and only that one"
    assert (await node.state())["n"] in ("a", "b")
    assert len(await node.unit.select("tick", {"agent": "a"})) == 1


async def test_a_write_of_a_commit_that_is_refused_leaves_nothing(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    writes = [{"path": "/post/new", "body": "x"}, {"path": "/secret/new", "body": "x"}]
    status, problem = await turn.commit({"state": {"n": 1}, "writes": writes})
    assert (status, problem["code"]) == (403, "fs.access_denied")
    assert (await turn.commit())[1]["code"] == "fs.access_denied", "and it is answered so again"
    assert (await node.tried("initialize"))["error"].startswith("fs.access_denied")
    assert not node.sent
    assert await node.state() == {}


async def test_a_commit_that_conflicts_says_so_and_the_trigger_comes_again(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    await node.engine.stop("a")  # the row's version rises
    status, problem = await turn.commit({"state": {"n": 1}})
    assert (status, problem["code"]) == (409, "store.conflict")
    await node.engine.start("a")
    again = await node.called(2)
    assert again.delivery == node.receiver.calls[0].delivery
    assert (await Holder.of(http, again).commit({"state": {"n": 2}}))[0] == 200
    assert await node.state() == {"n": 2}


async def test_a_turn_in_which_the_node_was_paused_uses_up_no_try(here: Here) -> None:
    node, http = here
    node.paused = True
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    assert (await turn.ask("POST", "/post/new", b"x"))[1]["code"] == "node.paused"
    assert (await turn.ask("POST", "/turn/abort", {"reason": "paused"}))[0] == 503
    again = await node.called(2)
    assert (await node.row("initialize"))["tries"] == 0
    node.paused = False
    turn = Holder.of(http, again)
    assert (await turn.ask("POST", "/post/new", b"x"))[0] == 202
    assert (await turn.commit())[0] == 200


# --- receivers that are not as they should be -----------------------------------------------------------------------


async def _endless(call: Call) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(call.request)
    try:
        for _ in range(10_000):
            await response.write(b"x" * 65_536)
    except ConnectionError:
        return response
    raise AssertionError("somebody has read 640 MB")


async def _drop_by_drop(call: Call) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(call.request)
    for _ in range(600):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


async def _cut(call: Call) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(call.request)
    await response.write(b'{"commit": true')
    assert call.request.transport is not None
    call.request.transport.abort()
    return response


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ends(b"ok"), "webhook.failed"),
        (ends(b"", 204), "webhook.failed"),
        (ends(b"\xff\xfe"), "webhook.failed"),
        (ends(b'{"commit": "yes"}'), "webhook.failed"),
        (ends({"commit": True, "more": 1}), "input.invalid"),
        (ends({"commit": True, "state": []}), "input.invalid"),
        (ends({"commit": False, "reason": "no"}), "turn.aborted"),
        (ends({"commit": True}, 500), "webhook.failed"),
        (ends({"commit": True}, 302), "webhook.failed"),
        (ends({"commit": True}, 404), "webhook.failed"),
        (_endless, "webhook.failed"),
        (_cut, "webhook.failed"),
        (_drop_by_drop, "webhook.failed"),
    ],
)
async def test_what_is_no_answer_fails_the_tick_and_commits_nothing(here: Here, answer: object, code: str) -> None:
    node, _ = here
    node.receiver.answer = answer
    await node.webhook_agent(limits=Own(seconds=3))
    row = await node.tried("initialize")
    assert row["error"].startswith(code), row["error"]
    assert await node.state() == {}
    assert (await node.unit.select("agent", {"name": "a"}))[0]["ticks"] == 0


async def test_nothing_is_sent_or_started_that_the_gate_does_not_allow(here: Here) -> None:
    node, _ = here
    node.refuses = True
    await node.webhook_agent()
    await node.command_agent("/bin/touch", str(node.folder / "ran"), name="b")
    assert (await node.tried("initialize"))["error"].startswith("gate.unpermitted")
    assert (await node.tried("initialize", agent="b"))["error"].startswith("gate.unpermitted")
    assert not node.receiver.calls
    assert not (node.folder / "ran").exists()


async def test_a_redirect_is_not_followed(here: Here) -> None:
    node, _ = here

    async def elsewhere(call: Call) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{node.control.url}/healthz"})

    node.receiver.answer = elsewhere
    await node.webhook_agent()
    row = await node.tried("initialize")
    assert "answered 307" in row["error"]
    assert {call.request.path for call in node.receiver.calls} == {"/hook"}


async def test_an_address_inside_is_reached_only_if_the_settings_say_so(here: Here) -> None:
    node, _ = here
    port = node.receiver.url.split(":")[2].partition("/")[0]
    await node.webhook_agent(url=f"https://127.0.0.1:{port}/", internal=False)
    row = await node.tried("initialize")
    assert "did not take it" in row["error"]
    await node.webhook_agent("c", url=f"https://localhost:{port}/", internal=False)
    async with asyncio.timeout(60):
        while "did not take it" not in (await node.row("initialize", "c"))["error"]:
            await asyncio.sleep(0.01)
    await node.webhook_agent("b", url=f"http://127.0.0.1:{port}/", internal=False)
    rows = await node.unit.select("agent", {"name": "b"})
    assert rows[0]["status"] == "quarantined"
    assert "https" in rows[0]["reason"]
    assert not node.receiver.calls


async def test_a_receiver_that_is_away_is_tried_again_later_and_later_and_then_the_dead_letter_has_it(
    tmp_path: Path,
) -> None:
    limits = TickLimits(seconds=5, tries=2, away_tries=4, quarantine=3, back_off_ms=20)
    async with outskirts(tmp_path, limits=limits) as (node, _):
        await node.webhook_agent(url="http://127.0.0.1:9/")
        row = await node.ended("initialize")
        assert (row["state"], row["tries"]) == ("dead", 4), "more often than an agent's own failure"
        assert row["error"].startswith("webhook.failed")
        ticks = [one["at_ms"] for one in await node.unit.select("tick", {"agent": "a"}, order=("at_ms",))]
        waits = [later - sooner for sooner, later in pairwise(ticks)]
        assert [wait >= least for wait, least in zip(waits, (20, 40, 80), strict=True)] == [True] * 3
        (agent,) = await node.unit.select("agent", {"name": "a"})
        assert (agent["status"], agent["failures"]) == ("active", 0), "nobody has to release it when it is back"


async def test_a_receiver_that_hangs_is_away_and_one_that_takes_a_trigger_and_is_silent_is_not(tmp_path: Path) -> None:
    limits = TickLimits(seconds=2, tries=2, away_tries=4, quarantine=3, back_off_ms=10)
    async with outskirts(tmp_path, limits=limits) as (node, _):
        over = asyncio.Event()

        async def hang(call: Call) -> web.StreamResponse:
            if call.body["agent"] == "a":
                await over.wait()
            return web.Response(status=202)

        node.receiver.answer = hang
        await node.webhook_agent()
        await node.webhook_agent("b")
        row = await node.ended("initialize")
        assert (row["state"], row["tries"]) == ("dead", 4)
        assert row["error"].startswith("webhook.failed")
        (agent,) = await node.unit.select("agent", {"name": "a"})
        assert (agent["status"], agent["failures"]) == ("active", 0)
        row = await node.ended("initialize", "b")
        assert (row["state"], row["tries"], row["error"][:12]) == ("dead", 2, "turn.expired")
        over.set()


async def test_receivers_that_hang_hold_up_no_other(here: Here) -> None:
    node, _ = here
    over = asyncio.Event()

    async def hang(call: Call) -> web.StreamResponse:
        await over.wait()
        return web.Response(status=202)

    node.receiver.answer = hang
    config = WebhookConfig(url=node.receiver.url, internal=True)
    brief = {"agent": "a", "delivery": "d"}
    reaching = [
        asyncio.create_task(node.webhook.reach(brief, config, Turn("a", "t"), Door("", ""))) for _ in range(120)
    ]
    await node.called(120)
    over.set()
    assert await asyncio.gather(*reaching) == [None] * 120


async def test_after_a_restart_the_trigger_comes_again_with_a_new_token_and_the_old_one_opens_nothing(
    tmp_path: Path,
) -> None:
    async with outskirts(tmp_path) as (node, http):
        await node.webhook_agent()
        first = await node.called()
        assert (await Holder.of(http, first).ask("PUT", "/goals/g", {"description": "2"}))[0] == 202
        unit = node.unit
    assert (await unit.select("inbox", {"agent": "a"}))[0]["tries"] == 0, "stopping is nobody's failure"
    async with outskirts(tmp_path, unit=unit) as (node, http):
        await node.webhook_agent()
        second = await node.called()
        assert second.delivery == first.delivery
        assert second.body["trigger"] == first.body["trigger"]
        old = Holder(http, second.url, first.token)
        for method, path in (("GET", "/turn"), ("POST", "/turn/commit")):
            status, problem = await old.ask(method, path)
            assert (status, problem["code"]) == (410, "turn.over")
        assert (await Holder.of(http, second).commit({"state": {"n": 1}}))[0] == 200
        assert not await node.unit.select("goal")


async def test_a_replay_does_the_recorded_acts_again_and_reaches_nobody(here: Here) -> None:
    node, http = here
    await node.webhook_agent()
    turn = Holder.of(http, await node.called())
    await turn.ask("GET", "/goals/")
    await turn.ask("POST", "/post/new", b"\xff\x00")
    await turn.ask("POST", "/secret/new", b"refused")
    await turn.ask("POST", "/turn/log", {"type": "said", "data": {"x": 1}})
    await turn.commit({"state": {"n": 1}, "writes": [{"path": "/turn/mark", "body": {"id": "x"}}]})
    await node.say("no")
    await Holder.of(http, await node.called(2)).ask("POST", "/turn/abort", {"reason": "no"})
    done, failed = await node.recordings()
    calls, sent = len(node.receiver.calls), len(node.sent)
    for recording in (done, failed):
        again = await replay(recording, node.webhook)
        assert (again.result, again.difference) == ("same", None), again
    other = done._replace(steps=done.steps[:-1])
    assert (await replay(other, node.webhook)).result == "different"
    assert (len(node.receiver.calls), len(node.sent)) == (calls, sent)


async def test_a_token_is_in_no_log_no_row_and_no_recording(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    node, http = here
    caplog.set_level("DEBUG")
    await node.webhook_agent()
    first = await node.called()
    turn = Holder.of(http, first)
    await turn.ask("POST", "/turn/log", {"type": "said", "data": {"token": first.token, "near": f"x{first.token}y"}})
    await turn.ask("PUT", "/turn/memory/k", {"token": first.token})
    await turn.ask("POST", "/turn/abort", {"reason": f"with {first.token} in it"})
    second = await node.called(2)
    turn = Holder.of(http, second)
    await turn.ask("POST", "/turn/log", {"type": "said", "data": {"token": second.token}})
    assert (await turn.commit())[0] == 200
    stored = await node.everything()
    for call in (first, second):
        assert call.token not in stored
        assert call.token.removeprefix(PREFIX) not in stored
        assert call.token not in caplog.text
        assert SECRET not in stored + caplog.text
    assert "[redacted turn]" in stored
