"""Messages that another process of the node has written: the one that hears and settles for all goes on with them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from core.clock import SystemClock
from core.identifier import EffectId
from fs.feed import Feed
from node.gate.gate import NodeGate
from node.message.admission import Rules
from node.message.service import Messages, Reach
from node.message.shelf import Shelf
from node.message.voice import FixedVoices
from relays.key import npub
from relays.kind import FILE
from relays.local_signer import KeySigner
from relays.outbox import Outbox
from tests.integration.agent.node_part import AGENT, LIMITS, NAME, NODE, OWNER, STRANGER, Town, town
from tests.integration.message.blossom_part import FileServer, file_server
from tests.integration.message.test_file import DATA, _reach

CLOCK, NONE = SystemClock(), Reach()


class Beside:
    """Another process on the same database: it writes messages and sends the bytes of its own files, no more."""

    def __init__(self, here: Town, reach: Reach = NONE) -> None:
        self.gate = NodeGate(here.unit, CLOCK, LIMITS, NODE.pubkey)
        self.outbox = Outbox(here.pool, here.unit, CLOCK, self.gate.delivery)
        self.messages = Messages(
            here.pool, self.outbox, self.gate, here.unit, FixedVoices({NAME: KeySigner(AGENT)}),
            {NAME: Rules(contacts=frozenset({OWNER.pubkey}))}, CLOCK, lambda _: None, Feed(), reach,
        )  # fmt: skip


async def _beside(here: Town, reach: Reach = NONE) -> Beside:
    made = Beside(here, reach)
    await made.gate.load()
    return made


async def _adopt(here: Town) -> None:
    """What the steward does when the bell rings."""
    await here.gate.adopt()
    await here.messages.adopt()
    here.messages._outbound._outbox.look()


async def test_a_message_from_another_process_is_sent_once_and_settled(relay: str) -> None:
    async with town(relay) as here:
        other = await _beside(here)
        await other.messages.send("operator", NAME, OWNER.pubkey, "from elsewhere", "key")
        await asyncio.sleep(0.1)
        assert (await here.rows("effect", path=f"/nostr/dm/{npub(OWNER.pubkey)}"))[0]["state"] == "begun"
        for _ in range(3):
            await _adopt(here)
        assert await here.hear(OWNER) == ["from elsewhere"]
        (effect,) = await here.settled("/nostr/dm/")
        assert effect["state"] == "commit"
        assert [row["state"] for row in await here.rows("message")] == ["sent"]
        assert not other.messages._settlement._sent, "whoever does not settle keeps nothing"


async def test_whom_an_agent_wrote_to_first_elsewhere_may_answer_here(relay: str) -> None:
    async with town(relay) as here:
        other = await _beside(here)
        other.messages._doors[NAME].paid[STRANGER.pubkey] = 1 << 40  # it knows the way to them
        await other.messages.send("operator", NAME, STRANGER.pubkey, "hello", "key")
        assert STRANGER.pubkey not in here.messages._doors[NAME].written
        await _adopt(here)
        assert STRANGER.pubkey in here.messages._doors[NAME].written


@asynccontextmanager
async def _sending(other: Beside) -> AsyncIterator[None]:
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(other.messages.run_files(ready, stop))
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(running, 60)


async def test_a_file_is_put_up_by_the_process_that_has_its_bytes_and_settled_by_the_other(
    relay: str, tmp_path: Path
) -> None:
    async with file_server() as server:
        alive: set[EffectId] = set()

        async def is_theirs(effect: EffectId) -> bool:
            return effect in alive

        reach = _reach(tmp_path / "here", server.url)
        async with town(relay, reach=lambda *parts: replace(reach(*parts), is_theirs=is_theirs)) as here:
            other = await _beside(here, _reach(tmp_path / "there", server.url)())
            staged = await other.messages.stage_file("operator", NAME, OWNER.pubkey, DATA, "image/png", "key")
            await here.unit.commit(staged.writes)
            (effect,) = [row for row in await here.rows("effect") if row["path"].startswith("/nostr/file/")]
            alive.add(effect["id"])
            await _adopt(here)
            await here.messages.bury()
            await asyncio.sleep(0.2)
            (effect,) = [row for row in await here.rows("effect") if row["path"].startswith("/nostr/file/")]
            assert (effect["state"], server.blobs) == ("begun", {}), "its bytes are not here: hands off"
            async with _sending(other):
                assert staged.then is not None
                staged.then()
                await here.until(lambda: _is_up(server))
                await here.until(lambda: _in_outbox(here, effect["id"]))
                await _adopt(here)
                (effect,) = await here.settled("/nostr/file/")
            assert effect["state"] == "commit"
            assert len(server.blobs) == 1


async def _is_up(server: FileServer) -> bool:
    return bool(server.blobs)


async def _in_outbox(here: Town, effect: str) -> bool:
    return bool(await here.rows("outbox", effect_id=effect))


async def test_a_file_whose_process_is_dead_ends_as_failed(relay: str, tmp_path: Path) -> None:
    async with file_server() as server, town(relay, reach=_reach(tmp_path / "here", server.url)) as here:
        other = await _beside(here, _reach(tmp_path / "there", server.url)())
        staged = await other.messages.stage_file("operator", NAME, OWNER.pubkey, DATA, "image/png", "key")
        await here.unit.commit(staged.writes)
        await here.gate.adopt()
        await here.messages.bury()
        (effect,) = await here.settled("/nostr/file/")
        assert effect["state"] == "fail"
        assert [row["state"] for row in await here.rows("message", kind=FILE)] == ["failed"]


async def test_a_file_that_lies_with_another_process_is_asked_for_there(relay: str, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def ask(agent: str, ox: str) -> bytes | None:
        asked.append((agent, ox))
        return b"theirs"

    reach = Reach(shelf=Shelf(tmp_path, 1 << 20), ask=ask)
    async with town(relay, reach=lambda *_: reach) as here:
        assert await here.messages.file(NAME, "ab" * 32) == b"theirs"
        assert await here.messages.file(NAME, "../../secret") is None
    assert asked == [(NAME, "ab" * 32)]
