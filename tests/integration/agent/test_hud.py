"""What the public sees of an agent: nothing by itself, and then an allow-list without secrets."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from mnemonic import Mnemonic

from core.clock import SystemClock
from core.error import InvalidInput
from core.unit import Insert
from fs.batch import batches
from fs.error import AccessDenied
from fs.exposure import EVENTS
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record
from fs.service.hud import hud_service
from fs.service.model.hud import HudEvent, HudSettings, PublicGoal, PublicMetrics, PublicStatus
from fs.session import Role, Session
from node.agent.hud import AgentHud
from node.agent.log import record, topic
from node.agent.metric import AgentMetrics
from node.agent.tick.limit import TickLimits
from node.agent.view import AgentView, BudgetView
from node.storage.memory import MemoryDatabase
from relays.key import Key

ANYBODY = Session("public", Role.PUBLIC)
ME = Session("agent:a", Role.AGENT)
FILES = ("settings", "status", "goals", "metrics", "stream")
TICK = "ab" * 16
NSEC = Key(b"\x07" * 32).nsec
SEED = str(Mnemonic("english").to_mnemonic(b"\x09" * 16))
SECRETS = [NSEC, SEED, "sk-proj-abcdefghij0123456789", "cashuAeyJ0b2tlbiI6W3sibWludCI6Imh0dHA", "cd" * 32]


class Stage:
    """An agent's rows and its public view."""

    def __init__(self) -> None:
        self.unit, self.feed, self.clock = MemoryDatabase(), Feed(), SystemClock()
        self.operator = Session("operator", Role.OPERATOR, unit=self.unit)
        limits = TickLimits()
        view = AgentView("a", self.unit, self.clock, limits)
        usage = BudgetView(self.unit, self.clock, 1_000, "msat").usage
        metrics = AgentMetrics("a", self.unit, self.clock, limits, usage)
        hud = AgentHud("a", self.unit, self.clock, self.feed, view, metrics)
        self.files = Namespace([Mount("/hud", hud_service(hud), Access.READ, "the public view", public=True)])

    async def begin(self) -> "Stage":
        agent = {
            "name": "a", "program": "buyer", "pubkey": "ef" * 32, "status": "active", "state_version": 1, "state": "{}",
            "created_at": 5, "last_cause": "message", "reason": f"because {NSEC}",
        }  # fmt: skip
        goal = orjson.dumps(
            {"description": f"The words: {SEED}", "status": "active", "priority": 3, "token": "x"}
        ).decode()
        await self.unit.commit(
            [Insert("agent", agent), Insert("goal", {"agent": "a", "id": "rich", "body": goal, "updated_at": 1})]
        )
        return self

    async def say(self, kind: str, **data: Any) -> None:
        await self.unit.commit([record("a", self.clock.millis(), kind, orjson.dumps(data).decode())])
        self.feed.grew(topic("a"))

    async def set(self, **change: Any) -> None:
        await self.files.write("/hud/settings", orjson.dumps(change), self.operator)

    async def get(self, name: str, session: Session = ANYBODY) -> Any:
        body = await self.files.read(f"/hud/{name}", session)
        return [orjson.loads(line) for line in body.splitlines()] if name == "stream" else orjson.loads(body)

    def watch(self, session: Session = ANYBODY, after: int | None = 0) -> AsyncIterator[Record]:
        return self.files.watch("/hud/stream", session, after)


async def refused(stage: Stage, name: str) -> bool:
    tries = [stage.files.read(f"/hud/{name}", ANYBODY), stage.files.stat(f"/hud/{name}", ANYBODY)]
    if name == "stream":
        tries.append(asyncio.wait_for(anext(stage.watch()), 0.1))
    found = await asyncio.gather(*tries, return_exceptions=True)
    return all(isinstance(one, AccessDenied) for one in found)


async def test_nothing_is_public_before_the_operator_says_so() -> None:
    stage = await Stage().begin()
    assert await stage.get("settings", ME) == HudSettings().model_dump()
    assert not HudSettings().public
    for name in (*FILES, "README"):
        assert await refused(stage, name), name
    with pytest.raises(AccessDenied):
        await stage.files.list("/hud", ANYBODY)
    for name in FILES:
        await stage.get(name, ME)
        await stage.get(name, stage.operator)


async def test_what_is_public_is_what_is_named() -> None:
    stage = await Stage().begin()
    await stage.set(public=True, show=["status", "stream"])
    seen = {stat.name for stat in await stage.files.list("/hud", ANYBODY)}
    assert seen == {"README", "status", "stream"}
    assert [name for name in FILES if await refused(stage, name)] == ["settings", "goals", "metrics"]
    await stage.set(public=False)
    assert all([await refused(stage, name) for name in FILES])


