"""Whose signature a request bears, and whose it does not (NIP-98)."""

import base64
import hashlib
from typing import Any

import pytest

from fs.session import Role
from node.http.nip98 import MAX_HEADER, WINDOW_S, Asked, Signatures
from node.http.token import Grant
from relays.key import Key
from tests.unit.node.http.nip98_part import header, signed

NOW = 1_790_000_000
KNOWN, OTHER, STRANGER = (Key(bytes([number]) * 32) for number in (7, 8, 9))
BASES = frozenset({"http://127.0.0.1:8080", "https://node.example"})
PATH = "/agents/a/goals/x?watch=0"
URL = "http://127.0.0.1:8080" + PATH
BODY = b'{"description": "x"}'
GRANTS = {KNOWN.pubkey: Grant("operator", Role.OPERATOR), OTHER.pubkey: Grant("agent:a", Role.AGENT)}
GET = Asked("GET", PATH, BASES)
PUT = Asked("PUT", PATH, BASES)


def opened(text: str, asked: Asked = GET, body: bytes = b"", now: int = NOW) -> Any:
    claim = Signatures(GRANTS).claim(text, asked, now)
    return claim.grant if claim is not None and claim.covers(body, now) else None


def test_a_signed_request_is_its_key_s() -> None:
    assert opened(header(signed(KNOWN, URL, at=NOW))) == GRANTS[KNOWN.pubkey]
    assert opened(header(signed(OTHER, URL, at=NOW))) == GRANTS[OTHER.pubkey]
    assert opened(header(signed(KNOWN, URL, "PUT", BODY, at=NOW)), PUT, BODY) == GRANTS[KNOWN.pubkey]
    assert opened(header(signed(KNOWN, "https://node.example" + PATH, at=NOW)))


def test_the_name_of_the_scheme_may_be_written_small_and_content_and_other_tags_do_not_matter() -> None:
    event = signed(KNOWN, URL, at=NOW, content="hello", more=[("nonce", "1"), ("expiration", "2")])
    assert opened(header(event).replace("Nostr", "nostr"))


@pytest.mark.parametrize("off", [-WINDOW_S, 0, WINDOW_S])
def test_a_clock_may_differ_by_a_minute(off: int) -> None:
    assert opened(header(signed(KNOWN, URL, at=NOW + off)))


def test_no_body_is_the_hash_of_nothing_or_none() -> None:
    assert opened(header(signed(KNOWN, URL, "PUT", b"", at=NOW)), PUT)
    assert opened(header(signed(KNOWN, URL, "PUT", at=NOW)), PUT)


WRONG = {
    "another kind": {"kind": 27_236},
    "a note": {"kind": 1},
    "stale": {"at": NOW - WINDOW_S - 1},
    "future": {"at": NOW + WINDOW_S + 1},
    "another path": {"url": URL.replace("goals", "inbox")},
    "another host": {"url": "http://evil.example" + PATH},
    "another port": {"url": URL.replace("8080", "8081")},
    "another scheme": {"url": URL.replace("http:", "https:")},
    "a name with the port of another": {"url": "https://node.example:8080" + PATH},
    "without its query": {"url": URL.partition("?")[0]},
    "another query": {"url": URL + "&x=1"},
    "the path alone": {"url": PATH},
    "upper case": {"url": URL.upper()},
    "a fragment": {"url": URL + "#x"},
    "a user": {"url": URL.replace("http://", "http://user@")},
    "another method": {"method": "POST"},
    "a small method": {"method": "get"},
    "no method": {"without": ["method"]},
    "no address": {"without": ["u"]},
    "two addresses": {"more": [("u", URL)]},
    "two methods": {"more": [("method", "GET")]},
    "two payloads": {"more": [("payload", hashlib.sha256(b"").hexdigest())] * 2},
    "an address with more": {"without": ["u"], "more": [("u", URL, "x")]},
    "an address without one": {"without": ["u"], "more": [("u",)]},
    "a payload without a body": {"more": [("payload", hashlib.sha256(BODY).hexdigest())]},
    "an empty payload": {"more": [("payload", "")]},
    "a payload that says nothing": {"more": [("payload",)]},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_hold_opens_nothing(name: str) -> None:
    change = {"url": URL, "at": NOW, **WRONG[name]}
    assert opened(header(signed(KNOWN, **change))) is None


def test_a_body_is_hashed_whenever_there_is_one() -> None:
    assert opened(header(signed(KNOWN, URL, "PUT", at=NOW)), PUT, BODY) is None
    assert opened(header(signed(KNOWN, URL, at=NOW)), GET, BODY) is None, "also where nobody looks at it"
    assert opened(header(signed(KNOWN, URL, "PUT", b"another", at=NOW)), PUT, BODY) is None
    upper = [("payload", hashlib.sha256(BODY).hexdigest().upper())]
    assert opened(header(signed(KNOWN, URL, "PUT", at=NOW, more=upper)), PUT, BODY) is None


def test_nobody_else_can_sign() -> None:
    assert opened(header(signed(STRANGER, URL, at=NOW))) is None
    event = signed(STRANGER, URL, at=NOW).to_dict()
    assert opened(header(event | {"pubkey": KNOWN.pubkey})) is None
    good = signed(KNOWN, URL, at=NOW).to_dict()
    for change in (
        {"sig": "0" * 128}, {"sig": good["sig"][:-1] + ("0" if good["sig"][-1] != "0" else "1")}, {"id": "0" * 64},
        {"created_at": NOW - 1}, {"content": "x"}, {"tags": [*good["tags"], ["x"]]}, {"sig": ""}, {"id": 5},
        {"created_at": "now"}, {"created_at": float(NOW)}, {"kind": True}, {"tags": {}}, {"pubkey": "ff" * 32},
    ):  # fmt: skip
        assert opened(header(good | change)) is None, change


@pytest.mark.parametrize(
    "text",
    [
        "Nostr", "Nostr ", "Nostr !!!", "Nostr e30", "Nostr e30=", "Nostr W10=", "Nostr bnVsbA==", "Nostr \udcff\udcfe",
        "Nostr é", "Bearer e30=", "", "Nostr " + "A" * MAX_HEADER, "Nostr " + base64.b64encode(b"[" * 5_000).decode(),
        "Nostr " + base64.b64encode(b"\xff\xfe").decode(), "Nostr " + base64.b64encode(b'{"id":NaN}').decode(),
        "Nostr Nostr e30=", "Nostr e30= e30=",
    ],
)  # fmt: skip
def test_what_is_no_event_is_nobody_s(text: str) -> None:
    assert opened(text) is None


def test_a_body_may_take_its_time_and_no_longer_than_the_signature_holds() -> None:
    claim = Signatures(GRANTS).claim(header(signed(KNOWN, URL, "PUT", BODY, at=NOW)), PUT, NOW)
    assert claim is not None
    assert claim.covers(BODY, NOW + WINDOW_S)
    assert not claim.covers(BODY, NOW + WINDOW_S + 1)
