"""M1 to M8 (DESIGN §6) over the pure machines of buyer, seller and payment, in histories drawn anew for each commit.

A history has a buyer, 3 to 8 sellers and two mints, at least one fault and one adversary, and goes on until all money
is final. `make simulate` plays 100,000; `python -m tests.simulation.pure --seed N` tells the story of one.
"""

import random
import re
import sys
from pathlib import Path

import pytest

from tests.simulation.pure.cover import WAIVED, strays, zeros
from tests.simulation.pure.judge import RULES
from tests.simulation.pure.planted import PLANTED, Planted
from tests.simulation.pure.play import Played, play, recording, shrink, survey, transitions
from tests.simulation.pure.plot import large, plot
from tests.simulation.pure.world import Coverage

DRAWN = 4_000
MOST = 48_000  # so many until everything that must be met was met
CAUGHT_WITHIN = 1_500
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "simulation.md"
pytestmark = pytest.mark.timeout(600)


class Sample:
    """What the histories of this commit found."""

    def __init__(self) -> None:
        self.base = random.randrange(1 << 40)
        self.coverage = Coverage()
        self.failed = survey(range(self.base, self.base + DRAWN), self.coverage)


_DONE: list[Sample] = []


@pytest.fixture
def sample() -> Sample:
    """Made once, whichever test comes first."""
    if not _DONE:
        _DONE.append(Sample())
    return _DONE[0]


def _told(failed: list[Played]) -> str:
    return "\n".join(
        f"seed {one.plot.seed}: {one.breaches[:3]}; shortest: {shrink(one.plot, one.breaches[0][0])}"
        for one in failed[:3]
    )


@pytest.mark.parametrize("rule", RULES)
def test_no_history_breaks(rule: str, sample: Sample) -> None:
    broken = [one for one in sample.failed if any(found == rule for found, _ in one.breaches)]
    assert not broken, _told(broken)


def test_histories_are_long_enough_to_mean_something(sample: Sample) -> None:
    assert sample.coverage.events / sample.coverage.histories >= 40


def test_every_transition_crash_point_fault_adversary_and_method_is_met(sample: Sample) -> None:
    coverage = sample.coverage
    seed = sample.base + DRAWN
    while zeros(coverage) and coverage.histories < MOST:
        assert not survey(range(seed, seed + 500), coverage)
        seed += 500
    sys.stdout.write(f"{coverage.histories} histories from seed {sample.base}\n{coverage.report()}\n")
    assert not zeros(coverage)
    assert not strays(coverage)


def test_what_is_waived_names_rows_that_exist() -> None:
    assert set(WAIVED) <= transitions()
    assert all(WAIVED.values())


def test_a_market_of_hundreds_of_nodes_keeps_the_rules(sample: Sample) -> None:
    coverage = Coverage()
    failed = survey(range(sample.base, sample.base + 1), coverage, lambda seed: large(seed, 400))
    assert not failed, [one.breaches[:5] for one in failed]
    assert coverage.events > 10_000


def test_a_seed_tells_the_same_story_again() -> None:
    def story(seed: int) -> list[str]:
        with recording(Coverage()):
            return play(plot(seed), Coverage(), tells=True).story

    for seed in (23, 1_000_007):
        assert story(seed) == story(seed)
        assert story(seed)


def test_every_rule_has_a_planted_fault() -> None:
    assert {planted.rule for planted in PLANTED} == set(RULES)


@pytest.mark.parametrize("planted", PLANTED, ids=[f"{one.rule}: {one.name}" for one in PLANTED])
def test_a_planted_fault_is_caught_by_its_rule(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.plant(monkeypatch)
    assert _first(planted) is not None, "nobody saw it"


def _first(planted: Planted) -> Played | None:
    with recording(Coverage()):
        for seed in range(CAUGHT_WITHIN):
            try:
                played = play(planted.plot(seed), Coverage())
            except (KeyError, AttributeError):  # what is planted may lead where no fact is any more
                continue
            if any(rule == planted.rule for rule, _ in played.breaches):
                return played
    return None


def test_a_failing_history_shrinks_and_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = next(one for one in PLANTED if one.name == "more is paid than was quoted")
    planted.plant(monkeypatch)
    found = _first(planted)
    assert found is not None
    small = shrink(found.plot, "M2")
    assert not small.faults
    assert not small.crashes
    assert not small.strangers
    assert (len(small.stalls), len(small.jobs)) == (1, 1)
    with recording(Coverage()):
        assert "M2" in {rule for rule, _ in play(small, Coverage()).breaches}


def test_the_page_lists_every_planted_fault() -> None:
    listed = re.findall(r"^\| (M\d) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert [(rule, name.strip()) for rule, name in listed] == [(one.rule, one.name) for one in PLANTED]