async def test_settings_that_are_left_out_stay_and_unknown_ones_are_refused() -> None:
    stage = await Stage().begin()
    await stage.set(public=True, show=["goals"])
    await stage.set(show_text=True)
    expected = {"public": True, "show": ["goals"], "show_text": True}
    assert await stage.get("settings", stage.operator) == expected
    for wrong in (
        b"{", b"[]", b"null", b'{"public":1}', b'{"public":null}', b'{"show":["inbox"]}', b'{"show":"status"}',
        b'{"show":["goals","goals"]}', b'{"redaction_policy":"none"}', b'{"public":false,"x":1}',
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            await stage.files.write("/hud/settings", wrong, stage.operator)
        assert await stage.get("settings", stage.operator) == expected
    with pytest.raises(AccessDenied):
        await stage.files.write("/hud/settings", b'{"public":false}', ME)
    with pytest.raises(AccessDenied):
        await stage.files.write("/hud/settings", b'{"public":true}', ANYBODY)


async def planted(stage: Stage) -> None:
    """Every type of record, with secrets in every field, and in some that nobody knows."""
    for secret in SECRETS:
        fields = ("cause", "code", "message", "tries", "dead", "status", "reason", "limit", "used", "text", "to", "x")
        for kind in (*EVENTS, "unknown", "refused", secret[:60]):
            await stage.say(kind, tick_id=secret, **dict.fromkeys(fields, secret))
            await stage.say(kind, **{name: {"token": secret} for name in fields})


@pytest.mark.parametrize("show_text", [False, True])
async def test_no_secret_is_in_anything_that_is_public(show_text: bool) -> None:
    stage = await Stage().begin()
    await planted(stage)
    await stage.set(public=True, show_text=show_text)
    told = b"".join([await stage.files.read(f"/hud/{name}", ANYBODY) for name in FILES[1:]])
    watch = stage.watch()
    for _ in range(len(SECRETS) * 2 * len(EVENTS)):
        try:
            told += (await asyncio.wait_for(anext(watch), 0.3)).data
        except TimeoutError:
            break
    for secret in SECRETS:
        assert secret.encode() not in told
        assert secret[10:].encode() not in told


async def test_events_have_the_form_that_is_promised_and_no_other_is_shown() -> None:
    stage = await Stage().begin()
    await stage.say("tick", tick_id=TICK, cause="message", duration_ms=7, private="no")
    await stage.say("error", tick_id=TICK, code="agent.failed", message="why it failed", tries=2, dead=False)
    await stage.say("said", text="unknown types are not shown")
    await stage.say("reply", to="npub", text="an answer")
    await stage.say("status", status="stopped", was="active")
    await stage.say("limit_near", limit="storage", used=0.9)
    await stage.set(public=True)
    events = await stage.get("stream")
    for event in events:
        HudEvent.model_validate(event)
    assert [(one["event_type"], one["payload"]) for one in events] == [
        ("tick_end", {"success": True, "cause": "message", "duration_ms": 7}),
        ("error", {"code": "agent.failed", "tries": 2, "recoverable": True}),
        ("state_change", {"field": "status", "operation": "set", "value": "stopped"}),
        ("usage", {"limit": "storage", "used": 0.9}),
    ]
    assert {one["session_id"] for one in events} == {"a"}
    assert events[0]["tick_id"] == TICK
    await stage.set(show_text=True)
    events = await stage.get("stream")
    assert events[1]["payload"]["message"] == "why it failed"
    assert events[2]["payload"] == {"text": "an answer"}


async def test_status_goals_and_numbers_have_the_form_that_is_promised() -> None:
    stage = await Stage().begin()
    await stage.set(public=True)
    status = await stage.get("status")
    PublicStatus.model_validate(status)
    assert status["pubkey"] == "ef" * 32
    assert not {"reason", "limits", "code"} & status.keys()
    (goal,) = await stage.get("goals")
    assert goal == {"id": "rich", "status": "active", "priority": 3}
    PublicGoal.model_validate(goal)
    PublicMetrics.model_validate(await stage.get("metrics"))
    await stage.set(show_text=True)
    (goal,) = await stage.get("goals")
    assert goal["description"] == "The words: [redacted]"
    assert "[redacted]" in (await stage.get("status"))["reason"]


async def test_a_public_watch_ends_when_the_stream_is_made_private_and_the_agents_goes_on() -> None:
    stage = await Stage().begin()
    await stage.set(public=True)
    public, own = stage.watch(after=None), batches(stage.watch(ME, after=None))
    first = [asyncio.create_task(anext(public)), asyncio.create_task(anext(own))]
    await asyncio.sleep(0.02)
    await stage.say("tick", cause="message", duration_ms=1)
    record, batch = await asyncio.wait_for(asyncio.gather(*first), 5)
    assert record == batch.records[0]
    ended = asyncio.create_task(anext(public, None))
    await asyncio.sleep(0.02)
    await stage.set(public=False)
    assert await asyncio.wait_for(ended, 5) is None
    await stage.say("tick", cause="alarm", duration_ms=1)
    batch = await asyncio.wait_for(anext(own), 5)
    assert [orjson.loads(one.data)["payload"]["cause"] for one in batch.records] == ["alarm"]


async def test_a_long_text_is_cut_after_its_secrets_are_taken_out() -> None:
    stage = await Stage().begin()
    secret = base64.b64encode(bytes(range(7, 250, 5))).decode()
    for before in range(440, 500, 5):
        await stage.say("reply", text=f"{'.' * before} {secret}")
    await stage.set(public=True, show_text=True)
    texts = [one["payload"]["text"] for one in await stage.get("stream")]
    assert len(texts) == 12
    assert max(map(len, texts)) <= 500
    assert not any(secret[:8] in text for text in texts)


async def test_settings_that_cannot_be_read_are_private() -> None:
    stage = await Stage().begin()
    await stage.unit.commit([Insert("meta", {"key": "hud/a", "value": '{"public": "yes"}'})])
    assert await refused(stage, "status")
