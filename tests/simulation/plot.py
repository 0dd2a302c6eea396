"""From a seed to a script: what goes wrong in a run. A part of every plot follows from the seed's remainder, so that a
few hundred runs meet every adversary and every crash point, and the rest is drawn.
"""

import logging
import random
from collections.abc import Iterable
from dataclasses import replace

from core.money import MicroUsd, Money, Msat
from tests.simulation.adversary import ADVERSARIES, enlist
from tests.simulation.coverage import Coverage
from tests.simulation.memo import remembering
from tests.simulation.virtual import run
from tests.simulation.watch import Watch
from tests.simulation.wire import Weather
from tests.simulation.world import FREE, PAID, Crash, Job, Script, Trigger, World

# Where a crash is worth it, and who must be around for a run to get there.
CRASH_POINTS: tuple[tuple[str, str, str], ...] = (
    ("buyer", "purchase staged/none", ""),
    ("buyer", "purchase quoting/none", ""),
    ("buyer", "purchase paying/locking", ""),
    ("buyer", "purchase working/locked", ""),
    ("buyer", "purchase delivered/locked", ""),
    ("buyer", "purchase delivered/claimed", ""),
    ("buyer", "purchase fallback/locked", "sleeper"),
    ("buyer", "purchase fallback/claimed", "thief"),
    ("buyer", "purchase delivered/refunding", "sleeper"),
    ("buyer", "purchase delivered/refunded", "sleeper"),
    ("buyer", "purchase fallback/none", "nobody"),
    ("buyer", "purchase delivered/none", "nobody"),
    ("buyer", "operation prepared", ""),
    ("buyer", "operation done", ""),
    ("buyer", "operation unknown", "faults"),
    ("cheap", "sale quoted", ""),
    ("cheap", "sale working", ""),
    ("cheap", "sale delivered", ""),
    ("cheap", "sale done", ""),
    ("cheap", "operation prepared", ""),
    ("cheap", "operation done", ""),
    ("cheap", "operation unknown", "faults"),
    ("cheap", "sale expired", "flood"),
)
CRASHES = tuple((point, after) for point in CRASH_POINTS for after in (False, True))


def plot(seed: int) -> Script:
    """The script of a seed; the first ones are written by hand."""
    if seed < len(SPECIALS):
        return SPECIALS[seed]
    chance = random.Random(f"plot {seed}")
    script = Script(seed, jobs=_jobs(chance))
    rough = chance.random() < 0.6
    if rough:
        script = replace(
            script,
            weather=Weather(
                drop=chance.choice((0, 0.1, 0.25)),
                repeat=chance.choice((0, 0.4)),
                forge=chance.choice((0, 0.3)),
                lose_ok=chance.choice((0, 0.3)),
                delay=chance.choice((0.05, 0.3, 0.8)),
            ),
            faults=chance.choice((0, 0.1, 0.3)),
        )
    script = replace(
        script,
        unpriced=chance.choice((0, 0, 0, 0.4)),
        unit=chance.choice(("uusd", "uusd", "msat")),
        order=chance.choice((("dvm", "builtin"),) * 6 + (("builtin", "dvm"), ("dvm",), ("builtin",))),
        funds=chance.choice((120, 120, 120, 120, 120, 20, 5)),
        clumsy=chance.choice((0, 0, 0.5, 0.9)),
        late_in_day=chance.random() < 0.15,
        sellers=chance.choice((2, 2, 1)),
        known=chance.random() < 0.4,
        spare=chance.random() < 0.3,
        storm=chance.choice((3.0, 3.0, 3.0, 100.0)),
        per_seller=chance.choice((30_000, 30_000, 30_000, 7_000)),
        prices=chance.choice(((7, 11), (7, 11), (9, 9), (14, 20))),
    )
    if chance.random() < 0.15:
        label = chance.choice(("operation prepared", "purchase quoting", "purchase working"))
        who = chance.choice(("buyer", "buyer", "cheap"))
        number = chance.choice((1, 2, 3))
        script = replace(script, triggers=(Trigger(who, label, "rotate", number=number),))
    if chance.random() < 0.12:
        who = chance.choice(("buyer", "cheap"))
        script = replace(script, partition=(who, chance.random() * 5, chance.choice((2.0, 6.0, 20.0))))
    adversaries = chance.sample(ADVERSARIES, chance.choice((0, 0, 1, 2)))
    script = replace(script, adversaries=tuple(adversaries))
    place = seed - len(SPECIALS)
    if place < len(CRASHES):
        return _with_crash(replace(script, weather=Weather(delay=0.05), faults=0.0, adversaries=()), place, chance)
    place -= len(CRASHES)
    if place < len(ADVERSARIES):
        styles = tuple(dict.fromkeys((ADVERSARIES[place], *adversaries)))
        return replace(script, adversaries=styles, known=False, order=("dvm", "builtin"), funds=120, sellers=2)
    turn = chance.random()
    if turn < 0.35:
        return _with_crash(script, chance.randrange(len(CRASHES)), chance)
    if turn < 0.6:
        times = sorted(chance.random() * 12 for _ in range(chance.choice((1, 1, 2))))
        crashes = tuple(Crash(chance.choice(("buyer", "buyer", "cheap")), at=at) for at in times)
        return replace(script, crashes=crashes)
    return script


