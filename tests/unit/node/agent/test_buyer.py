import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from node.agent.buyer import HELP, Buyer, Wish, answer_text, parse_wish
from node.agent.error import StateRefused


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("summarize: A b.\n\nC d.", Wish(5001, "A b.\n\nC d.")),
        ("Summarise : x", Wish(5001, "x")),
        ("  ASK: why?", Wish(5050, "why?")),
        ("summarize [max $0.02]: x", Wish(5001, "x", "0.02")),
        ("summarize: [max $0.02] x", Wish(5001, "x", "0.02")),
        ("ask [MAX 1]: x", Wish(5050, "x", "1")),
        ("pow: 20 a note: with a colon", Wish(5970, "a note: with a colon", None, 20)),
        ("pow[max $0.5]: 8 n", Wish(5970, "n", "0.5", 8)),
        ("summarize: cost is [max $9] here", Wish(5001, "cost is [max $9] here")),
        ("hello", None),
        ("", None),
        ("summarize this: x", None),
        ("please summarize: x", None),
        ("summarize [max $-1]: x", None),
        ("summarize [max $1e9]: x", None),
    ],
)
def test_commands_are_read(text: str, wish: Wish | None) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize("text", ["summarize:", "ask:  ", "pow: x y", "pow: 20", "pow:", "pow: -1 x", "pow: 1000 x"])
def test_a_command_without_its_words_is_explained(text: str) -> None:
    with pytest.raises(InvalidInput, match="It goes"):
        parse_wish(text)


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    for head in ("", "pow:", "summarize [max $"):
        try:
            parse_wish(head + text)
        except InvalidInput:
            continue


def test_the_help_names_each_command() -> None:
    assert all(word in HELP for word in ("summarize:", "pow:", "ask:", "[max"))


def test_the_answer_says_what_is_still_out() -> None:
    job = {"job_id": "j", "result": "r", "provider": "builtin", "seller": "echo", "cost_msat": 5_000, "closed": False}
    assert "5000 msat are with a seller that failed" in answer_text(job)
    job |= {"result": None, "error": "no luck"}
    assert "5000 msat are with a seller" in answer_text(job)
    assert "it cost 0 msat (5000 msat with fees)" in answer_text(job | {"closed": True})


def test_state_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(StateRefused):
        Buyer().migrate(7, {})


@pytest.mark.parametrize("head", ["ask", "ask [max", "ask [max $", "ask [max $1", "ask: [max", "ask: [max $1"])
def test_a_message_of_many_spaces_is_judged_at_once(head: str) -> None:
    begun = time.process_time()
    with contextlib.suppress(InvalidInput):
        parse_wish(head + " " * 60_000 + "x")
    assert time.process_time() - begun < 3, "a pattern that tries each space again takes many seconds"
