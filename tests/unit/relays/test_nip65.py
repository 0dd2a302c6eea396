"""Relay lists (NIP-65) and lists of relays for private messages (NIP-17)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from relays.error import MalformedEvent
from relays.event import Draft, Event, tags
from relays.key import Key
from relays.kind import DM_RELAYS, RELAY_LIST
from relays.nip65 import (
    MAX_RELAYS,
    RelayList,
    dm_relays_draft,
    read_dm_relays,
    read_relay_list,
    relay_drafts,
    relay_list_draft,
)

KEY = Key(b"\x05" * 32)
A, B, C = "wss://a.example", "wss://b.example", "wss://c.example/inbox"


def listed(kind: int, *items: tuple[str, ...]) -> Event:
    return KEY.sign(Draft(kind, "", tags(items), 1_700_000_000))


def test_what_is_written_is_read_back_with_its_markers() -> None:
    draft = relay_list_draft([A, B], [B, C], 5)
    assert set(draft.tags) == {("r", A, "read"), ("r", B), ("r", C, "write")}
    assert read_relay_list(KEY.sign(draft)) == RelayList(read=(B, A), write=(B, C))
    assert read_dm_relays(KEY.sign(dm_relays_draft([A, C], 5))) == (A, C)


def test_both_lists_of_one_identity_name_the_same_relays_once_each() -> None:
    lists, messages = relay_drafts(["WSS://A.example/", A, B], 5)
    assert lists.tags == (("r", A), ("r", B))
    assert messages.tags == (("relay", A), ("relay", B))


def test_an_empty_message_list_says_that_none_are_taken() -> None:
    assert read_dm_relays(KEY.sign(dm_relays_draft([], 5))) == ()


def test_one_spelling_counts_once_and_junk_is_passed_over() -> None:
    event = listed(
        RELAY_LIST, ("r",), ("r", "http://a.example"), ("r", "WSS://A.EXAMPLE:443/"), ("r", A), ("r", "wss://u:p@b.example"),
        ("r", B, "sometimes"), ("r", C, "read"), ("x", B), ("r", "wss://" + "d" * 600),
    )  # fmt: skip
    assert read_relay_list(event) == RelayList(read=(A, C), write=(A,))


def test_of_a_long_list_the_first_few_count() -> None:
    many = [("relay", f"wss://r{n}.example") for n in range(500)]
    assert read_dm_relays(listed(DM_RELAYS, *many)) == tuple(url for _, url in many[:MAX_RELAYS])


@pytest.mark.parametrize(
    ("kind", "read"), [(DM_RELAYS, read_relay_list), (RELAY_LIST, read_dm_relays), (1, read_dm_relays)]
)
def test_another_kind_is_no_such_list(kind: int, read: object) -> None:
    with pytest.raises(MalformedEvent):
        read(listed(kind, ("relay", A), ("r", A)))


def test_we_publish_no_address_that_is_none() -> None:
    with pytest.raises(InvalidInput):
        relay_list_draft(["https://a.example"], [], 5)


@given(
    st.lists(
        st.lists(
            st.sampled_from(["r", "relay", "read", "write", A, B, "ws://x", ""]) | st.text(max_size=9),
            min_size=1,
            max_size=4,
        )
    )
)
def test_any_tags_are_read_without_a_fault_and_within_bounds(found: list[list[str]]) -> None:
    event = Event("0" * 64, KEY.pubkey, 5, RELAY_LIST, tags(found), "", "0" * 128)
    lists = read_relay_list(event)
    assert len(lists.read) <= MAX_RELAYS
    assert len(set(lists.write)) == len(lists.write) <= MAX_RELAYS
