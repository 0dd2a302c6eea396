"""An agent whose signer is far away and slow: nobody else waits for it, and nothing is lost while it is away."""

import asyncio
from typing import Any

from core.clock import SystemClock
from core.error import InvalidInput
from core.identifier import PubKey
from node.message import afar
from node.message.admission import Rules, Strangers
from node.message.voice import FixedVoices
from relays.bunker import RemoteSigner
from relays.error import SignerUnavailable
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DM
from relays.local_signer import KeySigner
from relays.nip04 import legacy_draft
from relays.nip17 import wrap
from tests.integration.agent.node_part import AGENT, NAME, NODE_PERMIT, OWNER, STRANGER, Town, town
from tests.integration.message.test_inbound import mined

FAR = Key(b"\x21" * 32)


class Distant(RemoteSigner):
    """A remote signer whose talk is with nobody: it answers as a key, when it is there."""

    def __init__(self, key: Key) -> None:
        self._key, self.back, self.asked = key, asyncio.Event(), 0

    @property
    def pubkey(self) -> PubKey:
        return self._key.pubkey

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        return await self._answer(lambda: self._key.decrypt(peer, payload))

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        return await self._answer(lambda: self._key.decrypt_legacy(peer, payload))

    async def sign(self, draft: Draft) -> Event:
        return self._key.sign(draft)

    async def _answer(self, answer: Any) -> str:
        self.asked += 1
        if self.asked == 1:
            raise SignerUnavailable
        await self.back.wait()
        return answer()


def _put_far(here: Town, signer: Distant) -> None:
    """Give the town's second agent its distant signer; the pool authenticates with the key itself."""
    here.messages._voices = FixedVoices({NAME: KeySigner(AGENT), "far": signer})
    here.messages.attach("far", SystemClock().now())


async def _say(here: Town, to: PubKey, text: str) -> None:
    draft = Draft(DM, text, (("p", to),), SystemClock().now())
    await here.people.send(here.relay, wrap(OWNER, to, draft), NODE_PERMIT)


async def _texts(here: Town, agent: str) -> list[str]:
    return [row["text"] for row in await here.rows("message", agent=agent, kind=DM)]


async def _has(here: Town, agent: str, count: int) -> bool:
    return len(await _texts(here, agent)) == count


async def _held(here: Town, count: int) -> bool:
    return len(await here.rows("message", state="held")) == count


async def test_nobody_waits_for_a_distant_signer_and_nothing_is_lost(relay: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(afar, "_BACK_OFF_S", (0.05,))
    agents, signer = {NAME: AGENT, "far": FAR}, Distant(FAR)
    async with town(relay, agents=agents) as here:
        _put_far(here, signer)
        for number in range(3):
            await _say(here, FAR.pubkey, f"ask: {number}")
        old = await legacy_draft(KeySigner(OWNER), FAR.pubkey, "ask: by the old way", SystemClock().now())
        await here.people.send(relay, OWNER.sign(old), NODE_PERMIT)
        await here.until(lambda: _held(here, 4))
        await here.until(lambda: signer.asked == 2)
        await _say(here, AGENT.pubkey, "ask: near")
        await here.until(lambda: _has(here, NAME, 1))
        assert await _texts(here, "far") == []
        signer.back.set()
        await here.until(lambda: _has(here, "far", 4))
        await here.until(lambda: _held(here, 0))
        shown = await here.messages.history("far").recent(10)
        assert {one["kind"] for one in shown} == {DM}


async def test_what_waited_for_the_signer_is_opened_after_a_restart(relay: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(afar, "_BACK_OFF_S", (0.05,))
    agents = {NAME: AGENT, "far": FAR}
    async with town(relay, agents=agents) as here:
        _put_far(here, Distant(FAR))
        await _say(here, FAR.pubkey, "ask: hello")
        await here.until(lambda: _held(here, 1))
        kept = here.unit
    async with town(relay, kept, agents=agents) as again:
        await again.until(lambda: _has(again, "far", 1))
        await again.until(lambda: _held(again, 0))


async def test_a_flood_for_a_distant_signer_is_bounded(relay: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(afar, "MAX_HELD", 5)
    async with town(relay, agents={NAME: AGENT, "far": FAR}) as here:
        signer = Distant(FAR)
        _put_far(here, signer)
        for number in range(12):
            await _say(here, FAR.pubkey, f"ask: {number}")
        await here.until(lambda: here.messages._afar.counts["shed"] == 7)
        assert await _held(here, 5)


class Picky(Distant):
    """As the real one does: what is too long for NIP-46 cannot even be asked, and some junk is never answered."""

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        if payload.count('"') > 1_000:
            raise InvalidInput("The request is too long.")
        if payload.startswith("silence"):
            raise SignerUnavailable
        return self._key.decrypt(peer, payload)


async def test_a_strangers_junk_that_cannot_be_asked_about_makes_nobody_deaf(relay: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(afar, "_BACK_OFF_S", (0.02,))
    agents = {NAME: AGENT, "far": FAR}
    async with town(relay, agents=agents) as here:
        _put_far(here, Picky(FAR))
        once, now = Key.generate(), SystemClock().now()
        for junk in ('"' * 40_000, "silence"):
            wrap_of_junk = once.sign(Draft(1059, junk, (("p", FAR.pubkey),), now))
            await here.people.send(relay, wrap_of_junk, NODE_PERMIT)
        await here.until(lambda: _held(here, 1))
        await _say(here, FAR.pubkey, "ask: from the owner")
        await here.until(lambda: _has(here, "far", 1))
        await here.until(lambda: _held(here, 1))


async def test_work_on_a_wrap_counts_after_a_restart_too(relay: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(afar, "_BACK_OFF_S", (0.05,))
    agents = {NAME: AGENT, "far": FAR}
    rules = Rules(contacts=frozenset({OWNER.pubkey}), strangers=Strangers.POW, pow_bits=4)
    worked = mined(STRANGER, FAR.pubkey, 4)
    async with town(relay, agents=agents, rules=rules) as here:
        _put_far(here, Distant(FAR))
        await here.people.send(relay, worked, NODE_PERMIT)
        await here.until(lambda: _held(here, 1))
        kept = here.unit
    async with town(relay, kept, agents=agents, rules=rules) as again:
        await again.until(lambda: _held(again, 0))
        assert await _texts(again, "far") == ["worked"]