ALONE = (90, 99)  # prices at which no honest seller is in the way


def _specials() -> tuple[Script, ...]:
    """What chance alone brings about too seldom."""
    job, late = Job("job-0"), Crash("buyer", "purchase quoting", 3, down=10.0)
    long = (Job("job-0", timeout_s=30),)
    lost = (Crash("cheap", "sale delivered", down=100.0), Crash("cheap", "sale lost"))
    unsafe = Trigger("buyer", "purchase delivered/refunding", "away", 5.0)
    slow = (Trigger("buyer", "purchase paying/locking", "outage", 12.0),)
    flaky = (Trigger("buyer", "purchase paying/locking", "flaky", 4.0),)
    jobs = (job, Job("job-1", at=0.1))
    dvm = ("dvm",)
    plain = Script(0, known=False)
    outage = (Trigger("buyer", "purchase paying/locking", "outage", 9.0),)
    return (
        replace(plain, triggers=outage, order=dvm),
        replace(plain, triggers=outage),
        replace(plain, triggers=(*outage, Trigger("buyer", "purchase paying/locking", "cancel", 1.0))),
        replace(plain, triggers=(Trigger("buyer", "operation prepared", "rotate", number=3),)),
        replace(plain, triggers=(Trigger("buyer", "purchase paying/locking", "rotate"),)),
        replace(plain, funds=5, order=dvm),
        replace(plain, funds=5, adversaries=("donor",)),
        replace(plain, adversaries=("donor",), prices=ALONE),
        replace(plain, adversaries=("donor",), prices=ALONE, crashes=(late,), sellers=1),
        replace(plain, adversaries=("changer",), prices=ALONE),
        replace(plain, prices=ALONE, triggers=(Trigger("buyer", "purchase fallback/none", "cancel", 0.02),)),
        replace(plain, prices=ALONE, order=dvm, crashes=(Crash("buyer", "purchase quoting", 1, down=10.0),)),
        replace(plain, adversaries=("promiser",), prices=ALONE, seed=5),
        replace(plain, jobs=long, triggers=slow),
        replace(plain, jobs=long, triggers=slow, order=dvm),
        replace(plain, triggers=flaky),
        replace(plain, seed=1, triggers=flaky),
        replace(plain, triggers=(Trigger("buyer", "purchase paying/locking", "refusing", 3.0),)),
        replace(plain, triggers=(Trigger("cheap", "sale working", "refusing", 3.0),)),
        replace(plain, adversaries=("sleeper",), triggers=(unsafe,)),
        *(replace(plain, seed=seed, adversaries=("racer",)) for seed in range(4)),
        replace(plain, adversaries=("refunder",), sellers=1, crashes=lost, jobs=()),
        replace(plain, adversaries=("promiser",), prices=ALONE),
        replace(plain, seed=3, adversaries=("promiser",), prices=ALONE),
        replace(plain, seed=4, adversaries=("promiser",), prices=ALONE, order=dvm),
        replace(plain, adversaries=("garbage",), prices=ALONE, order=dvm),
        replace(plain, adversaries=("garbage",), prices=ALONE),
        replace(plain, adversaries=("quitter",), order=dvm),
        replace(plain, adversaries=("donor",), per_seller=3_000, jobs=jobs),
        replace(plain, per_seller=7_000, jobs=jobs),
        replace(plain, per_seller=3_000, jobs=jobs, order=dvm, sellers=1),
        replace(plain, per_seller=3_000, jobs=jobs, sellers=1),
        replace(plain, clumsy=3.0, spare=True, order=("builtin",)),
        replace(plain, clumsy=3.0, spare=True, order=("builtin", "dvm")),
        replace(plain, sellers=1, crashes=lost),
        replace(plain, adversaries=("sleeper",), faults=0.7, storm=130.0),
        replace(plain, seed=5, adversaries=("sleeper",), faults=0.7, storm=130.0),
        replace(plain, seed=6, adversaries=("sleeper",), faults=0.5, storm=130.0),
        replace(plain, adversaries=("sleeper",), jobs=(replace(job, cancel_at=2.5),)),
        replace(plain, adversaries=("deleter",), jobs=(replace(job, cancel_at=0.5),)),
        replace(plain, clumsy=1.0, sellers=1, order=dvm),
        replace(plain, adversaries=("fair", "tardy"), late_in_day=True, jobs=jobs),
        replace(plain, jobs=(replace(job, maximum=MicroUsd(900)),), order=dvm),
    )


