"""M1 to M8 (DESIGN §6) over the whole market: real drivers, gates and wallets of a buyer and its sellers, at a model
mint that acts and then loses, delays or falsifies its answer, on a wire that drops, repeats, reorders and lies, with
crashes at every step that is written down, and with people around who mean harm.

One survey is made of many runs, and every rule is watched in each of them after every event and every commit. The
first seeds are chosen so that everything is met at least once; the others are drawn anew for each commit (`make
torture` draws thousands). A run is shown again by `play(plot(seed))`.
"""

import random
import sys

import pytest
from hypothesis import settings

from tests.property.planted_part import PLANTED, Planted
from tests.simulation.adversary import ADVERSARIES
from tests.simulation.coverage import Coverage, all_transitions, recording
from tests.simulation.plot import CRASHES, DIRECTED, FAULTS, play, plot, survey
from tests.simulation.seal_adversary import SEAL_ADVERSARIES
from tests.simulation.watch import RULES
from wallet.payment import TRANSITIONS, State

TORTURE = settings.default is not None and settings.default.max_examples > 1_000
DRAWN = 2_000 if TORTURE else 40

UNREACHABLE = {
    "buyer: staged, CancelAsked -> cancelled": "the first step of a job takes its lock before anybody can cancel it",
    "buyer: staged, Start -> failed (2)": "the driver refuses a request that nothing on the route serves",
    "buyer: quoting, WindowClosed -> delivered": "a result that is stated to be free is taken when it comes",
    "buyer: paying, BudgetDenied -> delivered": "the same",
    "buyer: paying, LockFailed -> delivered": "the same",
    "buyer: ordered, SealedArrived -> delivered (1)": "the same",
    "buyer: ordered, SellerFailed -> delivered": "the same",
    "buyer: ordered, BudgetDenied -> delivered": "the same",
    "wallet: in_progress": "no honest mint leaves coins pending in a swap; in test_payment_saga.py",
    "wallet: partly_signed": "no honest mint signs a part; in test_payment_saga.py",
}
# Counters that were used twice, as by a copied file, are shown in tests/unit/wallet/test_collision.py.
TWICE = {"wallet: collided", "wallet: contested", "wallet: not_ours"}
# What only a deposit that is not paid goes through is shown in test_payment_saga.py.
DEPOSITS = {f"wallet: {row.name}" for row in TRANSITIONS if State.WAITING in (row.to, *row.states)}
# Lightning invoices are met, with their crashes and cheats, in tests/unit/dvm/test_bill.py and test_checkout.py.
_OF_INVOICES = ("Invoice", "invoicing", "Credit", "lapsed", "owed", "repaid", "Lent", "billed")
INVOICES = {name for name in all_transitions() if any(word in name for word in _OF_INVOICES)} | {
    "buyer: none, Chosen -> locking",
    "buyer: quoting, ResultArrived -> ordered (2)",
    "buyer: quoting, ResultArrived -> paying (3)",
    "seller: working, WorkDone -> done (1)",
}
# What is drawn from a deposit is met in tests/unit/dvm/test_prepaid.py, by the machines in test_voucher.py.
PREPAID = {name for name in all_transitions() if "Voucher" in name} | {
    "buyer: locked, ResultArrived -> claimed",
    "seller: working, WorkDone -> done (3)",
    "seller: working, WorkFailed -> failed (2)",
}
# Results that go to file servers, with their crashes, are met in tests/integration/dvm and in the fast simulation; one
# for which there is no room on the disk in tests/unit/dvm/test_full_disk.py.
LARGE = {name for name in all_transitions() if "storing" in name or "KeyHeld" in name}
# A seller that is asked to work first (mode A) and answers in the clear: in test_buyer_machine.py.
UNSEALED = {name for name in all_transitions() if name.startswith("buyer: ordered, ResultArrived")}
# The melt that pays an invoice, from its refusal to its receipt, is shown in test_payment_saga.py.
MELTS = {"wallet: disputed", "wallet: expired_unpaid", "wallet: in_flight", "wallet: may_arrive"}


