"""Agents of a process among others: it learns of each with its first tick, and follows what others change."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from core.clock import SystemClock
from core.error import NotFound
from core.unit import Update
from node.agent.presence import Presence
from node.agent.roster import Roster
from node.identity.registry import Derived, Identities
from node.message.service import OPERATOR, Messages
from node.message.voice import FixedVoices, JoinedVoices
from node.share.household import Announcing, Household
from relays.bunker import Wire
from relays.key import Keyring
from relays.local_signer import KeySigner
from tests.integration.agent.node_part import NAME, relay_at
from tests.integration.agent.test_roster import CLOCK, OPERATOR_KEY, Place, Rules, _rules, place
from tests.wallet_part import BUYER_WORDS


@dataclass
class Others:
    leads: bool = False
    told: list[str] = field(default_factory=list)

    def changed(self) -> None:
        self.told.append("changed")


@dataclass
class Beside:
    """Another process on the same database, which hears nobody until it is to tick somebody."""

    roster: Roster
    keys: Identities
    messages: Messages
    presence: Presence
    household: Household
    others: Others


def _beside(at: Place, http: aiohttp.ClientSession, programs: tuple[str, ...] = ("buyer",)) -> Beside:
    here, others = at.here, Others()
    keys = Identities(
        here.unit, CLOCK, Keyring(BUYER_WORDS), Wire(http, CLOCK, here.gate.check, lambda: None)
    )  # no signer is far away
    operator = FixedVoices({OPERATOR: KeySigner(OPERATOR_KEY)})
    outbox = here.messages._outbound._outbox
    messages = Messages(
        here.pool, outbox, here.gate, here.unit, JoinedVoices(operator, keys), {OPERATOR: Rules()}, SystemClock(),
        here.engine.notify, here.messages._feed,
    )  # fmt: skip
    presence = Presence(here.unit, outbox, keys, CLOCK, lambda: here.pool.urls, lambda _: None, 300)
    roster = Roster(
        here.unit, CLOCK, keys, here.engine, messages, Announcing(presence, lambda: others.leads), [], _rules,
        dict.fromkeys(programs), lambda _: None, lambda: (NAME, "steady"),
    )  # fmt: skip
    keys.on_change(roster.rekeyed)
    return Beside(roster, keys, messages, presence, Household(roster, dict.fromkeys(programs, 1), others), others)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Place]:
    async with relay_at(tmp_path) as url, place(url) as made:
        yield made


@pytest.fixture
async def beside(at: Place) -> AsyncIterator[Beside]:
    async with aiohttp.ClientSession() as http:
        yield _beside(at, http)


async def test_it_knows_nobody_and_is_ready_for_whom_it_is_asked(at: Place, beside: Beside) -> None:
    await at.roster.add({"name": "fresh"})
    assert beside.roster.names() == []
    assert await beside.household.ready("fresh")
    assert beside.keys.current("fresh").pubkey == at.keys.current("fresh").pubkey
    assert beside.messages.rules("fresh").contacts == at.messages.rules("fresh").contacts
    assert await beside.household.ready("fresh"), "again"
    assert beside.roster.names() == ["fresh"]
    assert beside.presence._due == [], "and says nothing of it in public"
    assert len(await at.here.rows("identity", name="fresh")) == 1


async def test_it_leaves_alone_who_is_not_there_or_whose_program_is_not(at: Place, beside: Beside) -> None:
    await at.roster.add({"name": "fresh"})
    beside.household._programs = {}
    assert not await beside.household.ready("fresh")
    assert not await beside.household.ready("nobody")
    assert not await beside.household.ready("steady"), "it stands in the configuration of the other process alone"
    assert (await at.here.rows("agent", name="fresh"))[0]["status"] == "active", "and nobody is set aside for it"


async def test_it_follows_new_keys_rules_and_deletions(at: Place, beside: Beside) -> None:
    for name in ("fresh", "brief"):
        await at.roster.add({"name": name})
        assert await beside.household.ready(name)
    coming, write = at.keys.draft_next("fresh", Derived())
    await at.here.unit.commit([write])
    at.keys.expect(coming)
    await at.here.unit.commit(at.keys.switch("fresh"))
    at.keys.switched("fresh")
    await at.messages.set_rules("fresh", {"strangers": "all"})
    await at.roster.delete("brief")
    await beside.household.follow()
    assert beside.keys.current("fresh").pubkey == at.keys.current("fresh").pubkey == coming.signer.pubkey
    assert beside.messages.rules("fresh").strangers == "all"
    assert not beside.roster.is_awake("brief")
    assert beside.keys.get("brief") is None


async def test_the_steward_hears_who_woke_elsewhere_and_no_longer_who_sleeps(at: Place, beside: Beside) -> None:
    await at.roster.add({"name": "fresh"})
    steward = Others(leads=True)
    household = Household(at.roster, {"buyer": 1}, steward)
    await at.here.unit.commit([Update("agent", {"name": "fresh"}, {"status": "dormant"}, rows=None)])
    await household.follow()
    assert not at.roster.is_awake("fresh")
    assert await beside.household.rouse("fresh")
    assert beside.others.told == ["changed"]
    await at.here.unit.commit([Update("agent", {"name": "fresh"}, {"status": "active"}, rows=None)])
    await household.follow()
    assert at.roster.is_awake("fresh")
    beside.household.rest("fresh")
    assert beside.others.told == ["changed", "changed"]
    assert steward.told == [], "the steward itself need tell nobody"


async def test_only_the_steward_takes_back_what_was_said_in_public(at: Place, beside: Beside) -> None:
    publishing = beside.roster._publishing
    with pytest.raises(NotFound):
        await publishing.withdraw("steady", at.keys.current("steady"))
    publishing.renew("steady")
    beside.others.leads = True
    publishing.renew("steady")
    await asyncio.sleep(0)
    assert len(beside.presence._due) == 1


async def test_who_becomes_the_steward_goes_by_the_settings_that_another_process_has_changed(
    at: Place, beside: Beside
) -> None:
    for name in ("fresh", "sleepy"):
        await at.roster.add({"name": name, "ticks_per_minute": 1})
        assert await beside.household.ready(name)
    beside.roster.rest("sleepy")
    assert await beside.roster.visit("sleepy")
    for name in ("fresh", "sleepy"):
        await at.roster.set_settings(name, {"ticks_per_minute": 2, "strangers": "all"})
    assert await beside.roster.rouse("sleepy")
    await beside.roster.prepare()
    for name in ("fresh", "sleepy"):
        assert (await at.here.rows("agent", name=name))[0]["limits"] == '{"per_minute":2}'
        assert beside.messages.rules(name).strangers == "all"
