"""Who the agents are: signers by name, their successors, and what is left of the keys before."""

import pytest

from core.error import InvalidInput
from node.identity.error import IdentityExists, IdentityUnknown, KeysDamaged
from node.identity.registry import Derived, Identities, Imported, key_of
from relays.error import KindForbidden
from relays.event import Draft, verify
from relays.key import Key, Keyring
from relays.kind import CLIENT_AUTH, DM
from tests.gate_part import SetClock, memory
from tests.unit.node.identity.identity_part import RING, identities, wire
from wallet.record import SealBroken

NOTE = Draft(1, "", (), 1_800_000_000)
DAY = 86_400


@pytest.fixture
async def stage():
    clock = SetClock()
    unit = memory(clock)
    async with wire(clock) as made:
        yield unit, clock, made


async def test_an_agent_s_key_comes_from_the_words_and_is_the_same_after_a_restart(stage):
    unit, clock, talk = stage
    first = await identities(unit, clock, talk, "a", "b")
    again = await identities(unit, clock, talk, "a", "b")
    assert first["a"].pubkey == again["a"].pubkey == RING.agent("a").pubkey
    assert sorted(again) == ["a", "b"]
    verify(await again["a"].sign(NOTE))
    assert again.whose(RING.agent("b").pubkey)[0] == "b"
    assert again.whose(Key.generate().pubkey) is None


async def test_an_imported_key_is_sealed_and_opens_with_the_same_words_alone(stage):
    unit, clock, talk = stage
    key = Key.generate()
    await (await identities(unit, clock, talk)).add("a", Imported(key))
    row = (await unit.select("identity"))[0]
    assert key.secret not in row["sealed"]
    assert key.secret.hex() not in str(row)
    again = await identities(unit, clock, talk)
    assert again["a"].pubkey == key.pubkey
    assert (await again["a"].sign(NOTE)).pubkey == key.pubkey
    assert key_of(row, RING).secret == key.secret
    with pytest.raises(SealBroken):
        key_of(row, Keyring("zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong"))


async def test_a_sealed_key_cannot_be_moved_to_another_name(stage):
    unit, clock, talk = stage
    await (await identities(unit, clock, talk)).add("a", Imported(Key.generate()))
    row = (await unit.select("identity"))[0]
    with pytest.raises(SealBroken):
        key_of({**row, "name": "b"}, RING)


async def test_a_record_that_names_another_key_than_the_words_make_signs_nothing(stage):
    unit, clock, talk = stage
    await identities(unit, clock, talk, "a")
    moved = Identities(unit, clock, Keyring("zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong"), talk)
    await moved.load()
    with pytest.raises(KeysDamaged):
        await moved["a"].sign(NOTE)


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "node", "operator", "a" * 32, "ä"])
async def test_names_that_are_none_are_refused(stage, name):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk)
    with pytest.raises(InvalidInput):
        await held.add(name)
    assert await unit.select("identity") == []


