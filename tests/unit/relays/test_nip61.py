"""Nutzaps and zap receipts as strangers write them: read, or refused as malformed, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.identifier import EventId, PubKey
from relays.error import MalformedEvent
from relays.event import Event
from relays.nip57 import read_receipt
from relays.nip61 import info_draft, locked_to, read_nutzap, redeemed_draft, withdrawn_draft

ME, THEM, MINT = PubKey("ab" * 32), PubKey("cd" * 32), "https://mint.example"
TEXT = st.text(max_size=12)
NAMES = st.sampled_from(("p", "u", "e", "P", "unit", "proof", "bolt11", "description", "amount"))
VALUES = st.one_of(st.sampled_from((ME, MINT, "ef" * 32, "sat", "{}", "[]", "null", '{"amount": 1}')), TEXT)


def event(kind: int, *tags: tuple[str, ...], author: PubKey = THEM) -> Event:
    return Event(EventId("11" * 32), author, 5, kind, tags, "", "00" * 64)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), st.sampled_from((9321, 9735, 1)))
def test_whatever_is_written_is_read_or_malformed(tags: list[tuple[str, str]], kind: int) -> None:
    found = event(kind, *tags)
    try:
        zap = read_nutzap(found, ME)
        assert (found.kind, zap.sender, zap.mint) == (9321, THEM, found.value("u"))
        assert zap.payload["proofs"]
        assert all(isinstance(one, dict) for one in zap.payload["proofs"])
    except MalformedEvent:
        pass
    with pytest.raises(MalformedEvent):
        read_receipt(found, provider=THEM, recipient=ME, lnurl="lnurl1x")


def test_a_nutzap_is_read_with_what_it_names_once_each() -> None:
    proof = json.dumps({"amount": 1})
    tags = [("proof", proof), ("proof", proof), ("u", MINT), ("p", ME), ("e", "ef" * 32), ("e", "ef" * 32), ("e", "x")]
    zap = read_nutzap(event(9321, *tags), ME)
    assert (zap.mint, zap.unit, zap.named) == (MINT, "sat", ("ef" * 32,))
    assert zap.payload == {"mint": MINT, "unit": "sat", "proofs": [{"amount": 1}, {"amount": 1}]}


def test_where_nutzaps_are_taken_is_written_as_nip_61_says() -> None:
    draft = info_draft(["wss://r.example"], [MINT], ME, 7)
    assert (draft.kind, draft.content) == (10_019, "")
    assert draft.tags == (("relay", "wss://r.example"), ("mint", MINT, "sat"), ("pubkey", ME))
    assert locked_to(ME) == "02" + ME
    assert withdrawn_draft(ME, 8).tags[0] == ("a", f"10019:{ME}:")
    told = redeemed_draft("11" * 32, THEM, "wss://r.example", "secret", 9)
    assert (told.kind, told.tags[0][3], told.tags[1]) == (7_376, "redeemed", ("p", THEM))