SPECIALS = _specials()
DIRECTED = len(SPECIALS) + len(CRASHES) + len(ADVERSARIES)  # so many seeds meet everything that must be met


def _with_crash(script: Script, number: int, chance: random.Random) -> Script:
    """A crash at a certain point, under conditions that lead there."""
    (node, label, needs), after = CRASHES[number]
    script = replace(
        script, funds=120, order=("dvm", "builtin"), unpriced=0.0, clumsy=0.0, per_seller=30_000, prices=(7, 11),
        jobs=tuple(replace(job, kind=PAID, maximum=None, cancel_at=None) for job in script.jobs), known=False,
        partition=None,
    )  # fmt: skip
    others = tuple(style for style in script.adversaries if style not in ("thief", "generous", "twoface", "changer"))
    if needs == "nobody":
        script = replace(script, prices=(90, 99))
    elif needs == "faults":
        script = replace(script, faults=0.5)
    elif needs:
        script = replace(script, adversaries=tuple(dict.fromkeys((needs, *others))))
    if not needs:
        script = replace(script, adversaries=others[:1])
    return replace(script, crashes=(Crash(node, label, 1, after),))


def _jobs(chance: random.Random) -> tuple[Job, ...]:
    jobs = []
    for place in range(chance.choice((1, 1, 2, 2, 3))):
        maximum: Money | None = chance.choice(
            (None, None, None, None, MicroUsd(12_000), Msat(18_000), MicroUsd(900), Msat(10**9))
        )
        jobs.append(
            Job(
                f"job-{place}",
                at=chance.random() * 4 * place,
                kind=FREE if chance.random() < 0.12 else PAID,
                maximum=maximum,
                cancel_at=chance.choice((0.0, 0.02, 0.4, 1.6, 2.0, 3.0)) if chance.random() < 0.12 else None,
                again=chance.random() < 0.2,
            )
        )
    return tuple(jobs)


def play(script: Script, coverage: Coverage | None = None) -> Watch:
    """Run a script to its end, watched."""
    world = World(script)
    watches: list[Watch] = []

    async def story() -> None:
        world.build()
        underworld = enlist(world)
        watch = Watch(world, underworld)
        watches.append(watch)
        if script.adversaries:
            await underworld.fund(200)
        try:
            await world.play()
            watch.finish()
        finally:
            await world.close()

    logging.disable(logging.CRITICAL)
    try:
        with remembering():
            run(story(), world.loop)
    finally:
        logging.disable(logging.NOTSET)
    if coverage is not None:
        coverage.add(world, watches[0].checks)
    return watches[0]


def survey(seeds: Iterable[int], coverage: Coverage) -> dict[str, list[str]]:
    """Run the plots of these seeds; what broke which rule, with the seed that shows it again."""
    found: dict[str, list[str]] = {}
    for seed in seeds:
        watch = play(plot(seed), coverage)
        for rule, texts in watch.breaches.items():
            found.setdefault(rule, []).extend(f"seed {seed}: {text}" for text in texts)
    return found
