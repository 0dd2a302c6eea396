"""What went out, as /outbox shows it: each caller its own effects, with what became of them and without their texts."""

import asyncio
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Outcome, OutcomeState, Staged
from core.identifier import EffectId
from core.money import Msat
from core.unit import Delete, Insert
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.outbox import Sent, Waiting, outbox_service
from fs.session import Role, Session
from node.agent.outbox import TOPIC, NodeOutbox, what_of
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.gate.limits import Limits
from node.storage.memory import MemoryDatabase
from relays.key import Key

NODE = Key(b"\x01" * 32)
ME, OPERATOR = Session("agent:a", Role.AGENT), Session("operator", Role.OPERATOR)
TEXT = "a private word"


class Post:
    """A gate with a ledger, and the outboxes of an agent and of the node."""

    def __init__(self) -> None:
        self.clock, self.feed = SystemClock(), Feed()
        self.unit = MemoryDatabase(ledger_seal(NODE), self.clock)
        limits = Limits.of("msat", per_job=10_000, per_day=100_000, per_seller=100_000)
        self.gate = NodeGate(self.unit, self.clock, limits, NODE.pubkey)
        self.unit.on_entry(lambda _: self.feed.grew(TOPIC))
        boxes = {"/mine": "agent:a", "/theirs": "agent:b", "/all": None}
        self.files = Namespace(
            [
                Mount(path, outbox_service(NodeOutbox(self.unit, self.clock, self.feed, caller)), Access.READ)
                for path, caller in boxes.items()
            ]
        )

    async def begin(
        self, caller: str, path: str, key: str, *, subject: str = "s", cost: int = 0, **note: Any
    ) -> EffectId:
        reserve = Msat(cost) if cost else None
        intent = Intent(caller, path, key, TEXT.encode(), EffectClass.EXTERNAL, subject, reserve, note)
        staged = await self.gate.stage(intent)
        assert isinstance(staged, Staged)
        await self.unit.commit(staged.writes)
        return staged.effect_id

    async def end(self, effect: EffectId, state: OutcomeState = OutcomeState.COMMIT, **more: Any) -> None:
        await self.unit.commit(await self.gate.settle(effect, Outcome(state, **more)))

    async def json(self, path: str, session: Session = ME) -> Any:
        return orjson.loads(await self.files.read(path, session))


async def post() -> Post:
    made = Post()
    await made.gate.load()
    return made


async def test_each_effect_shows_its_last_state_and_whose_it_is() -> None:
    here = await post()
    dm = await here.begin("agent:a", "/nostr/dm/npub1x", "1", subject="ab" * 32)
    job = await here.begin("agent:a", "/compute/new", "2", subject="job1", cost=500)
    lost = await here.begin("agent:a", "/nostr/file/npub1x", "3")
    await here.begin("agent:b", "/nostr/dm/npub1y", "4")
    signed = await here.begin("agent:a", "/identity/sign", "5", subject=f"{'cd' * 32}:7", kind=1)
    await here.end(dm)
    await here.end(job, cost=Msat(300))
    await here.end(lost, OutcomeState.FAIL, detail={"reason": "every relay refused it"})
    await here.end(signed, OutcomeState.UNKNOWN)
    found = await here.json("/mine/recent")
    for one in found:
        Sent.model_validate(one)
    assert [(one["what"], one["state"]) for one in found] == [
        ("message", "sent"), ("job", "sent"), ("file", "refused"), ("signature", "unknown"),
    ]  # fmt: skip
    assert [one["id"] for one in found] == sorted(one["id"] for one in found)
    assert (found[1]["unit"], found[1]["reserved"], found[1]["cost"]) == ("msat", 500, 300)
    assert found[2]["reason"] == "every relay refused it"
    assert found[3]["kind"] == 1
    assert {one["caller"] for one in await here.json("/all/recent", OPERATOR)} == {"agent:a", "agent:b"}
    assert [one["path"] for one in await here.json("/theirs/recent")] == ["/nostr/dm/npub1y"]
    assert await here.json("/mine/count") == {"queued": 0, "unknown": 1}
    Waiting.model_validate(await here.json("/all/count", OPERATOR))
    assert (await here.json("/all/count", OPERATOR))["queued"] == 1, "the node's own day is not among them"
    shown = await here.files.read("/all/recent", OPERATOR) + await here.files.read("/all/stream", OPERATOR)
    assert TEXT.encode() not in shown


