"""Who may write to an agent, decided from data alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from node.message.admission import (
    ANSWER_S,
    BURST_MINUTES,
    MAX_WRITTEN,
    Door,
    Mentions,
    Rules,
    Strangers,
    Verdict,
    read_rules,
    unfit,
    work_of,
)
from relays.event import Draft, Event
from relays.key import Key, npub
from relays.kind import DM, FILE

FRIEND, STRANGER, ENEMY = (Key(bytes([n]) * 32).pubkey for n in (1, 2, 3))
RULES = Rules(contacts=frozenset({FRIEND, ENEMY}), deny=frozenset({ENEMY}))
WRAP = Key(b"\x09" * 32).sign(Draft(1059, "x", (), 1))


def _judge(door: Door, sender: str, *, bits: int = 0, kind: int = DM, now: int = 100, mono: float = 0.0) -> tuple:
    return door.judge(sender, bits, kind, now, mono)


def test_contacts_are_heard_strangers_are_not_and_the_denied_never() -> None:
    door = Door(RULES)
    assert _judge(door, FRIEND) == (Verdict.TAKE, "contact")
    assert _judge(door, STRANGER) == (Verdict.DROP, "stranger")
    assert _judge(door, ENEMY) == (Verdict.DROP, "denied")
    assert _judge(Door(replace(RULES, strangers=Strangers.ALL)), ENEMY) == (Verdict.DROP, "denied")


def test_a_stranger_who_worked_is_heard() -> None:
    door = Door(replace(RULES, strangers=Strangers.POW, pow_bits=16))
    assert _judge(door, STRANGER, bits=15) == (Verdict.DROP, "stranger")
    assert _judge(door, STRANGER, bits=16) == (Verdict.TAKE, "stranger")
    assert _judge(door, FRIEND, bits=0) == (Verdict.TAKE, "contact")


def test_a_stranger_who_paid_is_a_contact_until_it_runs_out() -> None:
    door = Door(replace(RULES, strangers=Strangers.PAY))
    assert _judge(door, STRANGER) == (Verdict.TOLL, "stranger")
    door.paid[STRANGER] = 200
    assert _judge(door, STRANGER, now=199) == (Verdict.TAKE, "contact")
    assert _judge(door, STRANGER, now=200) == (Verdict.TOLL, "stranger")
    assert door.replaced(RULES).known(STRANGER, 199), "other rules do not take away what was paid for"


@pytest.mark.parametrize("strangers", list(Strangers))
def test_nothing_is_ever_fetched_for_a_stranger(strangers: Strangers) -> None:
    door = Door(replace(RULES, strangers=strangers))
    assert _judge(door, STRANGER, bits=32, kind=FILE)[0] is Verdict.DROP
    assert _judge(door, FRIEND, kind=FILE)[0] is Verdict.TAKE


def test_a_sender_has_so_many_a_minute_and_those_of_ten_minutes_at_once() -> None:
    door = Door(replace(RULES, per_minute=6))
    most = 6 * BURST_MINUTES
    assert [_judge(door, FRIEND)[0] for _ in range(most + 5)] == [Verdict.TAKE] * most + [Verdict.DROP] * 5
    assert _judge(door, FRIEND, mono=10.0) == (Verdict.TAKE, "contact")
    assert _judge(door, FRIEND, mono=10.0) == (Verdict.DROP, "rate")


@given(st.integers(1, 40))
def test_however_many_keys_a_stranger_has_all_together_have_one_rate(keys: int) -> None:
    door = Door(replace(RULES, strangers=Strangers.ALL, strangers_per_minute=10))
    taken = [_judge(door, Key(bytes([7]) * 31 + bytes([n])).pubkey)[0] for n in range(1, keys + 1)]
    assert taken.count(Verdict.TAKE) == min(keys, 10)
    assert _judge(door, FRIEND) == (Verdict.TAKE, "contact"), "and a contact is not in that line"


def test_a_glance_agrees_with_the_judgement_and_counts_nothing() -> None:
    door = Door(replace(RULES, per_minute=0))
    for _ in range(50):
        assert door.glance(FRIEND, 0, 100) == (Verdict.TAKE, "contact")
    assert _judge(door, FRIEND)[0] is Verdict.TAKE
    assert door.glance(STRANGER, 0, 100) == (Verdict.DROP, "stranger")


@pytest.mark.parametrize(
    ("mentions", "author", "heard"),
    [
        (Mentions.NONE, FRIEND, False),
        (Mentions.CONTACTS, FRIEND, True),
        (Mentions.CONTACTS, STRANGER, False),
        (Mentions.ALL, STRANGER, True),
        (Mentions.ALL, ENEMY, False),
    ],
)
def test_whose_notes_reach_the_inbox(mentions: Mentions, author: str, heard: bool) -> None:
    assert Door(replace(RULES, mentions=mentions)).hears(author, 0, 0.0)[0] is heard


def _mined(bits: int, committed: str | None) -> Event:
    tags = () if committed is None else (("nonce", "1", committed),)
    return replace(WRAP, id=f"{1 << (255 - bits):064x}", tags=tags)


@pytest.mark.parametrize(
    ("bits", "committed", "counts"),
    [(20, "20", 20), (30, "20", 20), (10, "20", 10), (20, None, 0), (20, "x", 0), (20, "99999", 0), (0, "20", 0)],
)
def test_only_work_that_was_committed_to_counts(bits: int, committed: str | None, counts: int) -> None:
    assert work_of(_mined(bits, committed)) == counts


def test_what_is_not_looked_at() -> None:
    assert unfit(WRAP, 10) is None
    assert unfit(replace(WRAP, content=""), 10) == "size"
    assert unfit(replace(WRAP, content="x" * 60_001), 10) == "size"
    assert unfit(replace(WRAP, tags=(("expiration", "10"),)), 10) == "expired"
    assert unfit(replace(WRAP, tags=(("expiration", "11"),)), 10) is None
    assert unfit(replace(WRAP, tags=(("expiration", "soon"),)), 10) == "expired"


def test_rules_go_round_and_what_is_not_named_stays() -> None:
    rules = read_rules({"contacts": [npub(FRIEND)], "strangers": "pow", "pow_bits": 8})
    assert rules == Rules(contacts=frozenset({FRIEND}), strangers=Strangers.POW, pow_bits=8)
    assert read_rules(rules.to_dict()) == rules
    assert read_rules({"acknowledge": True}, rules) == replace(rules, acknowledge=True)


@pytest.mark.parametrize(
    "value",
    [
        {"nonsense": 1},
        {"contacts": "npub"},
        {"contacts": ["not a key"]},
        {"deny": [1]},
        {"strangers": "some"},
        {"mentions": "maybe"},
        {"pow_bits": 33},
        {"pow_bits": True},
        {"toll_sat": -1},
        {"per_minute": 1.5},
        {"acknowledge": 1},
    ],
)
def test_rules_that_are_none_are_refused(value: dict) -> None:
    with pytest.raises(InvalidInput):
        read_rules(value)


def test_whom_the_agent_wrote_to_may_answer_in_text_within_the_rate_of_strangers_and_for_a_while() -> None:
    door = Door(replace(RULES, strangers=Strangers.PAY, strangers_per_minute=3))
    door.wrote(STRANGER, 100, first=False)
    assert _judge(door, STRANGER)[0] is Verdict.TOLL, "an answer to a stranger opens nothing"
    door.wrote(STRANGER, 100, first=True)
    door.wrote(ENEMY, 100, first=True)
    assert door.glance(STRANGER, 0, 100) == (Verdict.TAKE, "answer")
    assert _judge(door, STRANGER, kind=FILE)[0] is Verdict.DROP
    assert [_judge(door, STRANGER) for _ in range(3)] == [(Verdict.TAKE, "answer")] * 2 + [(Verdict.DROP, "rate")]
    assert _judge(door, ENEMY) == (Verdict.DROP, "denied")
    assert door.replaced(RULES).glance(STRANGER, 0, 100)[0] is Verdict.TAKE
    assert door.glance(STRANGER, 0, 100 + ANSWER_S)[1] == "stranger"
    assert not door.known(STRANGER, 100)


def test_an_agent_remembers_so_many_to_whom_it_wrote() -> None:
    door = Door(RULES)
    for number in range(MAX_WRITTEN + 5):
        door.wrote(f"{number:064x}", 100, first=True)
    assert len(door.written) == MAX_WRITTEN
    assert f"{0:064x}" not in door.written


def test_work_is_asked_for_before_a_wrap_is_opened_only_if_nobody_may_answer() -> None:
    door = Door(Rules(strangers=Strangers.POW, pow_bits=8))
    assert not door.needs_work(0), "nobody has looked yet to whom it wrote"
    door.recalled = True
    assert door.needs_work(0)
    door.wrote(STRANGER, 100, first=True)
    assert not door.needs_work(0)
