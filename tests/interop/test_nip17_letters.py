"""NIP-17 letters between ours and three foreign clients, both ways, without a relay in between."""

import asyncio
import json
import time
from typing import Any

import pytest

from core.identifier import PubKey
from relays.event import Draft, Event, parse, verify
from relays.key import Key
from relays.kind import DM, GIFT_WRAP
from relays.local_signer import KeySigner
from relays.nip17 import rumor_id, unwrap, unwrap_by, wrap, wrap_by
from tests.conftest import ROOT

pytestmark = pytest.mark.needs("node")
CLIENTS = ("nostr-tools", "ndk", "applesauce")
TEXT = 'two lines\nand "quotes", \\ ünïcode ✓ 🍕🫃'
NOW = int(time.time())
OURS, THEIRS = Key.generate(), Key.generate()
FILE = 15


def _drafts() -> list[Draft]:
    to = ("p", str(THEIRS.pubkey))
    return [
        Draft(DM, TEXT, (to,), NOW),
        Draft(DM, "an answer", (to, ("e", "ab" * 32), ("subject", "a subject")), NOW - 5),
        Draft(DM, "to a group", (to, ("p", "cd" * 32)), NOW),
        Draft(DM, "x" * 20_000, (to,), NOW),
        Draft(7, "+", (to, ("e", "ab" * 32), ("k", "14")), NOW),
        Draft(
            FILE, "https://files.example/a", (to, ("file-type", "image/png"), ("encryption-algorithm", "aes-gcm")), NOW
        ),
    ]


async def exchange(wraps: list[Event]) -> dict[str, Any]:
    """What each client read and wrote."""
    process = await asyncio.create_subprocess_exec(
        "node", "letter.mjs", cwd=ROOT / "tests/interop/node",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    given = {
        "secret": THEIRS.secret.hex(),
        "peer": OURS.pubkey,
        "text": TEXT,
        "wraps": [json.loads(one.to_json()) for one in wraps],
    }
    try:
        out, err = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), 40)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert out, err.decode()
    letters: dict[str, Any] = json.loads(out)["letters"]
    return letters


@pytest.fixture(scope="module")
def letters() -> dict[str, Any]:
    async def talk() -> dict[str, Any]:
        wraps = [wrap(OURS, THEIRS.pubkey, draft) for draft in _drafts()]
        wraps += [await wrap_by(KeySigner(OURS), THEIRS.pubkey, draft) for draft in _drafts()]
        return {**await exchange(wraps), "at": int(time.time())}

    return asyncio.run(talk())


@pytest.mark.parametrize("client", CLIENTS)
def test_a_foreign_client_reads_what_ours_wraps(letters: dict[str, Any], client: str) -> None:
    assert "error" not in letters[client], letters[client]["error"]
    read = letters[client]["read"]
    wanted = [*_drafts(), *_drafts()]
    assert len(read) == len(wanted)
    for found, draft in zip(read, wanted, strict=True):
        assert found["pubkey"] == OURS.pubkey
        assert found["id"] == rumor_id(OURS.pubkey, draft)
        assert (found["kind"], found["content"], found["created_at"]) == (draft.kind, draft.content, draft.created_at)
        assert found["tags"] == [list(tag) for tag in draft.tags]


@pytest.mark.parametrize("client", CLIENTS)
async def test_ours_reads_what_a_foreign_client_wraps(letters: dict[str, Any], client: str) -> None:
    assert "error" not in letters[client], letters[client]["error"]
    event = parse(letters[client]["made"])
    verify(event)
    assert event.kind == GIFT_WRAP
    assert event.pubkey != THEIRS.pubkey, "a wrap is signed by a key used once"
    assert [tag[1] for tag in event.tags if tag[0] == "p"] == [OURS.pubkey]
    rumor = unwrap(OURS, event)
    assert rumor == await unwrap_by(KeySigner(OURS), event)
    assert (rumor.sender, rumor.kind, rumor.content) == (THEIRS.pubkey, DM, TEXT)
    assert rumor.values("p") == [OURS.pubkey]
    assert rumor.value("subject") == "a subject"
    assert abs(rumor.created_at - letters["at"]) < 120


@pytest.mark.parametrize("client", CLIENTS)
def test_two_clients_of_one_person_read_the_same_letter(letters: dict[str, Any], client: str) -> None:
    assert letters[client]["read"] == letters["nostr-tools"]["read"]


def test_no_client_reads_a_letter_to_another() -> None:
    wrong = wrap(OURS, PubKey(Key.generate().pubkey), _drafts()[0])
    found = asyncio.run(exchange([wrong]))
    assert all("error" in found[client] for client in CLIENTS), found