async def test_the_kind_and_the_relays_of_an_event_are_shown() -> None:
    here = await post()
    job = await here.begin("agent:a", "/compute/new", "1", subject="job1")
    note = await here.begin("agent:a", "/nostr/publish", "2", subject="ef" * 32)
    rows = [("12" * 32, "wss://one", "sent"), ("12" * 32, "wss://two", "refused"), ("ef" * 32, "wss://one", "pending")]
    purchase = {
        "id": "job1", "effect_id": job, "request_id": "12" * 32, "caller": "agent:a", "kind": 5001, "state": "quoting",
        "money": "none", "body": "{}", "created_at": 1, "updated_at": 1,
    }  # fmt: skip
    sent = [
        Insert("outbox", {"event_id": event, "relay": url, "raw": "{}", "effect_id": "e", "state": state})
        for event, url, state in rows
    ]
    await here.unit.commit([Insert("purchase", purchase), *sent])
    first, second = await here.json("/mine/recent")
    assert (first["kind"], first["relays"]) == (
        5001, [{"url": "wss://one", "state": "sent"}, {"url": "wss://two", "state": "refused"}],
    )  # fmt: skip
    assert (second["what"], second["relays"]) == ("event", [{"url": "wss://one", "state": "pending"}])
    assert note != job


async def test_an_effect_that_is_not_kept_any_more_is_known_from_the_ledger() -> None:
    here = await post()
    dm = await here.begin("agent:a", "/nostr/dm/npub1x", "1", subject="m1", cost=40)
    await here.end(dm, cost=Msat(30))
    before = await here.json("/mine/recent")
    await here.unit.commit([Delete("effect", {"id": dm})])
    assert await here.json("/mine/recent") == before
    assert await here.json("/theirs/recent") == []


async def test_the_stream_tells_of_the_beginning_and_the_end_and_goes_on_from_a_cursor() -> None:
    here = await post()
    dm = await here.begin("agent:a", "/nostr/dm/npub1x", "1")
    await here.begin("agent:b", "/nostr/dm/npub1x", "1")
    watch = here.files.watch("/mine/stream", ME, 0)
    first = await anext(watch)
    assert (first.type, orjson.loads(first.data)["effect_id"]) == ("queued", dm)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0.02)
    await here.begin("agent:b", "/nostr/dm/npub1x", "2")
    await here.end(dm)
    second = await asyncio.wait_for(waiting, 60)
    assert (second.type, second.id > first.id) == ("sent", True)
    assert await anext(here.files.watch("/mine/stream", ME, first.id)) == second


async def test_the_past_is_looked_at_as_far_as_the_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    here = await post()
    for number in range(20):
        await here.begin("agent:a", "/nostr/dm/npub1x", str(number))
    monkeypatch.setattr("node.agent.outbox.REACH", 5)
    oldest = await anext(here.files.watch("/mine/stream", ME, 0))
    first = await anext(here.files.watch("/mine/stream", ME, 2))
    assert first.type == "gap"
    assert first.id == oldest.id - 1


async def test_a_number_that_is_left_out_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    here = await post()
    await here.begin("agent:a", "/nostr/dm/npub1x", "1")
    newest = (await here.unit.select("entry", order=("-n",), limit=1))[0]
    await here.unit.commit([Delete("entry", {"n": newest["n"]})])
    await here.begin("agent:a", "/nostr/dm/npub1x", "2")
    box = NodeOutbox(here.unit, here.clock, here.feed, "agent:a")
    assert (await box.page(newest["n"] - 1)).records == [], "it may still come, from another process"
    monkeypatch.setattr("node.agent.outbox.LATE_S", -1)
    assert len((await box.page(newest["n"] - 1)).records) == 1


def test_every_path_has_a_word() -> None:
    found = [what_of(path) for path in ("/nostr/react/x", "/wallet/pay", "/identity/rotate", "/serve/5001", "/odd")]
    assert found == ["reaction", "payment", "key", "sale", "other"]
