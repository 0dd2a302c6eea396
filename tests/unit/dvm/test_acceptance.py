import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvm.acceptance import CHECKS, MAX_RESULT_BYTES, check_result
from dvm.error import BadResult
from dvm.request import ComputeRequest, Datum

ID = "ab" * 32
TEXT = "a long text " * 20


def ask(kind: int, text: str = TEXT, **params: str) -> ComputeRequest:
    return ComputeRequest(kind, (Datum(text),), tuple(params.items()))


def dump(value: object) -> str:
    return orjson.dumps(value).decode()


GOOD = [
    (5000, "some words"),
    (5001, "short"),
    (5002, "des mots"),
    (5050, "anything"),
    (5100, "https://images.example/a.png"),
    (5250, '{"url": "http://sound.example/a.mp3"}'),
    (5300, "[]"),
    (5300, dump([["e", ID], ["a", f"30023:{ID}:slug", "wss://relay.example"]])),
    (5301, dump([["p", ID]])),
    (5302, dump([["e", ID]])),
    (5303, dump([["p", ID, "wss://relay.example"]])),
    (5400, "42"),
    (5400, dump({"2024": {"01": 3, "02": 0}})),
    (5500, "CLEAN"),
    (5900, ID),
    (5901, ID.upper() + "\n"),
    (5999, "whatever"),
]
BAD = [
    (5050, "", "empty"),
    (5050, " \n", "empty"),
    (5050, "x" * (MAX_RESULT_BYTES + 1), "longer than"),
    (5001, TEXT, "not shorter"),
    (5100, "I drew something nice", "no URL"),
    (5300, "see nostr:note1…", "not JSON"),
    (5300, dump({"e": ID}), "not a list"),
    (5300, dump([["e", "short"]]), "names no"),
    (5300, dump([["p", ID]]), "names no"),
    (5300, dump([["a", f"x:{ID}:d"]]), "names no"),
    (5302, dump(["e", ID]), "not a tag"),
    (5303, dump([["p", 7]]), "not a tag"),
    (5303, dump([["p", ID]] * 1_000), "longer than"),
    (5400, "many", "not JSON"),
    (5400, "-1", "neither"),
    (5400, "true", "neither"),
    (5400, dump({"a": "3"}), "neither"),
    (5400, '{"a":' * 20 + "1" + "}" * 20, "neither"),
    (5900, "ab" * 31, "id of"),
    (5901, f"txid {ID}", "id of"),
    (5970, "{}", "not an unsigned event"),
]


@pytest.mark.parametrize(("kind", "content"), GOOD)
def test_a_result_of_its_kinds_form_is_one(kind: int, content: str) -> None:
    check_result(ask(kind), content)


@pytest.mark.parametrize(("kind", "content", "reason"), BAD)
def test_a_result_of_another_form_is_none_and_says_why(kind: int, content: str, reason: str) -> None:
    text = dump({"pubkey": ID, "created_at": 1, "kind": 1, "tags": [], "content": ""}) if kind == 5970 else TEXT
    with pytest.raises(BadResult, match=reason):
        check_result(ask(kind, text, pow="8"), content)


def test_a_request_without_any_input_accepts_no_mined_event() -> None:
    with pytest.raises(BadResult, match="no event to mine"):
        check_result(ComputeRequest(5970, (), (("pow", "8"),)), "{}")


def test_a_request_that_cannot_be_mined_accepts_no_result() -> None:
    with pytest.raises(BadResult, match="What was sent"):
        check_result(ask(5970, "no event", pow="8"), "{}")


@given(
    st.sampled_from([*CHECKS, 5000, 5050]),
    st.one_of(
        st.text(),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text()),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        ).map(lambda value: orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()),
    ),
)
def test_no_sellers_text_breaks_the_check(kind: int, content: str) -> None:
    text = dump({"pubkey": ID, "created_at": 1, "kind": 1, "tags": [], "content": ""})
    try:
        check_result(ask(kind, text, pow="1"), content)
    except BadResult:
        return
