"""A mint's frames (NUT-17): what is asked, and which frames say that something has changed."""

import orjson
import pytest

from wallet.cashu.subscription import MAX_FRAME, MAX_NAMES, Topic, changed, granted, subscribe, unsubscribe


def note(state: object = "SPENT", **params: object) -> str:
    body = {"subId": "v1", "payload": {"Y": "02aa", "state": state, "witness": None}} | params
    return orjson.dumps({"jsonrpc": "2.0", "method": "subscribe", "params": body}).decode()


def test_what_is_asked_is_json_rpc_with_a_bounded_list_of_names() -> None:
    body = orjson.loads(subscribe(3, Topic.COINS, "v1", ["02aa"] * (MAX_NAMES + 5)))
    assert (body["jsonrpc"], body["id"], body["method"]) == ("2.0", 3, "subscribe")
    assert (body["params"]["kind"], body["params"]["subId"]) == ("proof_state", "v1")
    assert len(body["params"]["filters"]) == MAX_NAMES
    assert orjson.loads(unsubscribe(4, "v1"))["params"] == {"subId": "v1"}


@pytest.mark.parametrize("state", ["SPENT", "PAID", "ISSUED"])
def test_a_new_state_names_its_subscription(state: str) -> None:
    assert changed(note(state)) == "v1"


@pytest.mark.parametrize(
    "frame",
    [
        note("UNSPENT"),
        note("UNPAID"),
        note("PENDING"),
        note(None),
        note(7),
        note(subId=None),
        note(payload=None),
        note(payload=[]),
        "",
        "{",
        "[]",
        "7",
        '{"jsonrpc": "2.0", "result": {"status": "OK", "subId": "v1"}, "id": 1}',
        '{"jsonrpc": "2.0", "error": {"code": -1, "message": "no"}, "id": 1}',
        '{"method": "subscribe", "params": []}',
        note() + " " * MAX_FRAME,
    ],
)
def test_all_else_says_nothing(frame: str) -> None:
    assert changed(frame) is None


def test_a_promise_to_tell_names_its_subscription() -> None:
    assert granted('{"jsonrpc": "2.0", "result": {"status": "OK", "subId": "v1"}, "id": 1}') == "v1"


@pytest.mark.parametrize(
    "frame",
    [
        note(),
        "",
        "{",
        "[]",
        '{"result": []}',
        '{"result": {"status": "OK"}}',
        '{"result": {"status": "OK", "subId": 7}}',
        '{"result": {"status": "no", "subId": "v1"}}',
        '{"jsonrpc": "2.0", "error": {"code": -1, "message": "no"}, "id": 1}',
        '{"result": {"status": "OK", "subId": "v1"}}' + " " * MAX_FRAME,
    ],
)
def test_all_else_promises_nothing(frame: str) -> None:
    assert granted(frame) is None
