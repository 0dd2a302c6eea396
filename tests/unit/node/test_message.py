import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from node.message.text import MAX_TEXT_BYTES, split
from relays.event import Draft, verify
from relays.key import Key
from relays.nip17 import wrap

SENDER, RECEIVER = Key(b"\x01" * 32), Key(b"\x02" * 32)


@given(st.text(min_size=1, max_size=50), st.integers(1, 3_000))
def test_the_parts_are_the_text_and_each_fits_one_wrap(word: str, times: int) -> None:
    text = (word + " \n")[:20] * times
    try:
        parts = split(text)
    except InvalidInput:
        assert not text.strip() or len(text.encode()) > MAX_TEXT_BYTES
        return
    assert "".join(parts) == text
    assert all(parts)


@pytest.mark.parametrize("char", ["a", "\x01", "\\", '"', "é", "🙂", " ", "\n", "\ufffd"])
def test_the_longest_part_of_any_characters_can_be_wrapped(char: str) -> None:
    text = ("x" + char) * (MAX_TEXT_BYTES // (1 + len(char.encode())))
    for part in split(text)[:2]:
        verify(wrap(SENDER, RECEIVER.pubkey, Draft(14, part, (("p", RECEIVER.pubkey),), 1)))


@pytest.mark.parametrize("text", ["", "  \n ", "x" * (MAX_TEXT_BYTES + 1)])
def test_nothing_and_too_much_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        split(text)
