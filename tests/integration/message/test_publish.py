"""Events that an agent publishes: signed by it, through the gate, to the relays of its node, once."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from core.clock import SystemClock
from core.error import InvalidInput, KeyReused
from core.unit import Update
from fs.error import AccessDenied
from fs.namespace import Access, Mount, Namespace
from fs.service.nostr import nostr_service
from fs.session import Batch, Role, Session
from node.message.service import AgentMessenger
from relays.error import ForgedEvent, KindForbidden, MalformedEvent
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key
from tests.integration.agent.node_part import AGENT, NAME, STRANGER, Town, town


def note(text: str = "hello", kind: int = 1, key: Key = AGENT) -> Event:
    return key.sign(Draft(kind, text, (), SystemClock().now()))


def raw(event: Event) -> bytes:
    return event.to_json().encode()


def files(here: Town, access: Access = Access.BUDGETED) -> Namespace:
    async def nothing() -> object:
        return {}

    return Namespace([Mount("/nostr", nostr_service(AgentMessenger(here.messages, NAME), nothing), access)])


def asked(here: Town, key: str = "k", role: Role = Role.AGENT) -> Session:
    return Session("operator" if role is Role.OPERATOR else f"agent:{NAME}", role, key, unit=here.unit)


async def on_relay(here: Town, event: Event) -> list[Event]:
    return await here.people.fetch([Filter(ids=frozenset({event.id}))], 20)


async def test_an_event_is_published_once_however_often_it_is_asked_for(relay: str) -> None:
    async with town(relay) as here:
        event, space = note(), files(here)
        first = orjson.loads(await space.call("/nostr/publish", raw(event), asked(here)))
        assert first == {"message_id": event.id, "status": "queued"}
        again = orjson.loads(await space.call("/nostr/publish", raw(event), asked(here)))
        assert again == {"message_id": event.id, "status": "repeated"}
        with pytest.raises(KeyReused):
            await space.call("/nostr/publish", raw(note("other")), asked(here))
        (effect,) = await here.settled("/nostr/publish")
        assert (effect["state"], effect["subject"]) == ("commit", event.id)
        assert await on_relay(here, event) == [event]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b'{"id":"x"}', b"x" * 70_000])
async def test_what_is_no_event_is_not_published(relay: str, body: bytes) -> None:
    async with town(relay) as here:
        with pytest.raises(InvalidInput):
            await files(here).call("/nostr/publish", body, asked(here))
        assert [row for row in await here.rows("effect") if "publish" in row["path"]] == []


async def test_an_event_of_another_key_a_forged_one_and_a_kind_that_agents_never_sign_are_refused(relay: str) -> None:
    async with town(relay) as here:
        space = files(here)
        for event, error in (
            (note(key=STRANGER), InvalidInput),
            (replace(note(), content="changed"), ForgedEvent),
            (replace(note(), sig=note("other").sig), ForgedEvent),
            (note(kind=0), KindForbidden),
            (note(kind=10_002), KindForbidden),
            (note(kind=27_235), KindForbidden),
            (note(kind=4), KindForbidden),
        ):
            with pytest.raises(error):
                await space.call("/nostr/publish", raw(event), asked(here))
            assert await on_relay(here, event) == []
        with pytest.raises(MalformedEvent):
            await space.call("/nostr/publish", b'{"id": 1}', asked(here))
        with pytest.raises(AccessDenied):
            await files(here, Access.READ).call("/nostr/publish", raw(note()), asked(here))


async def test_within_a_tick_it_waits_for_the_commit(relay: str) -> None:
    async with town(relay) as here:
        event, batch = note(), Batch()
        session = Session(f"agent:{NAME}", Role.AGENT, "k", batch=batch)
        answer = orjson.loads(await files(here).call("/nostr/publish", raw(event), session))
        assert answer["status"] == "staged"
        await asyncio.sleep(0.2)
        assert await on_relay(here, event) == []
        await here.unit.commit(batch.writes)
        for then in batch.thens:
            then()
        await here.settled("/nostr/publish")
        assert await on_relay(here, event) == [event]


async def test_what_was_begun_before_a_restart_is_published_after_it(relay: str) -> None:
    event = note()
    async with town(relay) as here:
        session = asked(here)
        staged = await AgentMessenger(here.messages, NAME).stage_event(session.caller, event, "k")
        await here.unit.commit(staged.writes)  # and nobody was told
        unit = here.unit
    async with town(relay, unit) as again:
        (effect,) = await again.settled("/nostr/publish")
        assert effect["state"] == "commit"
        assert await on_relay(again, event) == [event]


async def test_under_other_keys_it_is_published_once_too_and_again_only_if_every_relay_refused_it(relay: str) -> None:
    async with town(relay) as here:
        event, space = note(), files(here)
        asking = [space.call("/nostr/publish", raw(event), asked(here, f"k{number}")) for number in range(5)]
        answers = [orjson.loads(one)["status"] for one in await asyncio.gather(*asking)]
        assert sorted(answers) == ["queued", *["repeated"] * 4]
        await here.settled("/nostr/publish")
        again = orjson.loads(await space.call("/nostr/publish", raw(event), asked(here, "later")))
        assert again["status"] == "repeated"
        effects = [row for row in await here.rows("effect") if row["path"] == "/nostr/publish"]
        assert [row["state"] for row in effects] == ["commit"]
        batch = Batch()
        twice = [Session(f"agent:{NAME}", Role.AGENT, key, batch=batch) for key in ("x", "y")]
        fresh = note("fresh")
        for session in twice:
            assert orjson.loads(await space.call("/nostr/publish", raw(fresh), session))["status"] == "staged"
        await here.unit.commit(batch.writes)
        assert len([row for row in await here.rows("effect") if row["subject"] == fresh.id]) == 1


async def test_what_every_relay_refused_can_be_tried_again_under_another_key(relay: str) -> None:
    async with town(relay) as here:
        event, space = note(), files(here)
        staged = await AgentMessenger(here.messages, NAME).stage_event(f"agent:{NAME}", event, "first")
        await here.unit.commit(staged.writes)
        (effect,) = [row for row in await here.rows("effect") if row["path"] == "/nostr/publish"]
        ended = [Update("effect", {"id": effect["id"]}, {"state": "fail"})]
        ended += [Update("outbox", {"event_id": event.id}, {"state": "refused", "reason": "blocked: no"}, rows=None)]
        await here.unit.commit(ended)
        answer = orjson.loads(await space.call("/nostr/publish", raw(event), asked(here, "second")))
        assert answer["status"] == "queued"
        await here.until(lambda: _committed(here, effect["id"]))
        assert await on_relay(here, event) == [event]


async def _committed(here: Town, but: str) -> bool:
    rows = [row for row in await here.rows("effect") if row["path"] == "/nostr/publish" and row["id"] != but]
    return [row["state"] for row in rows] == ["commit"]
