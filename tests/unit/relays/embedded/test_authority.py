import pytest

from relays.embedded.authority import Authority, Name, names_of
from relays.embedded.limit import Limits
from relays.event import Draft
from relays.key import Key
from relays.keylist import consent_draft, consent_of, list_drafts, parse_list
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW

NAMES = names_of("wss://relay.example.com", "127.0.0.1", 7777)


def auth(key=ALICE, relay="wss://relay.example.com", challenge="c", at=NOW, kind=22_242):
    return key.sign(Draft(kind, "", (("relay", relay), ("challenge", challenge)), at))


@pytest.fixture
def authority():
    return Authority("c", NAMES, Limits(keys=3, listed_keys=4))


@pytest.mark.parametrize(
    "relay",
    [
        "wss://relay.example.com",
        "wss://relay.example.com/",
        "wss://RELAY.example.com:443",
        "ws://relay.example.com",
        "wss://relay.example.com/some/path",
        "ws://127.0.0.1:7777",
        "ws://localhost:7777/",
        "ws://[::1]:7777",
    ],
)
def test_an_auth_for_this_relay_proves_its_key(authority, relay):
    assert authority.prove(auth(relay=relay), NOW) == ""
    assert authority.readers == authority.authors == {ALICE.pubkey}


@pytest.mark.parametrize(
    "event",
    [
        auth(relay="wss://relay.example.com.evil.org"),
        auth(relay="wss://evil.org"),
        auth(relay="wss://relay.example.com:8443"),
        auth(relay="ws://127.0.0.1:7778"),
        auth(relay="ws://127.0.0.1"),
        auth(relay="wss://user@evil.org/relay.example.com"),
        auth(relay=""),
        auth(relay="relay.example.com"),
        auth(relay="wss://relay.example.com:99999"),
        auth(challenge="other"),
        auth(challenge=""),
        auth(at=NOW - 601),
        auth(at=NOW + 601),
        auth(kind=1),
        auth(kind=22_243),
    ],
)
def test_any_other_auth_is_refused(authority, event):
    assert authority.prove(event, NOW).startswith("invalid: ")
    assert not authority.readers


def test_a_forged_auth_is_refused(authority):
    from dataclasses import replace

    assert authority.prove(replace(auth(), pubkey=BOB.pubkey), NOW).startswith("invalid: ")
    assert authority.prove(replace(auth(), sig="0" * 128), NOW).startswith("invalid: ")
    assert not authority.readers


def test_keys_accumulate_up_to_a_bound_and_a_known_one_may_come_again(authority):
    keys = [Key(bytes([number]) * 32) for number in range(1, 5)]
    assert [authority.prove(auth(key), NOW) for key in keys[:3]] == ["", "", ""]
    assert authority.prove(auth(keys[3]), NOW).startswith("restricted: ")
    assert authority.prove(auth(keys[0], at=NOW + 1), NOW) == ""
    assert authority.authors == {key.pubkey for key in keys[:3]}


def listed(node=ALICE, relay="wss://relay.example.com", many=2):
    agents = [Key(bytes([7]) * 31 + bytes([number])) for number in range(1, many + 1)]
    consents = [consent_of(one.sign(consent_draft(node.pubkey, relay, NOW, NOW + 60))) for one in agents]
    (draft,) = list_drafts(relay, consents, NOW)
    return parse_list(node.sign(draft), NOW)


def test_a_list_needs_the_auth_of_its_node_and_this_relay_and_room(authority):
    assert authority.refuse_list(listed()).startswith("auth-required: ")
    authority.prove(auth(), NOW)
    assert authority.refuse_list(listed()) == ""
    assert authority.refuse_list(listed(relay="wss://evil.org")).startswith("invalid: ")
    assert authority.refuse_list(listed(node=BOB)).startswith("auth-required: ")
    assert authority.refuse_list(listed(many=5)).startswith("restricted: ")


def test_listed_keys_may_read_and_are_no_authors(authority):
    authority.prove(auth(), NOW)
    authority.admit({BOB.pubkey})
    assert authority.readers == {ALICE.pubkey, BOB.pubkey}
    assert authority.authors == {ALICE.pubkey}
    assert authority.refuse_list(listed(many=4)).startswith("restricted: ")


def test_without_a_public_name_only_the_address_that_was_reached_counts():
    assert names_of("", "203.0.113.5", 7777) == {Name("203.0.113.5", 7777)}
    assert Name("localhost", 7777) in names_of("", "127.0.0.1", 7777)
    assert Name("203.0.113.5", 443) in names_of("", "::ffff:203.0.113.5", 80)
