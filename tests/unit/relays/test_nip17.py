"""Private messages: what is checked when one is opened."""

from dataclasses import replace

import nostr_sdk
import orjson
import pytest

from core.error import InvalidInput
from core.identifier import PubKey
from relays.error import NotForUs
from relays.event import Draft, Event, verify
from relays.key import Key
from relays.local_signer import KeySigner
from relays.nip17 import BACKDATE_S, open_seal, open_wrap, rumor_id, unwrap, unwrap_by, wrap, wrap_by

ALICE, BOB, EVE = Key.generate(), Key.generate(), Key.generate()
DRAFT = Draft(14, "héllo", (("p", BOB.pubkey), ("e", "a" * 64, "ws://r")), 1_800_000_000)


def gift(sealer: Key, rumor: dict[str, object], *, seal_kind: int = 13, forge: bool = False) -> Event:
    """A wrap for Bob made by hand, as an attacker would."""
    seal = sealer.sign(Draft(seal_kind, sealer.encrypt(BOB.pubkey, orjson.dumps(rumor).decode()), (), 1))
    if forge:
        seal = replace(seal, sig=EVE.sign(Draft(1, "", (), 1)).sig)
    once = Key.generate()
    return once.sign(Draft(1059, once.encrypt(BOB.pubkey, seal.to_json()), (("p", BOB.pubkey),), 1))


def rumor(author: Key) -> dict[str, object]:
    return {
        "id": rumor_id(author.pubkey, DRAFT),
        "pubkey": author.pubkey,
        "kind": DRAFT.kind,
        "content": DRAFT.content,
        "tags": [list(tag) for tag in DRAFT.tags],
        "created_at": DRAFT.created_at,
    }


def test_both_copies_hold_the_same_rumor_and_say_nothing_about_the_sender() -> None:
    theirs, ours = wrap(ALICE, BOB.pubkey, DRAFT), wrap(ALICE, ALICE.pubkey, DRAFT)
    verify(theirs)
    assert theirs.kind == 1059
    assert theirs.value("p") == BOB.pubkey
    assert ALICE.pubkey not in theirs.to_json()
    assert theirs.created_at <= DRAFT.created_at or theirs.created_at != DRAFT.created_at
    opened, own = unwrap(BOB, theirs), unwrap(ALICE, ours)
    assert opened == own
    assert (opened.sender, opened.kind, opened.content, opened.tags) == (ALICE.pubkey, 14, "héllo", DRAFT.tags)
    assert opened.id == rumor_id(ALICE.pubkey, DRAFT)
    assert opened.value("e") == "a" * 64


def test_only_the_receiver_opens_it() -> None:
    with pytest.raises(NotForUs):
        unwrap(EVE, wrap(ALICE, BOB.pubkey, DRAFT))


def test_a_rumor_made_by_hand_is_opened_with_or_without_its_id() -> None:
    assert unwrap(BOB, gift(ALICE, rumor(ALICE))).sender == ALICE.pubkey
    without = rumor(ALICE)
    del without["id"]
    assert unwrap(BOB, gift(ALICE, without)).id == rumor_id(ALICE.pubkey, DRAFT)


def test_nobody_can_speak_for_another() -> None:
    with pytest.raises(NotForUs, match="another author"):
        unwrap(BOB, gift(EVE, rumor(ALICE)))


@pytest.mark.parametrize(
    "wrapped",
    [
        gift(ALICE, rumor(ALICE), forge=True),
        gift(ALICE, rumor(ALICE), seal_kind=1),
        gift(ALICE, rumor(ALICE) | {"id": "0" * 64}),
        gift(ALICE, rumor(ALICE) | {"content": "changed"}),
        gift(ALICE, rumor(ALICE) | {"tags": "x"}),
        gift(ALICE, {}),
        gift(ALICE, []),
        BOB.sign(Draft(1, "not a wrap", (), 1)),
        EVE.sign(Draft(1059, "not encrypted", (("p", BOB.pubkey),), 1)),
        EVE.sign(Draft(1059, EVE.encrypt(BOB.pubkey, "not json"), (("p", BOB.pubkey),), 1)),
        EVE.sign(Draft(1059, EVE.encrypt(BOB.pubkey, "[1]"), (("p", BOB.pubkey),), 1)),
    ],
)
def test_what_is_not_a_whole_honest_wrap_is_not_opened(wrapped: Event) -> None:
    with pytest.raises(NotForUs):
        unwrap(BOB, wrapped)


