"""Signatures for agents: harmless kinds, through the gate, and never bare bytes."""

import asyncio

import orjson
import pytest

from core.error import Conflict, InvalidInput, KeyReused, Paused
from fs.service.identity import identity_service
from fs.session import Batch, Role, Session
from node.agent.wake.event import grant
from node.agent.wake.interest import watch
from node.config import KeySection
from node.identity.signing import DEFAULT_KINDS, NEVER, PATH, AgentDesk, Signing
from node.identity.view import PersonView, live_pubkey
from relays.error import KindForbidden, SignerUnavailable
from relays.event import Draft, parse, verify
from relays.presence import Profile
from tests.gate_part import SetClock, memory, open_gate
from tests.unit.node.identity.identity_part import RING, identities, wire

ALICE = RING.agent("a").pubkey


class Stage:
    def __init__(self, unit, clock, gate, signing, tree) -> None:
        self.unit, self.clock, self.gate, self.signing, self.tree = unit, clock, gate, signing, tree
        self.woken: list[str] = []

    async def sign(self, body, key="k", batch=None):
        session = Session("agent:a", Role.AGENT, key, None if batch is not None else self.unit, batch)
        return orjson.loads(await self.tree.call(("sign",), orjson.dumps(body), session))

    async def states(self):
        return [row["state"] for row in await self.unit.select("effect", {"path": PATH})]


@pytest.fixture
async def stage():
    clock = SetClock()
    unit = memory(clock)
    gate = await open_gate(unit, clock)
    async with wire(clock) as talk:
        held = await identities(unit, clock, talk, "a")
        woken: list[str] = []
        signing = Signing(held, unit, gate, clock, woken.append)
        person = PersonView(live_pubkey(held, "a"), lambda: Profile("a", bot=True), lambda: ("ws://r",), held, "a")
        made = Stage(unit, clock, gate, signing, identity_service(person, AgentDesk(signing, "a", clock)))
        made.woken = woken
        yield made


async def test_an_agent_signs_a_note_and_the_ledger_knows(stage):
    event = parse(await stage.sign({"kind": 1, "content": "hello", "tags": [["t", "x"]]}))
    verify(event)
    assert (event.pubkey, event.kind, event.content, event.tags) == (ALICE, 1, "hello", (("t", "x"),))
    assert await stage.states() == ["commit"]
    assert any(event.id in row["raw"] for row in await stage.unit.select("entry"))


async def test_the_same_key_signs_the_same_event_again_and_no_other(stage):
    first = await stage.sign({"kind": 1, "content": "hello"})
    stage.clock.at += 100
    again = await stage.sign({"kind": 1, "content": "hello"})
    assert again["id"] == first["id"]
    verify(parse(again))
    with pytest.raises(KeyReused):
        await stage.sign({"kind": 1, "content": "other"})
    assert await stage.states() == ["commit"]


@pytest.mark.parametrize("kind", [*sorted(NEVER), 2, 62, 443, 5_000, 6_001, 7_000, 65_535])
async def test_kinds_that_speak_for_the_node_or_its_owner_are_never_signed(stage, kind):
    with pytest.raises(KindForbidden):
        await stage.sign({"kind": kind, "content": ""})
    assert await stage.states() == []


def test_no_setting_allows_what_is_never_signed():
    assert not DEFAULT_KINDS & NEVER
    assert {0, 3, 4, 5, 13, 62, 1059, 10_002, 10_019, 10_050, 22_242, 24_133, 27_235} <= NEVER
    assert frozenset(KeySection().agent_kinds) == DEFAULT_KINDS
    every = Signing(None, None, None, None, None, range(65_536))
    for kind in NEVER:
        with pytest.raises(KindForbidden):
            every.check(kind)


NO_EVENTS: list[object] = [
    [],
    "x",
    {},
    {"kind": "1"},
    {"kind": True},
    {"kind": 1, "content": 2},
    {"kind": 1, "tags": "x"},
]
NO_EVENTS += [{"kind": 1, "tags": [[]]}, {"kind": 1, "tags": [[1]]}, {"kind": 1, "created_at": -1}]
NO_EVENTS += [{"kind": 1, "id": "0" * 64}, {"kind": 1, "digest": "00"}]


