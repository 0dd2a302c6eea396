"""Where a message goes, what is said of it, and what is not sent at all."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import NotFound
from fs.error import AccessDenied
from fs.session import Role, Session
from node.message.error import NotReady
from node.message.service import AgentMessenger, Reach
from node.storage.memory import MemoryDatabase
from relays.directory import Directory
from relays.event import Event
from relays.filter import Filter
from relays.key import Key, npub
from relays.kind import GIFT_WRAP
from relays.nip65 import dm_relays_draft, relay_list_draft
from relays.pool import Pool
from tests.integration.agent.node_part import AGENT, NAME, NODE_PERMIT, OWNER, STRANGER, Town, relay_at, town


def _guided(pool: Pool, unit: MemoryDatabase, _: object) -> Reach:
    return Reach(Directory(pool, unit, SystemClock()))


async def _wraps(here: Town, person: Key, relay: str) -> Sequence[Event]:
    wanted = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({person.pubkey})})
    return await here.people.fetch([wanted], 20, relays=[relay])


async def test_a_message_goes_to_the_relays_of_its_receivers_list_and_the_copy_to_our_own(
    relay: str, tmp_path: Path
) -> None:
    async with relay_at(tmp_path / "second") as second, town(relay, reach=_guided, more=[second]) as here:
        listed = STRANGER.sign(dm_relays_draft([second], SystemClock().now()))
        await here.people.send(relay, listed, NODE_PERMIT)
        await here.messages.send("operator", NAME, STRANGER.pubkey, "hello", "key")
        (effect,) = await here.settled("/nostr/dm/")
        assert effect["state"] == "commit"
        assert len(await _wraps(here, STRANGER, second)) == 1
        assert len(await _wraps(here, STRANGER, relay)) == 0

        async def copied() -> bool:
            return [len(await _wraps(here, AGENT, url)) for url in (relay, second)] == [1, 1]

        await here.until(copied)


async def test_somebody_of_whom_nothing_is_known_is_sent_nothing(relay: str) -> None:
    async with town(relay, reach=_guided) as here:
        with pytest.raises(NotReady):
            await here.messages.send("operator", NAME, STRANGER.pubkey, "hello", "key")
        for table in ("effect", "outbox", "message", "entry"):
            rows = [row for row in await here.rows(table) if row.get("path", "") != "/standing"]
            assert [row for row in rows if "nostr" in str(row)] == []


async def test_somebody_who_reads_on_our_relays_is_reached_there(relay: str) -> None:
    async with town(relay, reach=_guided) as here:
        listed = STRANGER.sign(relay_list_draft([relay], [], SystemClock().now()))
        await here.people.send(relay, listed, NODE_PERMIT)
        await here.messages.send("operator", NAME, STRANGER.pubkey, "hello", "key")
        assert await here.hear(STRANGER) == ["hello"]


async def test_the_owner_is_reached_without_any_list(relay: str) -> None:
    async with town(relay, reach=_guided) as here:
        await here.messages.send("operator", NAME, OWNER.pubkey, "hello", "key")
        assert await here.hear(OWNER) == ["hello"]


async def test_an_agent_that_is_not_there_sends_nothing(relay: str) -> None:
    async with town(relay) as here:
        with pytest.raises(NotFound):
            await here.messages.send("operator", "nobody", OWNER.pubkey, "hello", "key")


async def test_what_becomes_of_a_message_can_be_read_and_watched(relay: str) -> None:
    async with town(relay) as here:
        messenger = AgentMessenger(here.messages, NAME)
        await here.messages.send("operator", NAME, OWNER.pubkey, "first", "one")
        await here.settled("/nostr/dm/")
        stream = messenger.follow(0)
        seen = [await anext(stream)]
        assert (seen[0].type, b"first" in seen[0].data) == ("sent", True)
        await here.messages.send("operator", NAME, OWNER.pubkey, "second", "two")
        while seen[-1].type != "sent" or b"second" not in seen[-1].data:
            seen.append(await anext(stream))
        assert [one.id for one in seen] == sorted({one.id for one in seen})
        assert [one["text"] for one in await messenger.talk(OWNER.pubkey, 10)] == ["first", "second"]
        assert await messenger.talk(STRANGER.pubkey, 10) == []
        assert [one["state"] for one in await messenger.recent(10)] == ["sent", "sent"]


async def test_the_files_show_messages_and_let_only_the_operator_change_who_is_heard(relay: str) -> None:
    async with town(relay) as here:
        namespace = here.engine._means.namespaces(NAME)
        agent = Session(f"agent:{NAME}", Role.AGENT, "key", unit=here.unit)
        operator = Session("operator", Role.OPERATOR, "key", unit=here.unit)
        await namespace.call(f"/nostr/dm/{npub(OWNER.pubkey)}", b"hello", agent)
        assert b"hello" in await namespace.read(f"/nostr/dm/{npub(OWNER.pubkey)}", agent)
        assert b"hello" in await namespace.read("/nostr/messages", agent)
        with pytest.raises(AccessDenied):
            await namespace.write("/nostr/admission", b'{"strangers": "all"}', agent)
        assert here.messages.rules(NAME).strangers == "none"
        await namespace.write("/nostr/admission", b'{"strangers": "all"}', operator)
        assert here.messages.rules(NAME).strangers == "all"
        assert b'"all"' in await namespace.read("/nostr/admission", agent)
