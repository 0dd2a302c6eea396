"""A new key for an agent: both keys say so, contacts hear it from the old one, a crash at any step loses nothing."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from core.error import Conflict, KeyReused, NotFound, Paused, StoreUncertain
from core.identifier import PubKey
from core.unit import Insert
from node.identity.error import IdentityUnknown
from node.identity.registry import Imported
from node.identity.rotation import PATH, Rotations
from relays.error import KindForbidden, SignerUnavailable
from relays.event import Draft, parse_json, verify
from relays.key import Key, npub
from relays.succession import read_succession
from tests.gate_part import SetClock, memory, open_gate
from tests.integration.relays.hostile_part import make_outbox, make_pool
from tests.unit.node.identity.identity_part import RING, identities, wire

FRIEND, OWNER = PubKey("ab" * 32), PubKey("cd" * 32)


class Crash(Exception):
    """The process ends here."""


class DyingUnit:
    """A database whose process dies at a commit: before it, or right after it."""

    def __init__(self, inner, lives: int, after: bool) -> None:
        self._inner, self._lives, self._after = inner, lives, after

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def commit(self, writes):
        if self._lives == 0 and not self._after:
            raise Crash
        await self._inner.commit(writes)
        if self._lives == 0:
            raise Crash
        self._lives -= 1


class Stage:
    """One node's parts. `again` is a restart on the same database."""

    def __init__(self, unit, clock, gate, held, rotations, heard) -> None:
        self.unit, self.clock, self.gate, self.held, self.rotations, self.heard = (
            unit, clock, gate, held, rotations, heard,
        )  # fmt: skip

    async def notes(self):
        rows = await self.unit.select("outbox")
        events = [parse_json(raw) for raw in dict.fromkeys(row["raw"] for row in rows)]
        for event in events:
            verify(event)
        return sorted(events, key=lambda event: event.value("d") != "vendo/successor")

    async def effects(self):
        return [row["state"] for row in await self.unit.select("effect", {"path": PATH})]


async def open_stage(unit, clock, talk, *, heard=None, fails=(), dying=None):
    gate = await open_gate(unit, clock)
    driven = dying or unit
    held = await identities(unit, clock, talk, "a")
    held._unit = driven
    heard = {} if heard is None else heard
    fails = list(fails)

    async def tell(agent, to, text, key):
        if fails and (error := fails.pop(0)) is not None:
            raise error
        assert heard.setdefault((to, key), text) == text  # the same key says the same
        assert held[agent].pubkey == RING.agent("a", int(key.split("-")[1]) - 1).pubkey, (
            "contacts hear it from the key they know"
        )

    outbox = make_outbox(make_pool(unit, "ws://127.0.0.1:9"), unit)
    rotations = Rotations(held, driven, gate, outbox, clock, tell, lambda name: [FRIEND, OWNER])
    return Stage(unit, clock, gate, held, rotations, heard)


@asynccontextmanager
async def staged(**more):
    clock = SetClock()
    unit = memory(clock)
    row = {"name": "a", "program": "p", "pubkey": RING.agent("a").pubkey, "status": "active", "state": "{}"}
    await unit.commit([Insert("agent", row | {"state_version": 1, "created_at": 1})])
    async with wire(clock) as talk:
        yield await open_stage(unit, clock, talk, **more), talk


async def finished(stage) -> None:
    """Run the service until nothing is open."""
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(stage.rotations.run(ready, stop))
    async with asyncio.timeout(10):
        while "begun" in await stage.effects():
            await asyncio.sleep(0.001)
            stage.clock.at += 1
    stop.set()
    await running


async def test_both_keys_sign_that_one_follows_the_other():
    async with staged() as (stage, _):
        done = await stage.rotations.rotate("operator", "a", "k")
        assert (done.state, done.epoch, done.old, done.new) == (
            "done", 1, RING.agent("a").pubkey, RING.agent("a", 1).pubkey,
        )  # fmt: skip
        first, second = await stage.notes()
        proved = read_succession(first, second)
        assert (proved.old, proved.new) == (done.old, done.new)
        assert stage.held["a"].pubkey == done.new
        assert [row["pubkey"] for row in await stage.unit.select("agent")] == [done.new]
        assert await stage.effects() == ["commit"]
        assert sorted(to for to, _ in stage.heard) == [FRIEND, OWNER]
        assert all(npub(done.new) in text for text in stage.heard.values())


async def test_the_same_request_is_one_rotation_and_another_under_its_key_is_refused():
    async with staged() as (stage, _):
        done = await stage.rotations.rotate("operator", "a", "k")
        assert await stage.rotations.rotate("operator", "a", "k") == done
        with pytest.raises(KeyReused):
            await stage.rotations.rotate("operator", "a", "k", Imported(Key.generate()))
        assert stage.held.identity("a").epoch == 1
        assert (await stage.rotations.rotate("operator", "a", "k2")).epoch == 2


