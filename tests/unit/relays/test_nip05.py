"""Names under a domain (NIP-05)."""

import json

import pytest

from core.error import InvalidInput
from relays.key import Key
from relays.nip05 import MAX_RELAYS, Named, names_document, parse_address, read_document

BOB, EVE = Key.generate().pubkey, Key.generate().pubkey


def test_addresses_are_read_as_people_write_them():
    assert parse_address(" Bob@Example.COM ").url == "https://example.com/.well-known/nostr.json?name=bob"
    assert str(parse_address("example.com")) == str(parse_address("_@example.com")) == "example.com"
    assert parse_address("bob@example.com:8443").domain == "example.com:8443"


NO_ADDRESSES = ["", "bob", "@", "bob@localhost", "b b@example.com", "bob@exa mple.com", "bob@example.com/x", "bob@-"]
NO_ADDRESSES += ["bob@example.com?x=1", "a@b@example.com", "bob@" + "x" * 300 + ".com"]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidInput):
        parse_address(text)


def test_the_document_names_only_who_was_asked_for():
    relays = ["wss://one.example.com"]
    told = json.loads(names_document({"bob": BOB, "eve": EVE}, "BOB", relays))
    assert told == {"names": {"bob": BOB}, "relays": {BOB: ["wss://one.example.com"]}}
    for nobody in (None, "", "mallory"):
        assert json.loads(names_document({"bob": BOB, "eve": EVE}, nobody, relays)) == {"names": {}}


def test_our_document_is_read_back():
    raw = names_document({"bob": BOB}, "bob", ["wss://one.example.com"])
    assert read_document(raw, "bob") == Named(BOB, ("wss://one.example.com",))
    assert read_document(raw, "eve") is None


@pytest.mark.parametrize("named", [[], {}, None, {"bob": 1}, {"bob": BOB.upper()}, {"bob": "npub1xyz"}])
def test_junk_names_nobody(named):
    body = {"names": named} if named is not None else []
    assert read_document(json.dumps(body).encode(), "bob") is None


def test_a_stranger_s_relays_are_few_and_public():
    listed = [f"wss://r{number}.example.com" for number in range(40)] + ["ws://127.0.0.1:1", "ws://10.0.0.1", 3]
    raw = json.dumps({"names": {"bob": BOB}, "relays": {BOB: listed[::-1]}}).encode()
    found = read_document(raw, "bob")
    assert found is not None
    assert len(found.relays) == MAX_RELAYS
    assert all("example.com" in url for url in found.relays)


def test_a_document_that_is_too_long_is_not_read():
    raw = json.dumps({"names": {"bob": BOB}, "x": "y" * 70_000}).encode()
    assert read_document(raw, "bob") is None
    assert read_document(b"not json", "bob") is None
