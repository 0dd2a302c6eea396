"""Agents that come and go while the node runs, and what the public sees of them, over a real relay."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest

from core.clock import SystemClock
from core.error import InvalidInput, NotFound
from core.money import Msat
from core.unit import Update
from fs.service.agents import agents_service
from fs.session import Role, Session
from node.agent.inbox.row import envelope
from node.agent.presence import D, Face, Presence, withdrawal
from node.agent.roster import Roster
from node.config import AgentSection, RetentionSection
from node.error import AgentConfigured, AgentTaken
from node.identity.registry import Identities
from node.message.admission import Rules, read_rules
from node.message.service import OPERATOR, Messages
from node.message.voice import FixedVoices, JoinedVoices
from node.retention.service import Retention
from node.storage.error import StoreFull
from node.storage.memory import MemoryDatabase
from relays.bunker import Wire
from relays.error import SignerUnavailable
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import DELETION, DM, DM_RELAYS, HANDLER, HEARTBEAT, METADATA, RELAY_LIST
from relays.local_signer import KeySigner
from relays.nip17 import wrap
from relays.nip65 import read_dm_relays
from tests.integration.agent.node_part import NAME, NODE_PERMIT, OWNER, STRANGER, Town, _running, relay_at, town
from tests.wallet_part import BUYER_WORDS

CLOCK = SystemClock()
OPERATOR_KEY = Keyring(BUYER_WORDS).operator
CONFIGURED = AgentSection(name="steady")


def _rules(section: AgentSection) -> Rules:
    value = {name: getattr(section, name) for name in Rules().to_dict()}
    return read_rules({**value, "contacts": [*section.contacts, OWNER.pubkey, OPERATOR_KEY.pubkey]})


@dataclass
class Place:
    """A town whose agents are those of a roster."""

    here: Town
    roster: Roster
    keys: Identities
    messages: Messages
    presence: Presence

    async def said(self, pubkey: str, kind: int) -> list[Event]:
        return await self.here.people.fetch([Filter(authors=frozenset({pubkey}), kinds=frozenset({kind}))], 20)

    async def newest(self, pubkey: str, kind: int) -> Event | None:
        return next(iter(await self.said(pubkey, kind)), None)

    async def is_said(self, pubkey: str, kind: int) -> bool:
        return bool(await self.said(pubkey, kind))


@asynccontextmanager
async def place(
    relay: str,
    unit: MemoryDatabase | None = None,
    configured: Sequence[AgentSection] = (CONFIGURED,),
    named: Sequence[str] | None = (NAME,),  # the town's own agent
) -> AsyncIterator[Place]:
    async with aiohttp.ClientSession() as http, town(relay, unit) as here:
        gate, pool = here.gate, here.pool
        wire = Wire(http, CLOCK, gate.check, lambda: gate.standing("test"))
        keys = Identities(here.unit, CLOCK, Keyring(BUYER_WORDS), wire)
        operator = FixedVoices({OPERATOR: KeySigner(OPERATOR_KEY)})
        outbox = here.messages._outbound._outbox
        messages = Messages(
            pool, outbox, gate, here.unit, JoinedVoices(operator, keys), {OPERATOR: Rules()}, CLOCK,
            here.engine.notify, here.messages._feed,
        )  # fmt: skip

        def face(name: str) -> Face | None:
            section = roster.find(name)
            if section is None or not section.public:
                return None
            return Face(name, section.about, Msat(0) if section.strangers == "all" else None)

        presence = Presence(here.unit, outbox, keys, CLOCK, lambda: pool.urls, face, 300)
        roster = Roster(
            here.unit, CLOCK, keys, here.engine, messages, presence, configured, _rules, ["buyer"], lambda _: None,
            lambda: named,
        )  # fmt: skip
        keys.on_change(roster.rekeyed)
        here.voices.append(lambda: [*keys.values(), KeySigner(OPERATOR_KEY)])
        await roster.prepare()
        async with AsyncExitStack() as stack:
            await _running(stack, messages, presence)
            yield Place(here, roster, keys, messages, presence)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[str]:
    async with relay_at(tmp_path) as url:
        yield url


async def _say(at: Place, pubkey: str, text: str) -> None:
    draft = Draft(DM, text, (("p", pubkey),), CLOCK.now())
    await at.here.people.send(at.here.relay, wrap(OWNER, pubkey, draft), NODE_PERMIT)


async def _got(at: Place, agent: str) -> bool:
    return bool(await at.here.rows("inbox", agent=agent, cause="message"))


async def test_an_agent_that_is_added_hears_at_once_and_after_a_restart(relay: str) -> None:
    async with place(relay) as at:
        made = await at.roster.add({"name": "fresh", "about": "new here"})
        pubkey = at.keys.current("fresh").pubkey
        await _say(at, pubkey, "hello")
        await at.here.until(lambda: _got(at, "fresh"))
        again = await at.roster.add({"name": "fresh", "about": "new here"})
        assert made["npub"] == again["npub"], "the same again changes nothing"
        with pytest.raises(AgentTaken):
            await at.roster.add({"name": "fresh", "about": "another"})
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert again.roster.names() == ["steady", "fresh"]
        assert again.keys.current("fresh").pubkey == pubkey
        count = len(await again.here.rows("inbox", agent="fresh", cause="message"))
        await _say(again, pubkey, "hello again")
        await again.here.until(lambda: _count(again, "fresh", count + 1))


async def _count(at: Place, agent: str, count: int) -> bool:
    return len(await at.here.rows("inbox", agent=agent, cause="message")) == count


async def test_a_public_agent_shows_its_profile_its_relays_and_if_it_serves_an_announcement_and_a_heartbeat(
    relay: str,
) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "open", "about": "ask me", "strangers": "all"})
        await at.roster.add({"name": "closed"})
        await at.roster.add({"name": "hidden", "public": False, "strangers": "all"})
        opened, closed, hidden = (at.keys.current(name).pubkey for name in ("open", "closed", "hidden"))
        await at.here.until(lambda: at.is_said(opened, HEARTBEAT))
        await at.here.until(lambda: at.is_said(closed, METADATA))
        profile = await at.newest(opened, METADATA)
        assert profile is not None
        assert orjson.loads(profile.content) == {"name": "open", "about": "ask me", "bot": True}
        lists = await at.newest(opened, DM_RELAYS)
        assert lists is not None
        assert read_dm_relays(lists) == (relay,)
        assert await at.is_said(opened, RELAY_LIST)
        offer = await at.newest(opened, HANDLER)
        assert offer is not None
        assert (offer.value("d"), offer.values("k")) == (D, [str(DM)])
        beat = await at.newest(opened, HEARTBEAT)
        assert beat is not None
        assert int(beat.value("expiration") or 0) > CLOCK.now() + 300
        assert not await at.is_said(closed, HANDLER)
        assert not await at.is_said(hidden, METADATA)
        purposes = {row["effect_id"] for row in await at.here.rows("outbox")}
        assert purposes == {"agent.presence"}, "what is fixed goes out under the day's standing entry"


async def test_what_was_said_is_not_said_again_at_every_start(relay: str) -> None:
    async with place(relay) as at:
        pubkey = at.keys.current("steady").pubkey
        await at.here.until(lambda: at.is_said(pubkey, METADATA))
        first, kept = await at.newest(pubkey, METADATA), at.here.unit
    async with place(relay, kept) as again:
        await again.roster.add({"name": "other"})
        await again.here.until(lambda: again.is_said(again.keys.current("other").pubkey, METADATA))
        assert await again.newest(pubkey, METADATA) == first
        rows = await again.here.rows("outbox")
        assert len([row for row in rows if pubkey in row["raw"] and '"kind":0,' in row["raw"]]) == 1


async def test_a_deleted_agent_is_heard_no_more_and_has_taken_back_what_it_said(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief", "strangers": "all"})
        pubkey = at.keys.current("brief").pubkey
        await at.here.until(lambda: at.is_said(pubkey, HEARTBEAT))
        await at.roster.delete("brief")
        await at.here.until(lambda: at.is_said(pubkey, DELETION))
        await at.here.until(lambda: _emptied(at, pubkey))
        assert not await at.is_said(pubkey, HEARTBEAT)
        await _say(at, pubkey, "are you there")
        await _say(at, at.keys.current("steady").pubkey, "and you")
        await at.here.until(lambda: _got(at, "steady"))
        assert not await _got(at, "brief")
        assert "brief" not in at.keys
        with pytest.raises(NotFound):
            await at.roster.show("brief")
        with pytest.raises(AgentTaken):
            await at.roster.add({"name": "brief"})
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert again.roster.names() == ["steady"]
        assert "brief" not in again.keys


async def _emptied(at: Place, pubkey: str) -> bool:
    lists, profile = await at.newest(pubkey, DM_RELAYS), await at.newest(pubkey, METADATA)
    offer = await at.newest(pubkey, HANDLER)
    return (
        lists is not None
        and lists.tags == ()
        and profile is not None
        and orjson.loads(profile.content) == {"deleted": True}
        and (offer is None or offer.values("k") == [])
    )


async def test_a_deletion_that_a_crash_interrupted_is_finished_at_the_next_start(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        pubkey = at.keys.current("brief").pubkey
        await at.here.until(lambda: at.is_said(pubkey, METADATA))

        async def dies(name: str, signer: object) -> None:
            raise InvalidInput("it dies here")

        at.presence.withdraw = dies
        with pytest.raises(InvalidInput):
            await at.roster.delete("brief")
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert "brief" not in again.roster
        assert "brief" not in again.keys
        await again.here.until(lambda: again.is_said(pubkey, DELETION))


async def test_an_agent_of_the_configuration_goes_only_from_there(relay: str) -> None:
    async with place(relay) as at:
        with pytest.raises(AgentConfigured):
            await at.roster.delete("steady")
        with pytest.raises(AgentTaken):
            await at.roster.add({"name": "steady"})
        assert (await at.roster.show("steady"))["configured"] is True


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"name": "UPPER"},
        {"name": "node"},
        {"name": "list"},
        {"name": "a", "program": "nothing"},
        {"name": "a", "contacts": ["x"]},
        {"name": "a", "unknown": 1},
    ],
)
async def test_settings_that_are_none_make_no_agent(relay: str, value: dict) -> None:
    async with place(relay) as at:
        with pytest.raises(InvalidInput):
            await at.roster.add(value)
        assert at.roster.names() == ["steady"]
        assert len(await at.here.rows("identity")) == 1


async def test_the_operators_files_list_add_change_and_delete(relay: str) -> None:
    async with place(relay) as at:
        tree, session = agents_service(at.roster), Session("operator", Role.OPERATOR, "key", unit=at.here.unit)
        await tree.call(("new",), b'{"name": "fresh"}', session)
        listed = orjson.loads(await tree.read(("list",), session))
        assert [one["name"] for one in listed if one["origin"] != "elsewhere"] == ["fresh", "steady"]
        assert orjson.loads(await tree.read(("fresh", "about"), session))["configured"] is False
        settings = orjson.loads(await tree.read(("fresh", "settings"), session))
        await tree.write(("fresh", "settings"), orjson.dumps(settings | {"about": "anew"}), session)
        assert orjson.loads(await tree.read(("fresh", "about"), session))["about"] == "anew"
        after = orjson.loads(await tree.call(("list",), b'{"after": "fresh"}', session))
        assert [one["name"] for one in after] == ["steady"]
        await tree.call(("fresh", "delete"), b"", session)
        assert [one.name async for one in tree.list((), session)][-1] == "steady"


async def test_the_operators_mailbox_hears_agents_and_nobody_else(relay: str) -> None:
    async with place(relay) as at:
        await at.messages.send("operator", "steady", OPERATOR_KEY.pubkey, "to the operator", "key")
        stranger = Draft(DM, "hello", (("p", OPERATOR_KEY.pubkey),), CLOCK.now())
        await at.here.people.send(relay, wrap(STRANGER, OPERATOR_KEY.pubkey, stranger), NODE_PERMIT)
        await at.here.until(lambda: _heard_by_operator(at))
        await at.here.until(lambda: at.messages.counts["stranger"] == 1)
        (row,) = await at.here.rows("message", agent=OPERATOR)
        assert row["text"] == "to the operator"
        assert not await at.here.rows("inbox", agent=OPERATOR)


async def _heard_by_operator(at: Place) -> bool:
    return bool(await at.here.rows("message", agent=OPERATOR))


def test_a_withdrawal_names_every_kind_and_the_empty_events_are_newer() -> None:
    drafts = withdrawal(OWNER.pubkey, 100)
    assert drafts[0].kind == DELETION
    named = {tag[1].split(":")[0] for tag in drafts[0].tags if tag[0] == "a"}
    assert named == {str(kind) for kind in (METADATA, RELAY_LIST, DM_RELAYS, HANDLER, HEARTBEAT)}
    assert all(draft.created_at > drafts[0].created_at for draft in drafts[1:])


async def test_after_a_rotation_both_keys_are_heard_and_the_new_one_is_announced(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "turning"})
        old = at.keys.current("turning").pubkey
        coming, write = at.keys.draft_next("turning")
        await at.here.unit.commit([write])
        at.keys.expect(coming)
        await at.here.unit.commit(at.keys.switch("turning"))
        at.keys.switched("turning")
        new = at.keys.current("turning").pubkey
        assert new != old
        mailbox, at_now = at.messages._doors[OPERATOR], CLOCK.now()
        assert [mailbox.known(key, at_now) for key in (old, new)] == [False, True], "a lost key writes to no operator"
        await at.here.until(lambda: at.is_said(new, METADATA))
        await _say(at, new, "to the new key")
        await _say(at, old, "to the old key")
        await at.here.until(lambda: _count(at, "turning", 2))


async def test_an_agent_that_is_added_is_told_to_whoever_wants_to_know(relay: str) -> None:
    """The names that the relay answers for (NIP-05) come from there."""
    async with place(relay) as at:
        told: list[str] = []
        at.keys.on_change(told.append)
        await at.roster.add({"name": "fresh"})
        assert told == ["fresh"]
        assert len(at.keys.older("steady")) == 0


async def test_an_agent_whose_making_failed_half_way_is_finished_by_the_same_request(relay: str) -> None:
    async with place(relay) as at:
        create, at.here.engine.create = at.here.engine.create, _full
        with pytest.raises(StoreFull):
            await at.roster.add({"name": "fresh"})
        at.here.engine.create = create
        await at.roster.add({"name": "fresh"})
        await _say(at, at.keys.current("fresh").pubkey, "hello")
        await at.here.until(lambda: _got(at, "fresh"))


async def _full(*_: object) -> None:
    raise StoreFull


async def _away(name: str, signer: object) -> None:
    raise SignerUnavailable


async def test_a_deletion_whose_signer_is_away_keeps_no_node_from_starting_and_can_be_asked_for_again(
    relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        pubkey = at.keys.current("brief").pubkey
        await at.here.until(lambda: at.is_said(pubkey, METADATA))
        at.presence.withdraw = _away
        with pytest.raises(SignerUnavailable):
            await at.roster.delete("brief")
        kept = at.here.unit
    with monkeypatch.context() as patch:
        patch.setattr(Presence, "withdraw", lambda self, name, signer: _away(name, signer))
        async with place(relay, kept) as again:
            assert again.roster.names() == ["steady"]
    async with place(relay, kept) as at_last:
        await at_last.here.until(lambda: at_last.is_said(pubkey, DELETION))
    async with place(relay, kept) as once_more:
        with pytest.raises(NotFound):
            await once_more.roster.delete("brief")


async def test_a_deletion_is_finished_by_asking_again_while_the_node_runs(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        withdraw = at.presence.withdraw
        at.presence.withdraw = _away
        with pytest.raises(SignerUnavailable):
            await at.roster.delete("brief")
        at.presence.withdraw = withdraw
        tree, session = agents_service(at.roster), Session("operator", Role.OPERATOR, "key", unit=at.here.unit)
        await tree.call(("brief", "delete"), b"", session)
        assert "brief" not in at.keys
        with pytest.raises(NotFound):
            await at.roster.delete("brief")


async def test_a_deletion_that_died_after_the_key_was_given_up_makes_no_new_key(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        await at.here.until(lambda: at.is_said(at.keys.current("brief").pubkey, METADATA))
        await at.here.unit.commit(
            [Update("meta", {"key": "agent/brief"}, {"value": orjson.dumps({"deleted": True}).decode()})]
        )
        await at.keys.retire("brief")
        kept = at.here.unit
    async with place(relay, kept) as again:
        assert again.roster.names() == ["steady"]
        assert len(await again.here.rows("identity", name="brief")) == 1


async def test_what_comes_in_for_a_deleted_agent_keeps_nothing_busy(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        await at.roster.delete("brief")
        late = envelope("brief", "job-1", cause="event", source="market", sender="", payload="{}", at=1)
        await at.here.unit.commit([late])
        at.here.engine.notify("brief")
        await at.here.until(lambda: not at.here.engine.busy)
        await asyncio.sleep(0.05)
        assert [name for _, name in at.here.engine._order._later if name == "brief"] == []


async def test_old_messages_of_a_deleted_agent_are_forgotten_too(relay: str) -> None:
    async with place(relay) as at:
        await at.roster.add({"name": "brief"})
        await _say(at, at.keys.current("brief").pubkey, "hello")
        await at.here.until(lambda: _got(at, "brief"))
        await at.roster.delete("brief")
        await at.here.unit.commit([Update("message", {"agent": "brief"}, {"changed_ms": 1}, rows=None)])
        await Retention(at.here.unit, CLOCK, RetentionSection().model_dump()).sweep(asyncio.Event())
        assert not await at.here.rows("message", agent="brief")


async def test_of_an_agents_heartbeats_only_the_last_is_kept(relay: str) -> None:
    """10,000 agents, a heartbeat each five minutes, a week in the outbox: else that were twenty million rows."""
    async with place(relay) as at:
        await at.roster.add({"name": "open", "strangers": "all"})
        signer = at.keys.current("open")
        await at.here.until(lambda: at.is_said(signer.pubkey, HEARTBEAT))
        for number in range(1, 4):
            await at.presence._beat("open", Face("open", "", Msat(0)), signer, CLOCK.now() + number)
        rows = [row for row in await at.here.rows("outbox") if f'"kind":{HEARTBEAT},' in row["raw"]]
        assert len(rows) == 1
        await at.here.until(lambda: _newest_beat(at, signer.pubkey, orjson.loads(rows[0]["raw"])["id"]))


async def _newest_beat(at: Place, pubkey: str, event_id: str) -> bool:
    newest = await at.newest(pubkey, HEARTBEAT)
    return newest is not None and newest.id == event_id
