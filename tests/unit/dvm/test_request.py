import pytest

from core.error import InvalidInput
from core.money import MicroUsd, Msat
from dvm.error import InputTooLarge, UnknownKind
from dvm.preference import Prefer
from dvm.request import ComputeRequest, Datum
from relays.key import Key


def test_a_whole_request_is_read() -> None:
    request = ComputeRequest.parse(
        {"kind": 5001, "input": "text", "params": {"length": "3 sentences"}, "max_usd": "0.05", "timeout_s": 30}
    )
    assert request == ComputeRequest(5001, (Datum("text"),), (("length", "3 sentences"),), MicroUsd(50_000), 30, "")


def test_the_order_of_parameters_does_not_change_what_the_key_is_bound_to() -> None:
    one = ComputeRequest.parse({"kind": 5050, "input": "x", "params": {"a": "1", "b": "2"}})
    two = ComputeRequest.parse({"params": {"b": "2", "a": "1"}, "input": [{"data": "x"}], "kind": 5050})
    assert one.canonical() == two.canonical()


def test_every_part_changes_what_the_key_is_bound_to() -> None:
    base = {"kind": 5050, "input": "x"}
    changes = [{}, {"kind": 5001}, {"input": "y"}, {"params": {"a": "1"}}, {"max_msat": 1}, {"timeout_s": 2}]
    assert len({ComputeRequest.parse({**base, **change}).canonical() for change in changes}) == len(changes)


def test_msat_and_dollars_are_different_maxima() -> None:
    assert ComputeRequest.parse({"kind": 5050, "input": "x", "max_msat": 7}).maximum == Msat(7)


@pytest.mark.parametrize("kind", [4999, 6000, 5050.0, "5050", True, None])
def test_a_kind_that_is_no_request_is_refused(kind: object) -> None:
    with pytest.raises(UnknownKind):
        ComputeRequest.parse({"kind": kind, "input": "x"})


def test_an_input_over_the_limit_is_refused() -> None:
    with pytest.raises(InputTooLarge):
        ComputeRequest.parse({"kind": 5050, "input": "ü" * 16_385})
    assert ComputeRequest.parse({"kind": 5050, "input": "ü" * 16_384})


@pytest.mark.parametrize(
    "change",
    [
        {"input": ""} | {"input": 5},
        {"input": []},
        {"input": [{"data": "x", "type": "file"}]},
        {"input": [{"data": "x", "more": 1}]},
        {"input": "\ud800"},
        {"params": {"a": 1}},
        {"params": {"a": "x" * 2_000}},
        {"params": [1]},
        {"max_usd": 0.05},
        {"max_usd": "NaN"},
        {"max_usd": "-1"},
        {"max_usd": "0.0000001"},
        {"max_usd": "1", "max_msat": 1},
        {"max_msat": -1},
        {"timeout_s": 0},
        {"extra": 1},
        {"output": 5},
    ],
)
def test_a_field_that_is_not_right_is_refused(change: dict) -> None:
    with pytest.raises(InvalidInput):
        ComputeRequest.parse({"kind": 5050, "input": "x", **change})


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        ComputeRequest.parse(value)


def test_preference_seller_and_privacy_are_read_and_checked() -> None:
    key = Key.generate()
    wish = {"kind": 5050, "input": "x", "prefer": "balanced", "to": key.npub, "private": True}
    request = ComputeRequest.parse(wish)
    assert (request.prefer, request.to, request.private) == (Prefer.BALANCED, key.pubkey, "nip44")
    assert ComputeRequest.parse(wish | {"private": "wrap", "to": key.pubkey}).private == "wrap"
    assert ComputeRequest.parse(wish | {"private": False, "prefer": None}).private == ""


@pytest.mark.parametrize(
    "more",
    [
        {"prefer": "cheap"}, {"prefer": 1}, {"to": "npub1nobody"}, {"to": 7}, {"private": "rot13"}, {"private": 1},
        {"private": "nip44"}, {"private": True},
    ],
)  # fmt: skip
def test_what_is_no_preference_seller_or_privacy_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        ComputeRequest.parse({"kind": 5050, "input": "x"} | more)


def test_a_key_given_before_there_were_preferences_stands_for_the_same_wish() -> None:
    """The bytes that an idempotency key is bound to, as they were."""
    assert ComputeRequest.parse({"kind": 5050, "input": "x"}).canonical() == (
        b'{"inputs":[["x","text"]],"kind":5050,"maximum":null,"output":"","params":[],"timeout_s":null}'
    )
    assert b"prefer" in ComputeRequest.parse({"kind": 5050, "input": "x", "prefer": "latency"}).canonical()