async def test_a_contact_that_cannot_be_told_does_not_hold_it_up_but_a_silent_signer_does():
    async with staged(fails=[NotFound("no relays"), None]) as (stage, _):
        assert (await stage.rotations.rotate("operator", "a", "k")).state == "done"
        assert len(stage.heard) == 1
    async with staged(fails=[SignerUnavailable("asleep")]) as (stage, _):
        assert (await stage.rotations.rotate("operator", "a", "k")).state == "begun"
        assert stage.held["a"].pubkey == RING.agent("a").pubkey
        assert await stage.unit.select("outbox") == []
        await finished(stage)
        assert stage.held["a"].pubkey == RING.agent("a", 1).pubkey
        assert len(stage.heard) == 2


async def test_a_lost_key_is_replaced_without_its_word():
    async with staged() as (stage, _):
        await stage.rotations.rotate("operator", "a", "k", lost=True)
        assert stage.heard == {}
        assert await stage.notes() == []
        assert stage.held["a"].pubkey == RING.agent("a", 1).pubkey


async def test_a_key_from_elsewhere_can_be_the_next_one():
    key = Key.generate()
    async with staged() as (stage, _):
        done = await stage.rotations.rotate("operator", "a", "k", Imported(key))
        assert done.new == key.pubkey
        assert read_succession(*await stage.notes()).new == key.pubkey


async def test_a_paused_node_and_an_unknown_name_begin_nothing():
    async with staged() as (stage, _):
        await stage.gate.pause()
        with pytest.raises(Paused):
            await stage.rotations.rotate("operator", "a", "k")
        await stage.gate.resume()
        with pytest.raises(IdentityUnknown):
            await stage.rotations.rotate("operator", "nobody", "k")
        assert [row["state"] for row in await stage.unit.select("identity")] == ["active"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("commits", [0, 1])
async def test_a_crash_at_any_commit_ends_in_one_whole_rotation_or_none(commits, after):
    async with staged() as (stage, talk):
        dying = await open_stage(
            stage.unit, stage.clock, talk, heard=stage.heard, dying=DyingUnit(stage.unit, commits, after)
        )
        with pytest.raises(Crash):
            await dying.rotations.rotate("operator", "a", "k")
        again = await open_stage(stage.unit, stage.clock, talk, heard=stage.heard)
        await finished(again)
        begun = await again.effects()
        assert begun == ([] if (commits, after) == (0, False) else ["commit"])
        expected = RING.agent("a", 1 if begun else 0).pubkey
        assert again.held["a"].pubkey == expected
        assert again.held.succession("a") is None
        assert [row["pubkey"] for row in await again.unit.select("agent")] == [expected]
        if begun:
            assert read_succession(*await again.notes()).new == expected
            assert len(again.heard) == 2


async def test_an_agent_that_is_deleted_meanwhile_ends_the_rotation():
    async with staged(fails=[SignerUnavailable("asleep")] * 2) as (stage, _):
        await stage.rotations.rotate("operator", "a", "k")
        await stage.held.retire("a")
        await finished(stage)
        assert await stage.effects() == ["fail"]


async def test_a_database_that_is_busy_only_delays_it():
    async with staged(fails=[Conflict("busy")]) as (stage, _):
        assert (await stage.rotations.rotate("operator", "a", "k")).state == "begun"
        await finished(stage)
        assert stage.held.identity("a").epoch == 1


async def test_an_agent_is_somebody_at_every_moment_of_a_rotation():
    """A message that comes while the keys change hands is for it, whatever the database is doing."""
    async with staged() as (stage, _):
        seen = []

        class Watched:
            def __getattr__(self, name):
                return getattr(stage.unit, name)

            async def select(self, *args, **more):
                seen.append(stage.held.whose(RING.agent("a").pubkey))
                return await stage.unit.select(*args, **more)

        stage.held._unit = Watched()
        stage.rotations._unit = Watched()
        assert (await stage.rotations.rotate("operator", "a", "k")).state == "done"
        assert seen
        assert all(one is not None for one in seen)
        (old,) = stage.held.older("a")
        assert old.pubkey == RING.agent("a").pubkey
        with pytest.raises(KindForbidden):
            await old.sign(Draft(1, "", (), 0))


async def test_a_database_that_fails_right_after_the_commit_leaves_no_agent_without_its_key():
    async with staged() as (stage, _):

        class Broken:
            def __getattr__(self, name):
                return getattr(stage.unit, name)

            async def select(self, *args, **more):
                raise StoreUncertain

        stage.held._unit = Broken()
        await stage.rotations.rotate("operator", "a", "k")
        assert stage.held["a"].pubkey == RING.agent("a", 1).pubkey


@pytest.mark.parametrize("commit", [0, 1])
async def test_a_commit_that_is_uncertain_and_happened_is_found_out(commit):
    async with staged() as (stage, _):
        count = iter(range(10))

        class Uncertain:
            def __getattr__(self, name):
                return getattr(stage.unit, name)

            async def commit(self, writes):
                await stage.unit.commit(writes)
                if next(count) == commit:
                    raise StoreUncertain

        stage.rotations._unit = Uncertain()
        try:
            await stage.rotations.rotate("operator", "a", "k")
        except StoreUncertain:
            assert commit == 0
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(stage.rotations.run(ready, stop))
        async with asyncio.timeout(10):
            while stage.held["a"].pubkey != RING.agent("a", 1).pubkey:
                await asyncio.sleep(0.001)
                stage.clock.at += 1
        stop.set()
        await running
        assert await stage.effects() == ["commit"]
        assert stage.held.succession("a") is None
