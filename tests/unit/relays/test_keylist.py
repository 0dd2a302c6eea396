"""Key lists and consents: what is believed, and what is refused."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relays.error import ForgedEvent, MalformedEvent
from relays.event import Draft, parse
from relays.key import Key
from relays.keylist import (
    CONSENT_LIFE_S,
    MAX_LIST_BYTES,
    Consent,
    capacity,
    consent_draft,
    consent_of,
    list_drafts,
    parse_list,
    proved_keys,
)
from relays.kind import KEY_CONSENT, KEY_LIST

NODE, OTHER = Key(b"\1" * 32), Key(b"\2" * 32)
AGENTS = [Key(bytes([9]) * 31 + bytes([number])) for number in range(1, 6)]
RELAY = "wss://relay.example.com"
NOW = 1_700_000_000
LATER = NOW + 86_400 * 30


def consent(agent=AGENTS[0], node=NODE, relay=RELAY, now=NOW, until=LATER):
    return consent_of(agent.sign(consent_draft(node.pubkey, relay, now, until)))


def listed(entries, node=NODE, relay=RELAY, now=NOW):
    (draft,) = list_drafts(relay, entries, now)
    return node.sign(draft)


def test_consented_keys_are_proved():
    event = listed([consent(agent) for agent in AGENTS])
    found = parse_list(event, NOW)
    assert (found.node, found.relay) == (NODE.pubkey, RELAY)
    assert proved_keys(found, ()) == {agent.pubkey for agent in AGENTS}


def test_bare_keys_are_believed_of_a_trusted_node_only():
    found = parse_list(listed([agent.pubkey for agent in AGENTS]), NOW)
    assert proved_keys(found, {NODE.pubkey}) == {agent.pubkey for agent in AGENTS}
    with pytest.raises(MalformedEvent):
        proved_keys(found, {OTHER.pubkey})


@pytest.mark.parametrize(
    "bad",
    [
        consent(node=OTHER),
        consent(relay="wss://elsewhere.example.com"),
        Consent(AGENTS[1].pubkey, NOW, LATER, consent().sig),
        Consent(AGENTS[0].pubkey, NOW, LATER + 1, consent().sig),
        Consent(AGENTS[0].pubkey, NOW - 1, LATER, consent().sig),
        Consent(AGENTS[0].pubkey, NOW, LATER, "0" * 128),
        Consent(OTHER.pubkey[:-1] + "0", NOW, LATER, consent().sig),
    ],
    ids=["other node", "other relay", "other key", "longer", "earlier", "no signature", "no such key"],
)
def test_one_consent_that_is_not_for_this_list_refuses_all_of_it(bad):
    found = parse_list(listed([consent(AGENTS[2]), bad]), NOW)
    with pytest.raises((ForgedEvent, MalformedEvent)):
        proved_keys(found, ())


@pytest.mark.parametrize(
    ("made", "read"),
    [(NOW, LATER), (NOW, LATER + 9), (NOW + 601, NOW), (NOW, NOW + 86_400), (NOW + 90_000, NOW)],
)
def test_what_has_expired_or_is_not_valid_yet_is_refused(made, read):
    with pytest.raises(MalformedEvent):
        parse_list(listed([consent(now=made)], now=made), read)


@pytest.mark.parametrize("life", [0, -5, CONSENT_LIFE_S + 1])
def test_a_consent_has_a_bounded_life(life):
    with pytest.raises(MalformedEvent):
        consent_draft(NODE.pubkey, RELAY, NOW, NOW + life)
    entry = ("key", AGENTS[0].pubkey, str(NOW), str(max(NOW + life, 0)), "0" * 128)
    tags = (("relay", RELAY), ("expiration", str(NOW + 60)), entry)
    with pytest.raises(MalformedEvent):
        parse_list(NODE.sign(Draft(KEY_LIST, "", tags, NOW)), NOW)


@pytest.mark.parametrize(
    "entry",
    [
        ("key",),
        ("key", "ab"),
        ("key", "A" * 64),
        ("key", "a" * 64, "1"),
        ("key", "a" * 64, "-1", "5", "0" * 128),
        ("key", "a" * 64, "1e3", "5", "0" * 128),
        ("key", "a" * 64, str(NOW), str(LATER), "0" * 127),
        ("key", "a" * 64, str(NOW), str(LATER), "0" * 128, "more"),
        ("key", "a" * 64, "9" * 13, str(LATER), "0" * 128),
    ],
)
def test_a_malformed_entry_refuses_the_list(entry):
    tags = (("relay", RELAY), ("expiration", str(NOW + 60)), entry)
    with pytest.raises(MalformedEvent):
        parse_list(NODE.sign(Draft(KEY_LIST, "", tags, NOW)), NOW)


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        (1, (("relay", RELAY), ("expiration", str(NOW + 60)))),
        (KEY_LIST, (("expiration", str(NOW + 60)),)),
        (KEY_LIST, (("relay", RELAY),)),
        (KEY_LIST, (("relay", RELAY), ("expiration", "soon"))),
    ],
)
def test_another_event_is_no_list(kind, tags):
    with pytest.raises(MalformedEvent):
        parse_list(NODE.sign(Draft(kind, "", tags, NOW)), NOW)


@pytest.mark.parametrize(
    "draft",
    [
        Draft(1, "", (("p", NODE.pubkey), ("relay", RELAY), ("expiration", str(LATER))), NOW),
        Draft(KEY_CONSENT, "hi", (("p", NODE.pubkey), ("relay", RELAY), ("expiration", str(LATER))), NOW),
        Draft(KEY_CONSENT, "", (("p", NODE.pubkey), ("relay", RELAY), ("expiration", str(LATER)), ("x", "y")), NOW),
        Draft(KEY_CONSENT, "", (("relay", RELAY), ("expiration", str(LATER))), NOW),
        Draft(KEY_CONSENT, "", (("p", NODE.pubkey), ("expiration", str(LATER))), NOW),
    ],
)
def test_a_consent_says_exactly_what_it_says(draft):
    with pytest.raises(MalformedEvent):
        consent_of(AGENTS[0].sign(draft))


@given(st.integers(0, 700), st.integers(0, 700), st.integers(4_000, 200_000))
def test_lists_fit_into_messages_and_lose_no_key(consented, bare, message_bytes):
    entries = [Consent(NODE.pubkey, NOW, LATER, "a" * 128)] * consented + [OTHER.pubkey] * bare
    drafts = list_drafts(RELAY, entries, NOW, message_bytes=message_bytes)
    read = [parse_list(parse(NODE_EVENT | {"tags": [list(tag) for tag in one.tags]}), NOW) for one in drafts]
    assert sum(len(one.consents) for one in read) == consented
    assert sum(len(one.bare) for one in read) == bare
    for one in drafts:
        message = orjson.dumps(["AUTH", NODE_EVENT | {"tags": one.tags}])
        assert len(message) <= min(message_bytes, MAX_LIST_BYTES)


NODE_EVENT = NODE.sign(Draft(KEY_LIST, "", (), NOW)).to_dict()


@pytest.mark.parametrize(
    ("document", "many"),
    [
        ({"limitation": {"max_listed_keys": 20_000}}, 20_000),
        ({"limitation": {"max_listed_keys": True}}, 0),
        ({"limitation": {"max_listed_keys": -1}}, 0),
        ({"limitation": []}, 0),
        ({}, 0),
    ],
)
def test_a_relay_says_in_nip_11_how_many_keys_it_takes(document, many):
    assert capacity(document) == many
