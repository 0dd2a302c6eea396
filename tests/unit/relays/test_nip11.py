"""A relay's own description (NIP-11): what is sound is used, what is not is as if it had not been said."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relays.error import MalformedEvent
from relays.nip11 import MAX_DOCUMENT_BYTES, Fee, Information, parse_information

WHOLE: dict[str, Any] = {
    "name": "ours",
    "description": "a relay",
    "pubkey": "ab" * 32,
    "contact": "mailto:op@example.com",
    "supported_nips": [1, 11, 42, 77],
    "software": "vendo",
    "version": "1",
    "limitation": {
        "max_message_length": 16_384,
        "max_subscriptions": 20,
        "max_filters": 10,
        "max_limit": 500,
        "default_limit": 100,
        "max_subid_length": 64,
        "max_event_tags": 100,
        "max_content_length": 8_196,
        "max_listed_keys": 20_000,
        "min_pow_difficulty": 12,
        "auth_required": True,
        "payment_required": True,
        "restricted_writes": True,
        "created_at_lower_limit": 31_536_000,
        "created_at_upper_limit": 900,
    },
    "payments_url": "https://example.com/pay",
    "fees": {
        "admission": [{"amount": 1_000_000, "unit": "msats"}],
        "subscription": [{"amount": 5_000, "unit": "sats", "period": 2_592_000}],
        "publication": [{"kinds": [4], "amount": 100, "unit": "msats"}],
    },
}
JUNK = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=12)
VALUES = JUNK | st.lists(JUNK, max_size=3) | st.dictionaries(st.sampled_from(["amount", "unit", "kinds"]), JUNK)
LIMITS = st.dictionaries(st.sampled_from(list(WHOLE["limitation"])), VALUES, max_size=6)
FEES = st.dictionaries(st.sampled_from(list(WHOLE["fees"])), VALUES | st.lists(VALUES, max_size=3))
PARTS = st.dictionaries(st.sampled_from(list(WHOLE)), VALUES, max_size=6)
DOCUMENTS = st.builds(
    lambda parts, limits, fees: {**WHOLE, "limitation": limits, "fees": fees, **parts}, PARTS, LIMITS, FEES
)


def read(document: Any) -> Information:
    return parse_information(orjson.dumps(document))


def test_every_field_of_a_whole_document_is_read() -> None:
    found = read(WHOLE)
    assert found.supported_nips == {1, 11, 42, 77}
    for name, value in {**WHOLE["limitation"], "name": "ours", "pubkey": "ab" * 32}.items():
        assert getattr(found, name) == value, name
    assert found.fees == (
        Fee("admission", 1_000_000, "msats"),
        Fee("subscription", 5_000, "sats", period_s=2_592_000),
        Fee("publication", 100, "msats", kinds=(4,)),
    )


def test_an_empty_document_says_nothing() -> None:
    assert read({}) == Information()


@pytest.mark.parametrize("bad", ["20", True, -1, 0, 1.5, None, [], 1 << 60])
def test_a_limit_that_is_none_counts_as_absent_and_its_neighbours_stand(bad: Any) -> None:
    found = read({"limitation": {"max_subscriptions": bad, "max_limit": 500}})
    assert (found.max_subscriptions, found.max_limit) == (None, 500)


def test_a_limit_under_which_nothing_could_be_said_counts_as_absent() -> None:
    assert read({"limitation": {"max_message_length": 10}}).max_message_length is None


def test_flags_are_set_by_true_alone() -> None:
    assert not read({"limitation": {"auth_required": 1, "payment_required": "true"}}).auth_required


def test_texts_are_cut_and_hold_no_control_characters() -> None:
    found = read({"name": "a\x1b[31m\n" + "b" * 500, "pubkey": "AB" * 32})
    assert found.name.startswith("a[31mb")
    assert len(found.name) <= 100
    assert found.pubkey == ""


@pytest.mark.parametrize("raw", [b"", b"[]", b"<html>", b"\xff", b'"x"', b"{}" + b" " * MAX_DOCUMENT_BYTES])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedEvent):
        parse_information(raw)


@given(DOCUMENTS)
def test_any_document_is_read_and_what_was_read_survives_being_kept(document: dict[str, Any]) -> None:
    found = read(document)
    assert parse_information(found.to_json().encode()) == found


def test_a_whole_document_survives_being_kept() -> None:
    found = read(WHOLE)
    assert parse_information(found.to_json().encode()) == found
