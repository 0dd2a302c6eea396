"""Old encrypted messages: read, answered, and refused where they are not what they seem."""

import nostr_sdk
import pytest

from core.error import InvalidInput
from relays.error import NotForUs
from relays.event import Draft
from relays.key import Key
from relays.local_signer import KeySigner
from relays.nip04 import legacy_draft, read_legacy, receiver_of

ALICE, BOB, EVE = Key.generate(), Key.generate(), Key.generate()


async def test_a_foreign_library_reads_what_we_write_and_we_read_what_it_writes() -> None:
    draft = await legacy_draft(KeySigner(ALICE), BOB.pubkey, "héllo 🙂", 1_800_000_000)
    event = ALICE.sign(draft)
    assert receiver_of(event) == BOB.pubkey
    theirs = nostr_sdk.nip04_decrypt(BOB.sdk.secret_key(), nostr_sdk.PublicKey.parse(ALICE.pubkey), event.content)
    assert theirs == "héllo 🙂"
    foreign = nostr_sdk.nip04_encrypt(BOB.sdk.secret_key(), nostr_sdk.PublicKey.parse(ALICE.pubkey), "back")
    answer = BOB.sign(Draft(4, foreign, (("p", ALICE.pubkey),), 1))
    assert await read_legacy(KeySigner(ALICE), answer) == "back"


async def test_only_the_receiver_reads_it() -> None:
    event = ALICE.sign(await legacy_draft(KeySigner(ALICE), BOB.pubkey, "x" * 100, 1))
    with pytest.raises(NotForUs):
        await read_legacy(KeySigner(EVE), event)


@pytest.mark.parametrize(
    "draft",
    [
        Draft(14, "a?iv=b", (), 1),
        Draft(4, "no vector", (), 1),
        Draft(4, "AAAA?iv=AAAA", (), 1),
        Draft(4, "A" * 70_000 + "?iv=AAAA", (), 1),
    ],
)
async def test_what_is_no_such_message_is_refused(draft: Draft) -> None:
    with pytest.raises(NotForUs):
        await read_legacy(KeySigner(BOB), ALICE.sign(draft))


async def test_a_text_that_fits_no_event_is_refused() -> None:
    with pytest.raises(InvalidInput):
        await legacy_draft(KeySigner(ALICE), BOB.pubkey, "x" * 60_000, 1)


def test_a_message_to_two_people_is_to_none() -> None:
    both = ALICE.sign(Draft(4, "", (("p", BOB.pubkey), ("p", EVE.pubkey)), 1))
    assert receiver_of(both) is None
    assert receiver_of(ALICE.sign(Draft(4, "", (), 1))) is None
