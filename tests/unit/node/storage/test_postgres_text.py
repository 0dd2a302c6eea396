"""Texts that PostgreSQL cannot hold as they are: they come back, and their order stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.storage.error import BadWrite
from node.storage.postgres_text import array, bound, is_plain, listed, read, written

TEXTS = st.text(st.sampled_from("\0\x01\x02aü𝄞"), max_size=6) | st.text(max_size=20)


@given(TEXTS)
def test_every_text_comes_back_as_it_went_and_holds_no_nul(text):
    assert read(written(text)) == text
    assert "\0" not in written(text)
    assert is_plain([text]) is (written(text) == text)


@given(TEXTS, TEXTS)
def test_the_order_by_bytes_stays(one, other):
    assert (written(one).encode() < written(other).encode()) is (one.encode() < other.encode())


def test_broken_unicode_is_refused_and_other_values_are_left_alone():
    with pytest.raises(BadWrite):
        written("\ud800")
    assert not is_plain(["\ud83d", "\ude00"])
    assert [bound(value) for value in (None, 5, b"\0")] == [None, 5, b"\0"]
    assert [read(value) for value in (None, 5, b"\x01\x01")] == [None, 5, b"\x01\x01"]


def test_numbers_go_as_one_text():
    assert array("bigint", 3) == "$3::text::bigint[]"
    assert array("text", 3) == "$3::text[]"
    assert listed("bigint", (1, None, True, -(1 << 63))) == "{1,NULL,1,-9223372036854775808}"
    assert listed("bytea", (b"a", None)) == [b"a", None]