async def test_a_name_and_a_key_are_there_once(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a")
    for name, source in (
        ("a", None),
        ("b", Imported(RING.agent("a"))),
        ("b", Imported(RING.node)),
        ("b", Imported(RING.operator)),
    ):
        with pytest.raises(IdentityExists):
            await held.add(name, source)
    assert list(held) == ["a"]


async def test_two_names_that_would_draw_the_same_key_get_different_ones(stage):
    """With 10,000 agents a collision of first keys is likely; here it is made certain."""
    unit, clock, talk = stage

    class Unlucky(Keyring):
        def agent(self, name, epoch=0):
            return super().agent("same" if epoch == 0 else name, epoch)

    held = Identities(unit, clock, Unlucky(RING.words), talk)
    await held.load(["a", "b"])
    assert held["a"].pubkey != held["b"].pubkey
    again = Identities(unit, clock, Unlucky(RING.words), talk)
    await again.load(["a", "b"])
    assert [again[name].pubkey for name in "ab"] == [held[name].pubkey for name in "ab"]
    verify(await again["b"].sign(NOTE))


async def test_a_given_up_name_signs_no_more_and_its_key_is_never_used_again(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a")
    before, changed = held["a"].pubkey, []
    held.on_change(changed.append)
    await held.retire("a")
    assert "a" not in held
    assert held.whose(before) is None
    with pytest.raises(IdentityUnknown):
        held.current("a")
    with pytest.raises(IdentityUnknown):
        await held.retire("a")
    await held.add("a")
    assert held["a"].pubkey not in (before, None)
    assert changed == ["a", "a"]


async def switched(unit, held, name, source=None):
    coming, write = held.draft_next(name, source)
    await unit.commit([write])
    held.expect(coming)
    await unit.commit(held.switch(name))
    held.switched(name)
    return coming


async def test_a_replaced_key_decrypts_for_a_while_and_signs_nothing_but_proofs_to_relays(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a", days=2)
    old, friend = held["a"].pubkey, Key.generate()
    await switched(unit, held, "a")
    assert held["a"].pubkey == RING.agent("a", 1).pubkey
    (older,) = held.older("a")
    assert older.pubkey == old
    assert await older.decrypt(friend.pubkey, friend.encrypt(old, "late")) == "late"
    assert await older.decrypt_legacy(friend.pubkey, friend.encrypt_legacy(old, "late")) == "late"
    assert (await older.sign(Draft(CLIENT_AUTH, "", (), 1))).pubkey == old
    for kind in (1, DM, 13, 5, 0, 10_050):
        with pytest.raises(KindForbidden):
            await older.sign(Draft(kind, "", (), 1))
    with pytest.raises(KindForbidden):
        await older.encrypt(friend.pubkey, "x")
    assert held.whose(old) == ("a", older)
    clock.at += 2 * DAY
    assert list(held.older("a")) == []
    assert held.whose(old) is None


async def test_every_key_that_decrypts_is_a_voice_and_those_that_do_no_more_are_none(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a", "b", days=2)
    await switched(unit, held, "a")
    assert [one.pubkey for one in held.voices()] == [RING.agent(*one).pubkey for one in (("a", 1), ("b", 0), ("a", 0))]
    held.forget("b")
    assert [one.pubkey for one in held.voices()] == [RING.agent("a", 1).pubkey, RING.agent("a", 0).pubkey]
    clock.at += 2 * DAY
    assert [one.pubkey for one in held.voices()] == [RING.agent("a", 1).pubkey]


async def test_epochs_go_on_after_a_restart_and_the_newest_of_the_old_keys_comes_first(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a")
    await switched(unit, held, "a")
    clock.at += 10
    await switched(unit, held, "a")
    held = await identities(unit, clock, talk, "a")
    assert held["a"].pubkey == RING.agent("a", 2).pubkey
    assert [one.pubkey for one in held.older("a")] == [RING.agent("a", epoch).pubkey for epoch in (1, 0)]
    assert [(one.epoch, one.state) for one in held.all()] == [(2, "active"), (1, "retired"), (0, "retired")]


async def test_an_epoch_that_was_in_use_before_a_loss_can_be_named(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk)
    await held.add("a", Derived(5))
    assert held["a"].pubkey == RING.agent("a", 5).pubkey
    await held.retire("a")
    with pytest.raises(IdentityExists):
        await held.add("a", Derived(5))


async def test_a_name_has_one_rotation_at_a_time(stage):
    unit, clock, talk = stage
    held = await identities(unit, clock, talk, "a")
    coming, write = held.draft_next("a")
    await unit.commit([write])
    held.expect(coming)
    with pytest.raises(IdentityExists):
        held.draft_next("a")
    again = await identities(unit, clock, talk, "a")
    assert again.succession("a").signer.pubkey == coming.signer.pubkey
    assert again["a"].pubkey == RING.agent("a").pubkey  # until the switch it speaks with its old key
