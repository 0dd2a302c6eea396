from typing import Any

import pytest

from core.error import Conflict, InvalidInput, Paused, StoreUncertain
from node.agent.error import ConfigRefused, NoProgram, StateRefused, StorageFull
from node.agent.tick.limit import TickLimits
from node.agent.tick.supervision import HEALS, Failure, Kind, judge, reason_code
from node.storage.error import StoreFull

LIMITS = TickLimits(tries=3, quarantine=5, back_off_ms=100, pause_ms=7, full_ms=9)
FAULT = Failure("agent.failed", "The program raised ValueError.")


def ruling(failure: Failure, tries: int = 0, failures: int = 0) -> Any:
    return judge(failure, {"tries": tries}, {"failures": failures}, LIMITS, 1_000)


def test_a_trigger_is_tried_again_later_and_later_and_then_it_is_dead() -> None:
    found = [ruling(FAULT, tries) for tries in range(3)]
    assert [one.tries for one in found] == [1, 2, 3]
    assert [one.next_at_ms - 1_000 for one in found] == [100, 200, 400]
    assert [one.dead for one in found] == [False, False, True]
    assert ruling(FAULT, 10_000).next_at_ms == 1_000 + 3_600_000, "an hour at most"


def test_an_agent_that_fails_again_and_again_is_set_aside() -> None:
    found = [ruling(FAULT, 0, failures) for failures in range(6)]
    assert [bool(one.reason) for one in found] == [False, False, False, False, True, True]
    assert [one.failures for one in found] == [1, 2, 3, 4, 5, 6]
    assert found[4].reason.startswith("agent.failing: 5 ticks in a row failed, the last with agent.failed: ")


@pytest.mark.parametrize(
    ("error", "kind", "wait"),
    [(Paused(), Kind.PAUSED, 7), (StoreFull(), Kind.PAUSED, 7), (StoreUncertain(), Kind.PAUSED, 7),
     (StorageFull(), Kind.FULL, 9)],
)  # fmt: skip
def test_what_is_nobodys_fault_counts_as_no_try(error: Any, kind: Kind, wait: int) -> None:
    failure = Failure.of(error)
    assert failure.kind is kind
    found = ruling(failure, 2, 4)
    assert (found.tries, found.failures, found.dead, found.reason) == (2, 4, False, "")
    assert found.next_at_ms == 1_000 + wait


@pytest.mark.parametrize("error", [NoProgram("none"), ConfigRefused("no"), StateRefused("no")])
def test_what_no_trigger_can_help_sets_the_agent_aside_at_once_and_costs_no_try(error: Any) -> None:
    found = ruling(Failure.of(error), 1, 0)
    assert (found.tries, found.dead) == (1, False)
    assert reason_code(found.reason) == error.code
    assert reason_code(found.reason) in HEALS


def test_other_errors_are_the_programs_fault_and_conflicts_are_tried_at_once() -> None:
    assert Failure.of(InvalidInput("no")).kind is Kind.FAULT
    assert Failure.of(Conflict("no")).kind is Kind.CONFLICT
    assert ruling(Failure.of(Conflict("no")), 2).dead, "once that has been in vain"


def test_an_error_is_kept_in_bounds() -> None:
    assert len(Failure("agent.failed", "x" * 100_000).text) == 1_000
    assert len(ruling(Failure("a", "x" * 100_000), 0, 99).reason) == 1_000
