from dvm.conduct import deed_of
from dvm.job import Funds, State
from dvm.reputation import FRESH, HORIZON_S, MAX_DEEDS, NEUTRAL, Deed, Repute, Verdict, standing
from tests.property.market_part import SELLERS, World, purchase

NOW = 10**9
PRICE = 21_000


def deed(verdict: Verdict = Verdict.DELIVERED, *, claimed: bool = True, price: int = PRICE, **more) -> Deed:
    values = {"job_id": "j", "seller": "s", "kind": 5001, "at": NOW, "took_ms": 2_000, **more}
    return Deed(verdict=verdict, claimed=claimed, price=price, **values)


def score(*deeds: Deed, kind: int = 5001, price: int = PRICE, now: int = NOW) -> int:
    return standing(deeds, kind, price, now).reputation


def test_a_key_without_a_past_is_a_little_worse_than_a_coin() -> None:
    assert standing((), 5001, PRICE, NOW) == FRESH
    assert FRESH.reputation == NEUTRAL < 500


def test_paid_results_raise_it_and_everything_else_lowers_it() -> None:
    assert score(deed()) > NEUTRAL
    assert score(deed(), deed()) > score(deed())
    assert score(deed(Verdict.LATE, claimed=False)) < NEUTRAL
    assert score(deed(Verdict.FAILED, claimed=False)) < NEUTRAL
    assert score(deed(Verdict.BAD, claimed=False)) < score(deed(Verdict.LATE, claimed=False))
    assert score(deed(Verdict.LATE, claimed=True)) < score(deed(Verdict.BAD, claimed=False))


def test_free_jobs_and_unclaimed_money_earn_nothing() -> None:
    assert score(*[deed(claimed=False)] * 50) == NEUTRAL
    assert score(*[deed(price=0)] * 50) == NEUTRAL


def test_small_payments_show_little_for_a_large_one() -> None:
    crumbs = [deed(price=1_000)] * 20
    assert score(*crumbs, price=1_000) > 800
    assert score(*crumbs, price=10_000_000) < NEUTRAL + 5


