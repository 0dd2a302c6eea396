import pytest

from relays.embedded.trait import address, deleted_addresses, deleted_ids, expiry, indexed_tags, is_protected
from tests.unit.relays.embedded.event_part import ALICE, BOB, note


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(0, "0:{}:"), (3, "3:{}:"), (10_002, "10002:{}:"), (30_023, "30023:{}:x"), (1, None), (20_001, None), (5, None)],
)
def test_the_address_of_an_event_follows_its_kind(kind, expected):
    event = note(kind=kind, with_tags=[("d", "x")])
    assert address(event) == (expected and expected.format(ALICE.pubkey))


def test_an_addressable_event_without_d_has_an_empty_identifier():
    assert address(note(kind=30_000)) == f"30000:{ALICE.pubkey}:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", 12), ("-1", None), ("1.5", None), ("²", None), ("soon", None), ("", None), ("9" * 16, 1 << 53)],
)
def test_only_a_plain_number_is_an_expiry(text, expected):
    assert expiry(note(with_tags=[("expiration", text)])) == expected


def test_an_expiration_tag_without_a_value_is_none():
    assert expiry(note(with_tags=[("expiration",)])) is None


def test_single_letter_tags_with_a_value_are_indexed_once():
    tags = [("e", "1"), ("e", "1", "more"), ("E", "2"), ("p",), ("alt", "no"), ("é", "no"), ("1", "no"), ("-", "no")]
    assert indexed_tags(note(with_tags=tags)) == {("e", "1"), ("E", "2")}


def test_a_protected_event_carries_a_dash():
    assert is_protected(note(with_tags=[("-",)]))
    assert not is_protected(note(with_tags=[("t", "-")]))


def test_a_deletion_names_only_whole_ids_and_its_own_addresses():
    mine, other = ALICE.pubkey, BOB.pubkey
    wanted = [("e", "a" * 64), ("e", "short"), ("e", "a" * 64), ("a", f"30023:{mine}:x:y"), ("a", f"30023:{other}:x")]
    event = note(
        kind=5, with_tags=[*wanted, ("a", f"10002:{mine}"), ("a", f"1:{mine}:"), ("a", "junk"), ("a", f"x:{mine}:")]
    )
    assert deleted_ids(event) == ["a" * 64]
    assert deleted_addresses(event) == [f"30023:{mine}:x:y", f"10002:{mine}:"]