class Survey:
    """What many runs found."""

    def __init__(self) -> None:
        self.base = random.randrange(1_000, 1 << 30)
        self.coverage = Coverage()
        seeds = [*range(DIRECTED), *range(self.base, self.base + DRAWN)]
        self.runs = len(seeds)
        with recording(self.coverage):
            self.breaches = survey(seeds, self.coverage)

    def holds(self, rule: str) -> None:
        found = self.breaches.get(rule, [])
        said = "\n".join(found[:20])
        assert not found, f"{rule} was broken {len(found)} times in {self.runs} runs (drawn from {self.base}):\n{said}"
        assert self.coverage.checks[rule] > self.runs, f"{rule} was hardly looked at"


_DONE: list[Survey] = []


@pytest.fixture
def market() -> Survey:
    """Made once, whichever test comes first."""
    if not _DONE:
        _DONE.append(Survey())
    return _DONE[0]


pytestmark = pytest.mark.timeout(3_600 if TORTURE else 240)


def test_m1_each_accepted_quote_is_paid_at_most_once_and_within_the_reservation(market: Survey) -> None:
    market.holds("M1")


def test_m2_nothing_is_paid_above_the_quote_nor_to_anybody_but_the_chosen_seller(market: Survey) -> None:
    market.holds("M2")


def test_m3_money_is_conserved_after_each_commit_and_each_crash(market: Survey) -> None:
    market.holds("M3")


def test_m4_a_reservation_closes_when_all_its_money_is_final_and_its_cost_is_booked(market: Survey) -> None:
    market.holds("M4")


def test_m5_a_payment_that_may_have_happened_is_never_undone_on_a_guess(market: Survey) -> None:
    market.holds("M5")


def test_m6_only_verified_events_are_acted_on_and_each_only_once(market: Survey) -> None:
    market.holds("M6")


def test_m7_a_seller_never_works_without_limit_for_a_stranger_who_does_not_pay(market: Survey) -> None:
    market.holds("M7")


def test_m8_a_budget_has_one_unit_and_a_job_one_rate(market: Survey) -> None:
    market.holds("M8")


def test_every_transition_crash_point_fault_and_adversary_was_met(market: Survey) -> None:
    coverage = market.coverage
    sys.stdout.write(f"{market.runs} runs, drawn from {market.base}\n{coverage.report()}\n")
    crashes = [f"{'after' if after else 'before'} {point[1]}" for point, after in CRASHES]
    elsewhere = DEPOSITS | TWICE | INVOICES | PREPAID | LARGE | UNSEALED | MELTS
    assert not coverage.zeros("transitions", all_transitions() - set(UNREACHABLE) - elsewhere)
    assert not coverage.zeros("crashes", [*crashes, "at a random time"])
    assert not coverage.zeros("actors", [f"actor {style}" for style in (*ADVERSARIES, *SEAL_ADVERSARIES)])
    assert not coverage.actors["keeper steals"], "a signature for the main path was good for the refund path"
    assert not coverage.zeros("actors", [f"{fault} after {swap[1]}" for swap, fault in FAULTS])
    assert not coverage.zeros("faults", [f"swap {fault}" for _, fault in FAULTS])


def test_every_rule_has_a_planted_bug() -> None:
    assert {planted.rule for planted in PLANTED} == set(RULES)


@pytest.mark.parametrize("planted", PLANTED, ids=[f"{one.rule}: {one.name}" for one in PLANTED])
def test_a_planted_bug_is_caught_by_its_rule(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(play(script).breaches[planted.rule] for script in planted.scripts[:1]), "it must be clean without it"
    planted.plant(monkeypatch)
    assert any(play(script).breaches[planted.rule] for script in planted.scripts), "nobody saw it"


def test_a_seed_shows_the_same_run_again() -> None:
    def story(seed: int) -> list[tuple[float, str]]:
        watch = play(plot(seed))
        world = watch.world
        ends = [(row["state"], row["money"]) for row in world.buyer.rows("purchase")]
        said = [(event.kind, event.value("status")) for event in world.relay.events.values()]
        return [(world.clock.monotonic(), f"{ends} {said} {sorted(world.commits.items())}")]

    for seed in (DIRECTED + 3, DIRECTED + 11, DIRECTED + 12):
        assert story(seed) == story(seed)
