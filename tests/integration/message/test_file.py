"""Files over a real file server and a real relay: bounded, checked, and never for strangers."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.unit import Write
from node.agent.wake.event import grant
from node.agent.wake.interest import watch
from node.error import DiskLow
from node.message.admission import Rules, Strangers
from node.message.blossom import Blossom
from node.message.error import FileRefused, NoFileServer
from node.message.inbound import Taken
from node.message.service import Reach
from node.message.shelf import Shelf
from node.storage.error import StoreFull
from relays.event import Draft
from relays.file_message import FileMessage, encrypt_file, file_draft, read_file_message
from relays.key import Key
from relays.kind import FILE
from relays.nip17 import unwrap, wrap
from tests.integration.agent.node_part import AGENT, NAME, NODE_PERMIT, OWNER, STRANGER, Town, town
from tests.integration.message.blossom_part import FileServer, file_server

DATA = b"a picture of a cat" * 100


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as made:
        yield made


def _reach(folder: Path, *servers: str, most: int = 1 << 20, quota: int = 1 << 20) -> Callable[..., Reach]:
    def make(*_: object) -> Reach:
        return Reach(blossom=Blossom(servers, SystemClock(), most), shelf=Shelf(folder, quota))

    return make


def _draft(server: FileServer, data: bytes = DATA, url: str = "") -> Draft:
    """A file that somebody put there, and the message about it."""
    secret, nonce = b"s" * 32, b"n" * 12
    stored = encrypt_file(data, secret, nonce)
    x, ox = hashlib.sha256(stored).hexdigest(), hashlib.sha256(data).hexdigest()
    server.blobs[x] = stored
    message = FileMessage((url or f"{server.url}/{x}",), "image/png", secret, nonce, x, ox, len(stored))
    return file_draft(message, AGENT.pubkey, SystemClock().now())


async def _send(here: Town, sender: Key, draft: Draft) -> None:
    await here.people.send(here.relay, wrap(sender, AGENT.pubkey, draft), NODE_PERMIT)


async def _ended(here: Town, state: str) -> bool:
    rows = await here.rows("message", kind=FILE)
    return bool(rows) and rows[0]["state"] == state


async def test_a_contacts_file_is_fetched_checked_and_told_to_the_agent(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    async with town(relay, reach=_reach(tmp_path / "files", server.url)) as here:
        await here.unit.commit([*watch("boss", "files", 1, "nostr.file"), *grant("boss", True)])
        await _send(here, OWNER, _draft(server))
        await here.until(lambda: _ended(here, "received"))
        rows = [row for row in await here.rows("inbox") if "nostr.file" in row["payload"]]
        (row,) = [row for row in rows if row["agent"] == NAME]
        assert sorted(one["agent"] for one in rows) == sorted([NAME, "boss"]), "and those who see all"
        assert (row["cause"], row["sender"]) == ("event", OWNER.pubkey)
        facts = orjson.loads(row["payload"])["file"]
        ox = hashlib.sha256(DATA).hexdigest()
        assert facts == {"mime": "image/png", "size": len(DATA), "ox": ox, "path": f"/nostr/files/{ox}"}
        assert await here.messages.file(NAME, ox) == DATA
        assert await here.messages.files(NAME) == [ox]
        assert await here.messages.file(NAME, "../../secret") is None
        assert await here.messages.file("other", ox) is None


@pytest.mark.parametrize("strangers", [Strangers.NONE, Strangers.ALL])
async def test_nothing_is_fetched_for_a_stranger(
    relay: str, server: FileServer, tmp_path: Path, strangers: Strangers
) -> None:
    rules = replace(Rules(contacts=frozenset({OWNER.pubkey})), strangers=strangers)
    async with town(relay, rules=rules, reach=_reach(tmp_path, server.url)) as here:
        await _send(here, STRANGER, _draft(server))
        await here.until(lambda: here.messages.counts["stranger"] == 1)
        assert server.asked == []
        assert not await here.rows("message")


async def test_an_address_within_our_own_network_is_not_asked(relay: str, server: FileServer, tmp_path: Path) -> None:
    """The server is at 127.0.0.1 and is not named by the operator: a contact cannot make us look at it."""
    courier_tries = "node.message.courier.TRIES"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(courier_tries, 1)
        async with town(relay, reach=_reach(tmp_path)) as here:
            await _send(here, OWNER, _draft(server))
            await here.until(lambda: _ended(here, "dropped"))
            assert server.asked == []


async def test_a_redirect_does_not_lead_into_our_own_network_either(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    async with file_server() as inner:
        server.redirect = f"{inner.url}/"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("node.message.courier.TRIES", 1)
            async with town(relay, reach=_reach(tmp_path, server.url)) as here:
                await _send(here, OWNER, _draft(server))
                await here.until(lambda: _ended(here, "dropped"))
                assert len(server.asked) == 1
                assert inner.asked == []


async def test_other_bytes_than_were_announced_never_reach_the_agent(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    async with town(relay, reach=_reach(tmp_path, server.url)) as here:
        draft = _draft(server)
        server.blobs = dict.fromkeys(server.blobs, b"something else")
        await _send(here, OWNER, draft)
        await here.until(lambda: _ended(here, "dropped"))
        assert not [row for row in await here.rows("inbox") if "nostr.file" in row["payload"]]
        assert await here.messages.files(NAME) == []


@pytest.mark.parametrize("honest", [True, False])
async def test_a_file_that_is_too_large_is_not_fetched_whole(
    relay: str, server: FileServer, tmp_path: Path, honest: bool
) -> None:
    async with town(relay, reach=_reach(tmp_path, server.url, most=1_000)) as here:
        draft = _draft(server)
        if not honest:
            draft = replace(draft, tags=tuple(tag for tag in draft.tags if tag[0] != "size"))
        await _send(here, OWNER, draft)
        await here.until(lambda: _ended(here, "dropped"))
        assert len(server.asked) == (0 if honest else 1)
        assert await here.messages.files(NAME) == []


async def test_what_was_held_when_the_node_stopped_is_fetched_after_it(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    reach = _reach(tmp_path, server.url)
    async with town(relay, reach=reach) as here:
        here.messages._courier._later = lambda job: True  # it dies before it fetches
        await _send(here, OWNER, _draft(server))
        await here.until(lambda: _ended(here, "held"))
        kept = here.unit
    async with town(relay, kept, reach=reach) as again:
        await again.until(lambda: _ended(again, "received"))
        assert len(await again.messages.files(NAME)) == 1


async def test_the_oldest_files_go_when_there_is_too_much(relay: str, server: FileServer, tmp_path: Path) -> None:
    async with town(relay, reach=_reach(tmp_path, server.url, quota=4_000)) as here:
        for number in range(4):
            await _send(here, OWNER, _draft(server, bytes([number]) * 1_500))
            await here.until(lambda number=number: _received(here, number + 1))
        assert len(await here.messages.files(NAME)) == 2


async def _received(here: Town, count: int) -> bool:
    return len([row for row in await here.rows("message", kind=FILE) if row["state"] == "received"]) == count


# ---- out


async def _stage(here: Town, data: bytes = DATA, key: str = "key") -> str:
    staged = await here.messages.stage_file("operator", NAME, OWNER.pubkey, data, "image/png", key)
    if not staged.repeated:
        await here.unit.commit(staged.writes)
        assert staged.then is not None
        staged.then()
    return staged.message_id


async def test_a_file_is_put_on_the_server_encrypted_and_its_key_goes_to_the_receiver(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    async with town(relay, reach=_reach(tmp_path, server.url)) as here:
        message_id = await _stage(here)
        (effect,) = await here.settled("/nostr/file/")
        assert effect["state"] == "commit"
        assert [event["pubkey"] for event in server.uploads] == [AGENT.pubkey]
        (stored,) = server.blobs.values()
        assert DATA[:18] not in stored
        (row,) = await here.rows("message", kind=FILE)
        assert (row["id"], row["state"]) == (message_id, "sent")
        (wrapped,) = [w for w in await here.rows("outbox") if OWNER.pubkey in w["raw"]]
        rumor = unwrap(OWNER, _event(wrapped["raw"]))
        assert rumor.id == message_id
        message = read_file_message(rumor)
        assert message.urls == (f"{server.url}/{hashlib.sha256(stored).hexdigest()}",)
        ledger = "".join(one["raw"] for one in await here.rows("entry"))
        assert message.key.hex() not in ledger
        shown = orjson.dumps(await here.messages.history(NAME).recent(10)).decode()
        assert message.key.hex() not in shown


def _event(raw: str):
    from relays.event import parse_json

    return parse_json(raw)


async def test_a_server_that_is_tired_is_asked_again_and_one_that_stays_so_fails_the_message(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.message.courier._BACK_OFF_S", (0.01,))
        async with town(relay, reach=_reach(tmp_path, server.url)) as here:
            server.refuse = 2
            await _stage(here)
            (effect,) = await here.settled("/nostr/file/")
            assert effect["state"] == "commit"
            server.refuse = 1_000
            await _stage(here, key="again")
            await here.until(lambda: _failed(here))
            failed = [row for row in await here.rows("message", kind=FILE) if row["state"] == "failed"]
            assert "503" in failed[0]["reason"]
            assert "tired" in failed[0]["reason"]


async def _failed(here: Town) -> bool:
    return any(row["state"] == "fail" for row in await here.rows("effect"))


async def test_a_file_that_was_begun_before_a_crash_goes_out_after_it(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    reach = _reach(tmp_path, server.url)
    async with town(relay, reach=reach) as here:
        here.messages._courier._later = lambda job: True  # it dies before the upload
        first = await _stage(here)
        assert server.blobs == {}
        kept = here.unit
    async with town(relay, kept, reach=reach) as again:
        (effect,) = await again.settled("/nostr/file/")
        assert effect["state"] == "commit"
        assert len(server.uploads) == 1
        assert await _stage(again) == first, "the same key is the same message"


async def test_without_a_server_or_with_too_much_nothing_begins(relay: str, tmp_path: Path) -> None:
    async with town(relay, reach=_reach(tmp_path)) as here:
        with pytest.raises(NoFileServer):
            await _stage(here)
        with pytest.raises(FileRefused):
            await _stage(here, b"x" * (1 << 20))
        assert not [row for row in await here.rows("effect") if row["path"].startswith("/nostr/")]
    async with town(relay) as here:
        with pytest.raises(NoFileServer):
            await _stage(here)


async def test_a_file_is_taken_after_all_when_the_database_did_not_take_it_at_first(
    relay: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.message.courier._AGAIN_S", 0.02)
    async with town(relay, reach=_reach(tmp_path / "files", server.url)) as here:
        take, fails = here.messages._inbound.take_file, [StoreFull(), StoreFull()]

        async def full(taken: Taken, facts: dict[str, Any], *writes: Write) -> None:
            if fails:
                raise fails.pop()
            await take(taken, facts, *writes)

        here.messages._inbound.take_file = full
        await _send(here, OWNER, _draft(server))
        await here.until(lambda: _ended(here, "received"))


async def test_a_disk_that_is_full_for_a_moment_loses_no_file(
    relay: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.message.courier._AGAIN_S", 0.02)
    async with town(relay, reach=_reach(tmp_path / "files", server.url)) as here:
        (tmp_path / "files").write_bytes(b"in the way")
        await _send(here, OWNER, _draft(server))
        await here.until(lambda: server.asked)
        await asyncio.sleep(0.05)
        (tmp_path / "files").unlink()
        await here.until(lambda: _ended(here, "received"))


async def test_nothing_is_fetched_while_the_disk_is_nearly_full_and_it_is_later(
    relay: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.message.courier._AGAIN_S", 0.02)
    low = True

    def check() -> None:
        if low:
            raise DiskLow

    made = _reach(tmp_path / "files", server.url)
    async with town(relay, reach=lambda *_: replace(made(), shelf=Shelf(tmp_path / "files", 1 << 20, check))) as here:
        await _send(here, OWNER, _draft(server))
        await asyncio.sleep(0.5)
        assert not server.asked
        low = False
        await here.until(lambda: _ended(here, "received"))


async def test_a_file_of_an_agent_that_is_gone_ends_and_leaves_nothing_behind(
    relay: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with town(relay, reach=_reach(tmp_path / "files", server.url)) as here:
        staged = await here.messages.stage_file("operator", NAME, OWNER.pubkey, DATA, "image/png", "key")
        await here.unit.commit(staged.writes)
        here.messages._voices._signers.clear()
        staged.then()
        (effect,) = await here.settled("/nostr/file/")
        assert effect["state"] == "fail"
        await here.until(lambda: list((tmp_path / "files" / "out").iterdir()) == [])


async def test_what_was_staged_and_never_sent_does_not_stay_on_the_disk(
    relay: str, server: FileServer, tmp_path: Path
) -> None:
    reach, folder = _reach(tmp_path / "files", server.url), tmp_path / "files" / "out"
    async with town(relay, reach=reach) as here:
        for number in range(3):  # ticks that were never committed
            await here.messages.stage_file("operator", NAME, OWNER.pubkey, DATA, "image/png", f"key{number}")
        kept_file = await here.messages.stage_file("operator", NAME, OWNER.pubkey, DATA, "image/png", "kept")
        await here.unit.commit(kept_file.writes)
        assert len(list(folder.iterdir())) == 4
        kept = here.unit
    async with town(relay, kept, reach=reach) as again:
        assert (await again.settled("/nostr/file/"))[0]["state"] == "commit"
        await again.until(lambda: list(folder.iterdir()) == [])
