"""Several purchases of one job: each with its own liars, losses and crashes, in any order, and one outcome at most."""

import os
import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256

from core.change import replace
from core.money import Msat
from dvm.job import ENDED, FINAL, Purchase, State
from dvm.parcel import Kept
from dvm.policy import MARKET
from dvm.quorum import Outcome, Ruling, is_shown, judged, spare, together, weigh
from dvm.redundancy import Seat, canonical, seat_id
from dvm.reputation import Verdict
from dvm.view import PurchaseView
from tests.property.market_part import SELLERS, World, happenings, purchase

SEED = int(os.environ.get("SEED", "1"))
HISTORIES = 40
AGREE, OF = 2, 3
WHOLE = 24_000  # µUSD, of which each purchase has a third


def heard(job: Purchase, honest: frozenset[str]) -> Purchase:
    """With what its seller found: the honest find the same, the others each something else."""
    if job.state is not State.DELIVERED:
        return job
    return replace(job, result=" 42\n" if job.seller in honest else f"lie of {job.seller}")


class Panel:
    """Three purchases, and what was known of them before."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.honest = frozenset(chance.sample(SELLERS, chance.choice((0, 1, 2, 2, 3))))
        self.worlds = []
        for number in range(1, OF + 1):
            own = replace(
                purchase((MARKET,), WHOLE // OF), job_id=seat_id("p", number), seat=Seat("p", number, AGREE, OF)
            )
            self.worlds.append(World(own))
        self.known = Ruling(Outcome.OPEN)

    @property
    def jobs(self) -> list[Purchase]:
        return [heard(world.job, self.honest) for world in self.worlds]

    def check(self) -> Ruling:
        jobs = self.jobs
        ruling = weigh(jobs)
        if self.known.decided:
            assert (ruling.outcome, ruling.text) == (self.known.outcome, self.known.text), "it was decided otherwise"
        self.known = ruling
        whole = PurchaseView(together(jobs), 0, tuple(PurchaseView(job, 0) for job in jobs))
        assert whole.cost == Msat(sum(PurchaseView(job, 0).cost.value for job in jobs)), "what was paid is not the sum"
        assert whole.cost <= whole.purchase.limit.ceiling, "paid above the reservation"
        assert sum(job.limit.value for job in jobs) <= WHOLE
        assert whole.ended == ruling.decided
        if ruling.outcome is Outcome.AGREED:
            voices = {job.seller for job in jobs if job.job_id in ruling.jobs}
            assert len(voices) == len(ruling.jobs) >= AGREE, "somebody had two voices"
            assert canonical(5001, whole.result or "") == ruling.text == "42", "liars never say the same here"
            assert not {job.seller for job in jobs if job.job_id in ruling.against} & self.honest
        else:
            assert whole.result is None
        return ruling

    def happen(self) -> None:
        world = self.chance.choice(self.worlds)
        happenings(world, self.chance)
        self.check()
        for job_id in spare(self.jobs):
            next(one for one in self.worlds if one.job.job_id == job_id).cancel()
            self.check()

    def go(self) -> None:
        """Each seller does what it should, in any order, while other things happen."""
        steps = [self._steps(world, seller) for world, seller in zip(self.worlds, SELLERS, strict=True)]
        while steps := [left for left in steps if left]:
            self.chance.choice(steps).pop(0)()
            self.check()
            if self.chance.random() < 0.1:
                self.happen()

    @staticmethod
    def _steps(world: World, seller: str) -> list[Callable[[], None]]:
        return [
            lambda: world.quote(seller, 5_000),
            lambda: world.window(0),
            lambda: world.lock("done"),
            lambda: world.result(seller),
            world.claim,
            world.watch,
        ]

    def end(self) -> Ruling:
        for world in self.chance.sample(self.worlds, OF):
            world.settle()
            self.check()
        ruling = self.check()
        assert ruling.decided, "it never ended"
        whole = together(self.jobs)
        assert whole.closed
        assert whole.money in FINAL
        assert whole.state in ENDED
        for job in self.jobs:
            after = judged(job, ruling, 1)
            assert (after.verdict is Verdict.BAD and after is not job) <= (job.job_id in ruling.against)
            assert judged(after, ruling, 2) is after, "it is judged once"
            assert not is_shown(job, ruling) or job.state is not State.DELIVERED or job.job_id in ruling.jobs
        return ruling


def test_k_agree_or_it_fails_clearly_whatever_happens_and_never_costs_more_than_is_reserved() -> None:
    ends: Counter[str] = Counter()
    for number in range(HISTORIES):
        seed = int.from_bytes(sha256(f"{SEED}/{number}".encode()).digest()[:4], "big")
        panel = Panel(random.Random(seed))
        try:
            for world in panel.worlds:
                world.start()
            if number % 2:
                panel.go()
            for _ in range(panel.chance.choice((10, 40, 100))):
                panel.happen()
            ends[panel.end().outcome] += 1
            PurchaseView(together(panel.jobs), 0, tuple(PurchaseView(job, 0) for job in panel.jobs)).to_dict()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert ends[Outcome.AGREED], ends
    assert ends[Outcome.FAILED], ends


def delivered(number: int, seller: str, result: str, state: State = State.DELIVERED) -> Purchase:
    own = replace(purchase((MARKET,)), job_id=seat_id("p", number), seat=Seat("p", number, AGREE, OF))
    return replace(own, state=state, seller=seller, result=result, provider=MARKET)


def test_one_seller_has_one_voice_however_many_purchases_it_was_given() -> None:
    twice = [delivered(1, "a", "x"), delivered(2, "a", "x"), delivered(3, "b", "y")]
    assert weigh(twice).outcome is Outcome.FAILED
    assert weigh([*twice[:2], delivered(3, "b", "x")]).outcome is Outcome.AGREED


def test_what_a_built_in_provider_found_is_nobody_s_voice() -> None:
    own = replace(delivered(1, "echo", "x"), provider="builtin")
    assert weigh([own, delivered(2, "b", "x"), delivered(3, "c", "y")]).outcome is Outcome.FAILED


def test_it_waits_for_as_long_as_enough_can_still_agree_and_no_longer() -> None:
    open_, failed, gone = (delivered(2, "b", "", one) for one in (State.WORKING, State.FAILED, State.CANCELLED))
    first = delivered(1, "a", "x")
    assert weigh([first, open_, replace(failed, job_id=seat_id("p", 3))]).outcome is Outcome.OPEN
    assert weigh([first, failed, delivered(3, "c", "", State.FAILED)]).outcome is Outcome.FAILED
    assert weigh([first, gone, delivered(3, "c", "", State.CANCELLED)]).outcome is Outcome.CANCELLED
    assert spare([first, open_, delivered(3, "c", "x")]) == (), "what is worked on goes on to its end"
    asked = replace(open_, state=State.QUOTING)
    assert spare([first, asked, delivered(3, "c", "x")]) == (asked.job_id,)
    assert spare([first, asked, delivered(3, "c", "y")]) == ()


def test_large_results_that_are_not_at_hand_agree_with_nothing() -> None:
    """Their text lies in files: no two of them are known to be the same."""
    panel = Panel(random.Random(SEED))
    kept = [Kept(sha256(str(n).encode()).hexdigest(), 70_000, "application/json") for n in range(OF)]
    jobs = [
        replace(world.job, state=State.DELIVERED, provider=MARKET, seller=seller, result="", kept=one)
        for world, seller, one in zip(panel.worlds, SELLERS, kept, strict=False)
    ]
    assert weigh(jobs).outcome is Outcome.FAILED
