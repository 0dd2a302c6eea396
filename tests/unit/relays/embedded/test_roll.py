"""Verified consents are remembered; nothing else is taken for one of them."""

from dataclasses import replace

import pytest

from relays.embedded import roll
from relays.embedded.roll import Roll, check, keys_of
from relays.key import Key
from relays.keylist import Consent, KeyList, consent_draft, consent_of
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW

RELAY = "wss://relay.example.com"


def consent(key):
    return consent_of(key.sign(consent_draft(ALICE.pubkey, RELAY, NOW, NOW + 60)))


GOOD = KeyList(ALICE.pubkey, RELAY, tuple(consent(Key(bytes([number]) * 32)) for number in range(3, 8)), (BOB.pubkey,))


def test_a_second_list_with_the_same_consents_has_nothing_left_to_verify():
    known = Roll()
    assert known.unknown(GOOD) == GOOD
    known.remember(GOOD)
    assert known.unknown(GOOD) == replace(GOOD, consents=())
    more = replace(GOOD, consents=(*GOOD.consents, consent(BOB)))
    assert [one.pubkey for one in known.unknown(more).consents] == [BOB.pubkey]
    assert keys_of(GOOD) == {BOB.pubkey, *(one.pubkey for one in GOOD.consents)}


@pytest.mark.parametrize(
    "other",
    [
        replace(GOOD, node=BOB.pubkey),
        replace(GOOD, relay=RELAY + "/other"),
        replace(GOOD, consents=tuple(replace(one, expires_at=one.expires_at + 1) for one in GOOD.consents)),
        replace(GOOD, consents=tuple(replace(one, issued_at=one.issued_at - 1) for one in GOOD.consents)),
        replace(GOOD, consents=tuple(replace(one, pubkey=BOB.pubkey) for one in GOOD.consents)),
    ],
    ids=["node", "relay", "end", "begin", "key"],
)
def test_whatever_else_the_signature_stands_under_is_verified(other):
    known = Roll()
    known.remember(GOOD)
    assert len(known.unknown(other).consents) == len(other.consents)
    assert check(other, frozenset({ALICE.pubkey, BOB.pubkey})).startswith("invalid:")


def test_a_bare_key_is_asked_about_each_time():
    known = Roll()
    known.remember(GOOD)
    assert check(known.unknown(GOOD), frozenset()).startswith("invalid:")
    assert check(known.unknown(GOOD), frozenset({ALICE.pubkey})) == ""


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(roll, "_MOST", 100)
    known = Roll()
    for number in range(300):
        known.remember(replace(GOOD, consents=(Consent(BOB.pubkey, NOW, NOW + number + 1, "0" * 128),)))
    assert len(known) == 100