@pytest.mark.parametrize("body", NO_EVENTS)
async def test_what_is_no_event_is_refused(stage, body):
    with pytest.raises(InvalidInput):
        await stage.sign(body)
    assert await stage.states() == []


async def test_a_paused_node_signs_nothing(stage):
    await stage.gate.pause()
    with pytest.raises(Paused):
        await stage.sign({"kind": 1})


async def test_within_a_tick_the_event_comes_as_a_trigger_after_the_commit(stage):
    await stage.unit.commit([*watch("boss", "all", 1, "identity.*"), *grant("boss", True), *watch("b", "i", 1, "*")])
    batch = Batch()
    answer = await stage.sign({"kind": 1, "content": "later"}, batch=batch)
    assert answer["status"] == "staged"
    assert await stage.states() == []
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(stage.signing.run(ready, stop))
    await ready.wait()
    await stage.unit.commit(batch.writes)
    for then in batch.thens:
        then()
    async with asyncio.timeout(5):
        while not stage.woken:
            await asyncio.sleep(0)
    stop.set()
    await running
    (row,) = await stage.unit.select("inbox", {"agent": "a"})
    told = orjson.loads(row["payload"])
    event = parse(told["event"])
    verify(event)
    assert (told["type"], event.id, event.content) == ("identity.signed", answer["id"], "later")
    rows = await stage.unit.select("inbox")
    assert sorted(row["agent"] for row in rows) == ["a", "boss"] == sorted(stage.woken), "those who see all are told"
    assert {orjson.loads(row["payload"])["event"]["id"] for row in rows} == {event.id}
    assert await stage.states() == ["commit"]


async def test_what_a_tick_staged_and_a_crash_took_ends_as_failed(stage):
    batch = Batch()
    await stage.sign({"kind": 1, "content": "lost"}, batch=batch)
    await stage.unit.commit(batch.writes)
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(stage.signing.run(ready, stop))
    await ready.wait()
    stop.set()
    await running
    assert await stage.states() == ["fail"]


async def test_the_tree_shows_who_it_is_and_holds_no_secret(stage):
    session = Session("agent:a", Role.AGENT)
    names = {one.name async for one in stage.tree.list((), session)}
    assert names == {"README", "pubkey", "npub", "profile", "nip05", "relays", "keys", "sign"}
    shown = b"".join([await stage.tree.read((name,), session) for name in names - {"sign"}])
    assert ALICE.encode() in shown
    for secret in (RING.agent("a").secret.hex(), RING.agent("a").nsec, RING.node.secret.hex()):
        assert secret.encode() not in shown


async def test_a_signature_that_failed_is_not_given_under_the_same_key_behind_the_ledgers_back(stage):
    async def silent(draft):
        raise SignerUnavailable("asleep")

    good = stage.signing._identities.current("a")

    class Asleep:
        pubkey = good.pubkey
        sign = staticmethod(silent)

    class Held:
        signer = Asleep()

        def current(self, name):
            return self.signer

    held = stage.signing._identities = Held()
    with pytest.raises(SignerUnavailable):
        await stage.sign({"kind": 1, "content": "hello"})
    held.signer = good
    with pytest.raises(Conflict):
        await stage.sign({"kind": 1, "content": "hello"})
    assert await stage.states() == ["fail"]
    verify(parse(await stage.sign({"kind": 1, "content": "hello"}, key="another")))


async def test_what_another_process_has_in_hand_is_left_to_it_until_that_is_dead(stage):
    staged = await stage.signing.stage("agent:a", "a", Draft(1, "x", (), stage.clock.now()), "k")
    await stage.unit.commit(staged.writes)
    alive = {staged.writes[0].row["id"]}

    async def is_theirs(effect):
        return effect in alive

    other = Signing(
        stage.signing._identities, stage.unit, stage.gate, stage.clock, stage.woken.append, is_theirs=is_theirs
    )
    await other.bury()
    assert await stage.states() == ["begun"]
    alive.clear()
    await other.bury()
    assert await stage.states() == ["fail"]


async def test_what_a_process_has_in_hand_itself_is_not_ended_by_it(stage):
    staged = await stage.signing.stage("agent:a", "a", Draft(1, "x", (), stage.clock.now()), "k")
    await stage.unit.commit(staged.writes)
    staged.then()
    await stage.signing.bury()
    assert await stage.states() == ["begun"]
