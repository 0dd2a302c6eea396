"""A remote signer over a relay that dies, asks who we are, and passes on forgeries."""

import asyncio
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest

from core.clock import SystemClock
from core.error import InvalidInput, Unpermitted
from node.identity.pairing import Pairings
from node.identity.registry import Identities, Remote
from relays.bunker import RemoteSigner, Talk, Wire, user_of
from relays.error import NotForUs, SignerUnavailable
from relays.event import Draft, verified, verify
from relays.key import Key, Keyring
from relays.kind import CLIENT_AUTH
from relays.nip46 import parse_bunker
from tests.gate_part import SetClock, memory
from tests.integration.identity.bunker_part import Bunker, bunker
from tests.integration.relays.embedded.relay_part import running
from tests.integration.relays.hostile_part import PERMIT, check, relay

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PEER = Key.generate()


def note(text="words"):
    return Draft(1, text, (("t", "x"),), int(time.time()))


@asynccontextmanager
async def wires():
    async with aiohttp.ClientSession() as http:
        yield Wire(http, SystemClock(), check, lambda: PERMIT)


@asynccontextmanager
async def paired(made: Bunker, timeout=5.0):
    """A signer that has been introduced."""
    async with wires() as wire:
        remote = await Pairings(wire, (made.url,), "vendo").meet(made.uri, 5)
        assert remote.bunker.secret == ""
        signer = RemoteSigner(Talk(wire, remote.app, remote.bunker.signer, remote.bunker.relays), remote.user, timeout)
        try:
            yield signer
        finally:
            await signer.aclose()


async def test_everything_a_signer_does_over_our_own_relay(tmp_path):
    async with running(tmp_path / "events.sqlite") as home, bunker(home.url) as made, paired(made) as signer:
        assert signer.pubkey == made.pubkey
        event = await signer.sign(note())
        verify(event)
        assert (event.pubkey, event.content, event.tags) == (made.pubkey, "words", (("t", "x"),))
        assert PEER.decrypt(signer.pubkey, await signer.encrypt(PEER.pubkey, "grüße")) == "grüße"
        assert await signer.decrypt(PEER.pubkey, PEER.encrypt(signer.pubkey, "grüße")) == "grüße"
        assert PEER.decrypt_legacy(signer.pubkey, await signer.encrypt_legacy(PEER.pubkey, "grüße")) == "grüße"
        assert await signer.decrypt_legacy(PEER.pubkey, PEER.encrypt_legacy(signer.pubkey, "grüße")) == "grüße"
        with pytest.raises(NotForUs):
            await signer.decrypt(PEER.pubkey, PEER.encrypt(Key.generate().pubkey, "not for them"))
        with pytest.raises(InvalidInput):
            await signer.encrypt(PEER.pubkey, "x" * 66_000)
        answers = await asyncio.gather(*(signer.sign(note(str(number))) for number in range(40)))
        assert [event.content for event in answers] == [str(number) for number in range(40)]


async def test_a_wrong_secret_and_a_stranger_are_refused():
    async with relay() as here, bunker(here.url) as made, wires() as wire:
        pairings = Pairings(wire, (here.url,), "vendo")
        with pytest.raises(SignerUnavailable, match="wrong secret"):
            await pairings.meet(made.uri.replace("s3cret", "guess"), 5)
        address = parse_bunker(made.uri)
        signer = RemoteSigner(Talk(wire, Key.generate(), address.signer, address.relays), PEER.pubkey, 5)
        with pytest.raises(SignerUnavailable, match="not connected"):
            await signer.sign(note())
        await signer.aclose()


async def test_a_silent_signer_is_unavailable_in_time_and_answers_when_it_is_back():
    async with relay() as here, bunker(here.url) as made, paired(made, timeout=0.3) as signer:
        made.twist = lambda answer, method: None
        begun = time.monotonic()
        with pytest.raises(SignerUnavailable, match="no answer"):
            await signer.sign(note())
        assert time.monotonic() - begun < 10
        made.twist = None
        signer._timeout = 20
        verify(await signer.sign(note()))