def test_a_message_that_does_not_fit_or_has_no_receiver_is_refused() -> None:
    with pytest.raises(InvalidInput):
        wrap(ALICE, BOB.pubkey, replace(DRAFT, content="x" * 70_000))
    with pytest.raises(InvalidInput):
        wrap(ALICE, BOB.pubkey, replace(DRAFT, content="x" * 45_000))
    with pytest.raises(InvalidInput):
        wrap(ALICE, PubKey("0" * 64), DRAFT)


def test_nostr_sdk_opens_ours() -> None:
    event = nostr_sdk.Event.from_json(wrap(ALICE, BOB.pubkey, DRAFT).to_json())
    assert event.verify()
    opened = nostr_sdk.UnwrappedGift.from_gift_wrap(BOB.sdk, event)
    inside = orjson.loads(opened.rumor().as_json())
    assert opened.sender().to_hex() == ALICE.pubkey
    assert (inside["content"], inside["tags"]) == (DRAFT.content, [list(tag) for tag in DRAFT.tags])
    assert inside["id"] == rumor_id(ALICE.pubkey, DRAFT)


def test_we_open_nostr_sdks() -> None:
    made = nostr_sdk.nip17_make_private_msg(
        ALICE.sdk,
        nostr_sdk.PublicKey.parse(BOB.pubkey),
        "from the sdk",
        rumor_extra_tags=[nostr_sdk.Tag.parse(["subject", "x"])],
    )
    event = orjson.loads(made.as_json())
    from relays.event import verified

    opened = unwrap(BOB, verified(event))
    assert (opened.sender, opened.kind, opened.content) == (ALICE.pubkey, 14, "from the sdk")
    assert opened.value("subject") == "x"


class _Far(KeySigner):
    """A signer that counts what it was asked, as one far away would be."""

    __slots__ = ("decrypted",)

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.decrypted = 0

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        self.decrypted += 1
        return await super().decrypt(peer, payload)


async def test_what_a_signer_wraps_a_key_opens_and_the_other_way_round() -> None:
    event = await wrap_by(KeySigner(ALICE), BOB.pubkey, DRAFT)
    verify(event)
    assert unwrap(BOB, event) == await unwrap_by(KeySigner(BOB), wrap(ALICE, BOB.pubkey, DRAFT))
    assert unwrap(BOB, event).id == rumor_id(ALICE.pubkey, DRAFT)
    assert ALICE.pubkey not in event.to_json()


async def test_wraps_are_dated_back_by_up_to_two_days_and_never_ahead() -> None:
    for number in (0, 1, BACKDATE_S - 1):
        event = await wrap_by(KeySigner(ALICE), BOB.pubkey, DRAFT, random=lambda _, number=number: number)
        assert event.created_at == DRAFT.created_at - number


@pytest.mark.parametrize(
    "event",
    [
        gift(ALICE, rumor(EVE)),
        gift(ALICE, rumor(ALICE), seal_kind=1),
        gift(ALICE, rumor(ALICE), forge=True),
        gift(ALICE, {**rumor(ALICE), "content": "changed"}),
        gift(ALICE, {"kind": 14}),
        ALICE.sign(Draft(1, "x", (), 1)),
    ],
)
async def test_a_signer_makes_the_same_checks(event: Event) -> None:
    with pytest.raises(NotForUs):
        unwrap(BOB, event)
    with pytest.raises(NotForUs):
        await unwrap_by(KeySigner(BOB), event)


async def test_half_of_the_work_tells_who_wrote() -> None:
    signer = _Far(BOB)
    seal = await open_wrap(signer, wrap(ALICE, BOB.pubkey, DRAFT))
    assert (seal.pubkey, signer.decrypted) == (ALICE.pubkey, 1)
    assert (await open_seal(signer, seal)).content == DRAFT.content


async def test_what_does_not_fit_one_event_is_refused_by_both() -> None:
    long = Draft(14, "x" * 40_000, (), 1)
    with pytest.raises(InvalidInput):
        wrap(ALICE, BOB.pubkey, long)
    with pytest.raises(InvalidInput):
        await wrap_by(KeySigner(ALICE), BOB.pubkey, long)