def test_deeds_fade_over_ninety_days() -> None:
    ages = [score(deed(at=NOW - HORIZON_S * part // 3)) for part in range(4)]
    assert ages == sorted(ages, reverse=True)
    assert ages[-1] == NEUTRAL
    assert ages[0] > ages[1] > ages[2] > ages[3]


def test_good_work_counts_for_its_kind_and_a_theft_for_all() -> None:
    assert score(deed(kind=5050)) == NEUTRAL
    assert score(deed(Verdict.LATE, kind=5050)) < NEUTRAL


def test_quality_is_the_share_of_results_that_passed_whether_late_or_not() -> None:
    good, bad = deed(), deed(Verdict.BAD, claimed=False)
    assert standing([good], 5001, PRICE, NOW).quality > NEUTRAL > standing([bad], 5001, PRICE, NOW).quality
    assert standing([deed(Verdict.LATE, claimed=False)], 5001, PRICE, NOW).quality == NEUTRAL


def test_what_was_measured_is_the_mean_of_paid_results() -> None:
    seen = standing([deed(took_ms=1_000), deed(took_ms=3_000), deed(Verdict.LATE, took_ms=60_000)], 5001, PRICE, NOW)
    assert (seen.took_ms, seen.jobs) == (2_000, 3)


def test_the_same_job_counts_once_as_it_has_become_and_old_ones_make_room() -> None:
    repute = Repute()
    repute.learn(deed(claimed=False))
    assert repute.standing("s", 5001, PRICE, NOW).reputation == NEUTRAL
    repute.learn(deed(claimed=True))
    assert repute.standing("s", 5001, PRICE, NOW) == standing([deed()], 5001, PRICE, NOW)
    for number in range(2 * MAX_DEEDS):
        repute.learn(deed(job_id=str(number)))
    assert repute.standing("s", 5001, PRICE, NOW).jobs == MAX_DEEDS


def _paid_job() -> World:
    world = World(purchase())
    world.start()
    world.quote(SELLERS[0], 5_000)
    world.window(0)
    world.lock("done")
    return world


def test_a_job_tells_of_its_seller_once_it_was_paid_and_decided() -> None:
    world = _paid_job()
    assert deed_of(world.job) is None
    world.result(SELLERS[0], "", None)
    first = deed_of(world.job)
    assert first is not None
    assert (first.verdict, first.claimed) == (Verdict.DELIVERED, False)
    world.claim()
    world.watch()
    assert world.job.money is Funds.CLAIMED
    second = deed_of(world.job)
    assert second is not None
    assert second.claimed


def test_each_way_to_fail_has_its_word_and_our_own_cancel_none() -> None:
    late, failed, bad, ended = (_paid_job() for _ in range(4))
    late.deadline()
    failed.error(SELLERS[0])
    bad.result(SELLERS[0], "wrong", None)
    ended.cancel()
    found = [deed_of(world.job) for world in (late, failed, bad, ended)]
    assert [one.verdict if one else None for one in found] == [Verdict.LATE, Verdict.FAILED, Verdict.BAD, None]


def _sealed_job(mode: str) -> World:
    """A job whose result is here, sealed, and whose money is the seller's to take."""
    world = _ordered_job() if mode == "A" else World(purchase())
    if mode == "B":
        world.start()
        world.quote(SELLERS[0], PRICE, mode="B")
        world.window(0)
        world.lock("done")
    world.wait(2)
    world.sealed(SELLERS[0])
    if mode == "A":
        world.lock("done")
    assert world.job.state is State.SEALED
    world.claim()
    world.watch()
    return world


def _ordered_job() -> World:
    world = World(purchase())
    world.start()
    world.quote(SELLERS[0], PRICE, mode="A")
    world.window(0)
    assert world.job.state is State.ORDERED
    return world


def test_a_sealed_result_is_judged_once_its_key_is_shown_and_counted_from_the_order_on() -> None:
    for mode in "AB":
        good, bad, silent, ended = (_sealed_job(mode) for _ in range(4))
        assert deed_of(good.job) is None, "nobody has read it yet"
        good.show_key()
        bad.show_key("it is empty")
        silent.reveal_passed()
        ended.cancel()
        found = [deed_of(world.job) for world in (good, bad, silent, ended)]
        verdicts = [one.verdict if one else None for one in found]
        assert verdicts == [Verdict.DELIVERED, Verdict.BAD, Verdict.BAD, None]
        assert all(one.claimed and one.took_ms == 2_000 for one in found if one)


def test_a_job_that_was_ordered_and_not_done_speaks_against_its_seller() -> None:
    late, failed, ended = (_ordered_job() for _ in range(3))
    late.deadline()
    failed.error(SELLERS[0])
    ended.cancel()
    found = [deed_of(world.job) for world in (late, failed, ended)]
    assert [one.verdict if one else None for one in found] == [Verdict.LATE, Verdict.FAILED, None]


def test_what_one_seller_did_not_do_is_not_laid_to_the_next() -> None:
    for answer in ("sealed", "result", "error"):
        world = World(purchase())
        world.start()
        world.quote(SELLERS[0], 5_000, mode="A")
        world.quote(SELLERS[1], 6_000)
        world.window(0)
        getattr(world, answer)(*(SELLERS[0], "junk")[: 1 if answer == "error" else 2])
        assert (world.job.state, world.job.seller) == (State.PAYING, SELLERS[1]), "nothing was paid: the next is taken"
        assert deed_of(world.job) is None


def test_a_result_that_was_paid_for_by_invoice_speaks_for_its_seller() -> None:
    world = World(purchase())
    world.start()
    world.wait(3)
    world.unpaid_result(SELLERS[0], PRICE)
    world.window(0)
    world.lock("done")
    found = deed_of(world.job)
    assert found is not None
    assert (found.verdict, found.claimed, found.took_ms) == (Verdict.DELIVERED, True, 3_000)
