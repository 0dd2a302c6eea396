"""The judge, by cases."""

from dataclasses import replace

import pytest

from core.effect import EffectClass, Intent
from core.money import MicroUsd, Msat
from node.gate.compile import Allow, Deny, Facts, Reason, Usage, judge
from node.gate.writ import operator_writ
from tests.gate_part import LIMITS, START, intent

CALM = Facts(START, paused=False)
CUSTOMER = "customer:" + "ab" * 32


def verdict(asked: Intent, facts: Facts = CALM) -> Reason | str:
    decision = judge(asked, operator_writ(), LIMITS, facts)
    return decision.reason if isinstance(decision, Deny) else "allow"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (intent(), "allow"),
        (intent(reserve=1_000), "allow"),
        (intent(reserve=1_001), Reason.BUDGET),
        (intent(reserve=-1), Reason.INVALID),
        (intent(reserve=MicroUsd(1)), Reason.BUDGET),
        (intent(key=""), Reason.INVALID),
        (intent(key="x" * 257), Reason.INVALID),
        (intent(path="compute/new"), Reason.INVALID),
        (intent(path="/compute//new"), Reason.INVALID),
        (intent(path="/compute/../wallet/send"), Reason.INVALID),
        (intent(path="/compute/new\n"), Reason.INVALID),
        (intent(path="/"), Reason.INVALID),
        (intent(caller="root"), Reason.INVALID),
        (intent(caller="agent:"), Reason.INVALID),
        (intent(caller="agent:a/b"), Reason.INVALID),
        (intent(caller="customer:xyz"), Reason.INVALID),
        (intent(caller="operator\n"), Reason.INVALID),
        (intent(caller="agent:buyer"), "allow"),
        (intent(caller="agent:buyer", path="/wallet/send"), Reason.AUTHORITY),
        (intent(path="/wallet/send"), "allow"),
        (intent(caller=CUSTOMER), Reason.AUTHORITY),
        (intent(caller=CUSTOMER, path="/serve/5001", reserve=None, effect=EffectClass.EXTERNAL), "allow"),
        (intent(caller=CUSTOMER, path="/serve/5001", reserve=None), Reason.AUTHORITY),
        (replace(intent(), subject=""), Reason.INVALID),
    ],
)
def test_shape_authority_and_limits(asked: Intent, said: Reason | str) -> None:
    assert verdict(asked) == said


def test_a_paused_node_begins_nothing() -> None:
    paused = Facts(START, paused=True)
    assert verdict(intent(), paused) == Reason.PAUSED
    assert verdict(intent(reserve=None), paused) == Reason.PAUSED
    assert verdict(intent(caller=CUSTOMER), paused) == Reason.AUTHORITY


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (Usage("msat", 4_000, 900), "allow"),
        (Usage("msat", 4_000, 901), Reason.BUDGET),
        (Usage("msat", 0, 9_999), Reason.BUDGET),
        (Usage("uusd", 0, 0), Reason.BUDGET),
    ],
)
def test_the_day_counts_what_is_held_and_what_is_spent(day: Usage, said: Reason | str) -> None:
    assert verdict(intent(), Facts(START, paused=False, day=day)) == said


def test_nothing_is_held_for_what_costs_nothing() -> None:
    assert judge(intent(reserve=0), operator_writ(), LIMITS, CALM) == Allow(None)
    assert judge(intent(reserve=None), operator_writ(), LIMITS, CALM) == Allow(None)
    assert judge(intent(reserve=7), operator_writ(), LIMITS, CALM) == Allow(Msat(7))