async def test_a_relay_that_dies_is_connected_again_and_what_was_open_is_asked_again():
    async with relay() as here, bunker(here.url) as made, paired(made, timeout=10) as signer:
        verify(await signer.sign(note("before")))
        made.twist = lambda answer, method: None  # the answer is lost with the relay
        asking = asyncio.create_task(signer.sign(note("across")))
        async with asyncio.timeout(60):
            while made.asked.count("sign_event") < 2:
                await asyncio.sleep(0.01)
        await here.stop()
        made.twist = None
        made.listening.clear()
        await asyncio.sleep(0.3)
        await here.start()
        event = await asking
        assert event.content == "across"
        here.abort()
        verify(await signer.sign(note("after a cut")))


async def test_a_relay_that_cannot_be_reached_is_told():
    async with relay() as here, bunker(here.url) as made, paired(made, timeout=0.4) as signer:
        await here.stop()
        await asyncio.sleep(0.1)
        with pytest.raises(SignerUnavailable, match="cannot be reached"):
            await signer.sign(note())


@pytest.mark.parametrize("lie", ["other content", "other author", "junk", "forged", "no event"])
async def test_a_signer_that_signs_something_else_is_of_no_use(lie):
    async with relay() as here, bunker(here.url) as made, paired(made) as signer:
        user = Key(bytes.fromhex(made.user.secret_key().to_hex()))
        draft = note("asked for")
        lies = {
            "other content": user.sign(note("another")).to_json(),
            "other author": PEER.sign(draft).to_json(),
            "junk": "{]",
            "forged": user.sign(draft).to_json().replace('"sig":"', '"sig":"00')[:-4] + '"}',
            "no event": "null",
        }
        made.twist = lambda answer, method: {**answer, "result": lies[lie]} if method == "sign_event" else answer
        with pytest.raises(SignerUnavailable):
            await signer.sign(draft)


async def test_answers_of_others_and_forged_ones_are_passed_over():
    """A relay, or anybody on it, answers in the signer's place: before it, with its name, with a wrong signature."""
    impostor = Bunker("")
    async with relay() as here, bunker(here.url) as made, paired(made) as signer:
        seen = []

        async def answer_first(session, value):
            event = verified(value)
            if event.pubkey == made.own.public_key().to_hex():
                return False
            seen.append(event)
            impostor.send_raw = lambda frame: here.broadcast(frame[1])
            await impostor.say(event.pubkey, {"id": "0" * 16, "result": "junk"}, impostor.own)
            forged = {**value, "pubkey": made.own.public_key().to_hex(), "tags": [["p", event.pubkey]]}
            await here.broadcast(forged)
            await here.broadcast({**forged, "sig": "0" * 128, "content": "?iv="})
            return False

        here.on_event = answer_first
        verify(await signer.sign(note()))
        assert seen


async def test_a_relay_that_wants_to_know_who_we_are_is_told_once():
    async with relay() as here:
        known: set[object] = set()

        async def on_req(session, sub, filters):
            if session in known:
                return False
            await session.say("AUTH", "challenge")
            session.subs.pop(sub)
            await session.say("CLOSED", sub, "auth-required: who are you?")
            return True

        async def on_auth(session, value):
            known.add(session)
            return False

        async with bunker(here.url) as made:
            here.on_req, here.on_auth = on_req, on_auth
            async with paired(made) as signer:
                verify(await signer.sign(note()))
        proofs = [verified(value) for value in here.auths]
        assert {(one.kind, one.value("challenge"), one.value("relay")) for one in proofs} == {
            (CLIENT_AUTH, "challenge", here.url)
        }
        assert len(proofs) == 2  # one for the greeting's connection, one for the signer's


async def test_an_address_that_a_person_must_open_first_is_shown():
    async with relay() as here, bunker(here.url) as made, wires() as wire:
        made.twist = lambda answer, method: {**answer, "result": "auth_url", "error": "https://example.com/yes"}
        with pytest.raises(SignerUnavailable, match="example"):
            await Pairings(wire, (here.url,), "vendo").meet(made.uri, 3)


