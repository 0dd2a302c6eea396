"""Reading a relay's OK."""

import pytest

from relays.message import prefix
from relays.verdict import VerdictState, judge


@pytest.mark.parametrize(
    ("accepted", "reason", "state"),
    [
        (True, "", "stored"),
        (True, "anything", "stored"),
        (False, "duplicate: exists", "stored"),
        (False, "rate-limited: x", "unknown"),
        (False, "error: x", "unknown"),
        (False, "", "unknown"),
        (False, "no colon", "unknown"),
        (False, "http://x", "unknown"),
        (False, "blocked: x", "refused"),
        (False, "invalid: x", "refused"),
        (False, "restricted: x", "refused"),
        (False, "pow: x", "refused"),
        (False, "mute: x", "refused"),
        (False, "auth-required: x", "refused"),
    ],
)
def test_an_ok_is_read_by_its_prefix(accepted: bool, reason: str, state: str) -> None:
    assert judge(accepted, reason).state is VerdictState(state)


def test_a_prefix_is_a_word_before_a_colon() -> None:
    assert [prefix(text) for text in ("a: b", "rate-limited:", "two words: x", ": x", "x")] == [
        "a",
        "rate-limited",
        "",
        "",
        "",
    ]
