import orjson
import pytest

from relays.embedded.authority import Authority
from relays.embedded.limit import Limits
from relays.embedded.policy import RelayPolicy
from relays.embedded.rate import Gauge, Meter, Rate, Rates
from relays.embedded.session import Answer, Offer, Open, Session, Shut, Sync, SyncEnd, SyncMore, Tally
from relays.filter import MAX_VALUES
from tests.unit.relays.embedded.event_part import NOW, note

LIMITS = Limits(event_bytes=2_000, subscriptions=3, filters=2, filter_values=20)


@pytest.fixture
def session():
    authority = Authority("challenge", frozenset(), LIMITS)
    return Session(RelayPolicy(LIMITS), LIMITS, authority, Meter(Gauge(Rates()), "127.0.0.1"))


def say(session, *parts):
    return session.receive(orjson.dumps(parts), NOW, 0.0)


def words(ready):
    """The message in a short unmasked frame."""
    return orjson.loads(ready[2:] if ready[1] < 126 else ready[4:])


def test_a_good_event_is_offered(session):
    event = note()
    assert say(session, "EVENT", event.to_dict()) == Offer(event)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"{}",
        b"[]",
        b"7",
        b'"EVENT"',
        b'["EVENT"]',
        b"[[],[]]",
        b"[1,{}]",
        b'["event",{}]',
        b"\xff\xfe",
        b"[" * 50_000,
        b'["REQ",' * 3_000,
        b'["EVENT",{"id":"\\ud800"}]',
        b'["EVENT",null]',
        b'["EVENT",[]]',
        b'["EVENT",{}]',
        b'["REQ",5,{}]',
        b'["REQ","",{}]',
        b'["REQ","' + b"x" * 65 + b'",{}]',
        b'["CLOSE",7]',
        b'["CLOSE",null]',
        b'["AUTH",{}]',
        b'["AUTH","challenge"]',
        b'["NOTICE","hi"]',
        b'["EVENT",' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]",
    ],
)
def test_junk_is_answered_with_a_notice(session, data):
    action = session.receive(data, NOW, 0.0)
    assert isinstance(action, Answer)
    assert words(action.frame)[0] == "NOTICE"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": True},
        {"kind": -1},
        {"kind": 65_536},
        {"kind": 1.0},
        {"kind": "1"},
        {"created_at": -1},
        {"created_at": 1.5},
        {"created_at": 2**63},
        {"tags": [[]]},
        {"tags": [[1]]},
        {"tags": "x"},
        {"tags": [["a", None]]},
        {"content": 7},
        {"content": None},
        {"sig": "00"},
        {"sig": "Z" * 128},
        {"pubkey": "AB" * 32},
        {"tags": None},
        {"pubkey": 5},
        {"content": "x" * 3_000},
        {"created_at": NOW + 901},
        {"tags": [["-"]]},
    ],
)
def test_a_bad_event_with_an_id_is_refused_by_ok(session, change):
    event = note()
    action = say(session, "EVENT", event.to_dict() | change)
    assert isinstance(action, Answer)
    verb, event_id, accepted, reason = words(action.frame)
    assert (verb, event_id, accepted) == ("OK", event.id, False)
    assert reason.startswith(("invalid: ", "auth-required: "))


@pytest.mark.parametrize("field", ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"])
def test_every_field_of_an_event_is_needed(session, field):
    fields = note().to_dict()
    del fields[field]
    assert isinstance(say(session, "EVENT", fields), Answer)


def test_a_request_opens_and_a_close_shuts(session):
    opened = say(session, "REQ", "a", {"kinds": [1]}, {})
    assert isinstance(opened, Open)
    assert [one.kinds for one in opened.filters] == [{1}, None]
    assert say(session, "CLOSE", "a") == Shut("a")


@pytest.mark.parametrize(
    "wanted",
    [
        {"kinds": "1"},
        {"kinds": [True]},
        {"kinds": [1.0]},
        {"limit": -1},
        {"limit": "5"},
        {"since": 1.5},
        {"until": -7},
        {"ids": ["ab"]},
        {"authors": [7]},
        {"#e": "x"},
        {"#ee": ["x"]},
        {"#": ["x"]},
        {"what": 1},
        {"#é": []},
        [],
        None,
        7,
        {"authors": ["A" * 64]},
        {"kinds": [1] * (MAX_VALUES + 1)},
        {"limit": None},
        {"tags": {}},
        {"search": "x"},
    ],
)
def test_a_bad_filter_closes_the_subscription_with_a_reason(session, wanted):
    say(session, "REQ", "a", {})
    action = say(session, "REQ", "a", wanted)
    assert isinstance(action, Shut)
    verb, sub_id, reason = words(action.frame)
    assert (verb, sub_id) == ("CLOSED", "a")
    assert reason.startswith(("invalid: ", "unsupported: "))


@pytest.mark.parametrize("filters", [(), ({}, {}, {})])
def test_a_request_has_a_bounded_number_of_filters_and_at_least_one(session, filters):
    assert isinstance(say(session, "REQ", "a", *filters), Shut)


def test_subscriptions_are_bounded_and_a_replacement_is_not_one_more(session):
    for name in "abc":
        assert isinstance(say(session, "REQ", name, {}), Open)
    refused = say(session, "REQ", "d", {})
    assert isinstance(refused, Shut)
    assert words(refused.frame)[2].startswith("rate-limited: ")
    assert isinstance(say(session, "REQ", "a", {}), Open)
    say(session, "CLOSE", "b")
    assert isinstance(say(session, "REQ", "d", {}), Open)
    session.forget("d")
    assert isinstance(say(session, "REQ", "e", {}), Open)


def test_the_values_of_all_open_filters_are_bounded_together(session):
    assert isinstance(say(session, "REQ", "a", {"kinds": list(range(100, 115))}), Open)
    assert isinstance(say(session, "REQ", "b", {"kinds": list(range(100, 106))}), Shut)
    assert isinstance(say(session, "REQ", "a", {"kinds": list(range(100, 120))}), Open)


def test_a_count_is_tallied_and_a_bad_one_closed(session):
    assert isinstance(say(session, "COUNT", "a", {"kinds": [1]}), Tally)
    refused = say(session, "COUNT", "a", {"kinds": 1})
    assert isinstance(refused, Answer)
    assert words(refused.frame)[0] == "CLOSED"


def test_a_subscription_id_may_have_64_characters(session):
    assert isinstance(say(session, "REQ", "é" * 64, {}), Open)


def test_each_message_of_a_reconciliation_counts_as_a_request():
    authority = Authority("challenge", frozenset(), LIMITS)
    meter = Meter(Gauge(Rates(requests=Rate(60, 3), exempt=())), "198.51.100.1")
    session = Session(RelayPolicy(LIMITS), LIMITS, authority, meter)
    assert isinstance(say(session, "NEG-OPEN", "s", {"kinds": [1]}, "61"), Sync)
    assert [type(say(session, "NEG-MSG", "s", "61")) for _ in range(3)] == [SyncMore, SyncMore, SyncEnd]
    assert words(say(session, "NEG-MSG", "s", "61").frame)[2].startswith("closed:"), "it has ended"