async def test_a_signer_that_we_invite_calls_with_the_secret_and_impostors_do_not_count():
    async with relay() as here, wires() as wire, bunker(here.url) as made:
        met: list[Remote] = []
        pairings = Pairings(wire, (here.url,), "vendo")
        stop, ready = asyncio.Event(), asyncio.Event()
        running_ = asyncio.create_task(pairings.run(ready, stop))

        async def then(remote):
            met.append(remote)

        uri = pairings.invite(then, 5)
        assert uri.startswith("nostrconnect://")
        app = uri[len("nostrconnect://") :].partition("?")[0]
        secret = uri.partition("secret=")[2].partition("&")[0]
        made.trusted.add(app)
        async with asyncio.timeout(60):
            while not any(sub for session in here.sessions for sub in session.subs if sub != "b"):
                await asyncio.sleep(0.01)
            await made.say(app, {"id": "1", "result": "guess"}, Bunker("").own)
            await made.say(app, {"id": "2", "result": secret})
            while not met:
                await asyncio.sleep(0.01)
        assert met[0].user == made.pubkey
        assert met[0].bunker.signer == made.own.public_key().to_hex()
        stop.set()
        await running_


async def test_nobody_called():
    async with relay() as here, wires() as wire:
        talk = Talk(wire, Key.generate(), None, (here.url,))
        with pytest.raises(SignerUnavailable, match="No signer called"):
            await talk.await_call("secret", 0.2)
        await talk.aclose()


async def test_without_the_gate_s_leave_nothing_leaves():
    async with relay() as here, bunker(here.url) as made, aiohttp.ClientSession() as http:
        wire = Wire(http, SystemClock(), check, lambda: object())
        address = parse_bunker(made.uri)
        talk = Talk(wire, Key.generate(), address.signer, address.relays)
        with pytest.raises((SignerUnavailable, Unpermitted)):
            await user_of(talk, 0.3)
        await talk.aclose()
        assert made.asked == []
        assert here.published == []


async def test_a_node_finds_its_remote_signer_again_after_a_restart():
    clock = SetClock()
    unit, ring = memory(clock), Keyring(WORDS)
    async with relay() as here, bunker(here.url) as made, wires() as wire:
        for turn in range(2):
            held = Identities(unit, clock, ring, wire)
            await held.load()
            stop, ready = asyncio.Event(), asyncio.Event()
            serving = asyncio.create_task(held.run(ready, stop))
            if turn == 0:
                await held.add("a", await Pairings(wire, (here.url,), "vendo").meet(made.uri, 5))
            verify(await held["a"].sign(note()))
            stop.set()
            await serving
        (row,) = await unit.select("identity")
        assert b"bunker" not in row["sealed"]
        assert made.asked.count("connect") == 1
        async with asyncio.timeout(60):
            while len(here.sessions) > 1:  # the bunker's own stays
                await asyncio.sleep(0.01)


NO_ADDRESSES = ["", "bunker://", "bunker://abc?relay=ws://x", "nostrconnect://" + "0" * 64, "bunker://" + "0" * 64]


@pytest.mark.parametrize("text", [*NO_ADDRESSES, f"bunker://{'0' * 64}?relay=http://x"])
def test_what_is_no_signer_s_address_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_bunker(text)


def test_a_secret_is_in_no_representation():
    made = parse_bunker(f"bunker://{'0' * 64}?relay=wss://one.example.com&relay=wss://two.example.com&secret=hidden")
    assert "hidden" not in repr(made)
    assert parse_bunker(made.uri) == made


@pytest.mark.parametrize("address", ["javascript:alert(1)", "file:///etc/passwd", "https://x.test/\x1b[2Jyes", "yes"])
async def test_an_address_that_is_none_is_not_shown(address):
    """It goes to a terminal, and a person may click on it."""
    async with relay() as here, bunker(here.url) as made, wires() as wire:
        made.twist = lambda answer, method: {**answer, "result": "auth_url", "error": address}
        with pytest.raises(SignerUnavailable) as caught:
            await Pairings(wire, (here.url,), "vendo").meet(made.uri, 3)
        assert address not in str(caught.value) + caught.value.remedy
