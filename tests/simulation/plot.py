"""From a seed to a script: what goes wrong in a run. A part of every plot follows from the seed's remainder, so that a
few hundred runs meet every adversary and every crash point, and the rest is drawn.
"""

import logging
import random
from collections.abc import Iterable
from dataclasses import replace

from core.money import MicroUsd, Money, Msat
from tests.simulation.adversary import ADVERSARIES, Underworld, enlist
from tests.simulation.coverage import Coverage
from tests.simulation.memo import remembering
from tests.simulation.script import FREE, PAID, Crash, Job, Script, Trigger
from tests.simulation.seal_adversary import (
    ORDER_ROGUES,
    SEAL_ADVERSARIES,
    SEAL_ROGUES,
    SEAL_STRANGERS,
    SealRogue,
    SealStranger,
)
from tests.simulation.virtual import run
from tests.simulation.watch import Watch
from tests.simulation.wire import Weather
from tests.simulation.world import MONEY_FAULTS, World

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
    ("buyer", "purchase sealed/locked", "atomic"),
    ("buyer", "purchase sealed/refunding", "keeper"),
    ("buyer", "purchase sealed/claimed", "hides"),
    ("cheap", "sale sealed", "atomic"),
)
PRODUCT = ("core", "relays", "wallet", "dvm", "node")
CRASHES = tuple((point, after) for point in CRASH_POINTS for after in (False, True))


def plot(seed: int) -> Script:
    """The script of a seed; the first ones are written by hand."""
    if seed < len(SPECIALS):
        return SPECIALS[seed]
    chance = random.Random(f"plot {seed}")
    script = _trouble(_circumstances(seed, chance), chance)
    place = seed - len(SPECIALS)
    if place < len(CRASHES):
        return _with_crash(replace(script, weather=Weather(delay=0.05), faults=0.0, adversaries=()), place, chance)
    place -= len(CRASHES)
    if place < len(ADVERSARIES):
        styles = tuple(dict.fromkeys((ADVERSARIES[place], *script.adversaries)))
        return replace(
            script, adversaries=styles, known=False, order=("dvm", "builtin"), funds=120, sellers=2, unpriced=0.0,
            partition=None, jobs=(Job("job-0"), *script.jobs[1:]),
        )  # fmt: skip
    if chance.random() < 0.3:
        styles = tuple(chance.sample((*SEAL_ROGUES, *SEAL_STRANGERS[:-1]), chance.choice((0, 0, 1))))
        orders = chance.choice(("", "", "all"))
        script = replace(script, atomic=True, orders=orders, adversaries=(*script.adversaries, *styles))
    turn = chance.random()
    if turn < 0.35:
        return _with_crash(script, chance.randrange(len(CRASHES)), chance)
    if turn < 0.6:
        times = sorted(chance.random() * 12 for _ in range(chance.choice((1, 1, 2))))
        crashes = tuple(Crash(chance.choice(("buyer", "buyer", "cheap")), at=at) for at in times)
        return replace(script, crashes=crashes)
    return script


def _circumstances(seed: int, chance: random.Random) -> Script:
    """Who wants what, for how much, and under which policy."""
    return Script(
        seed,
        jobs=_jobs(chance),
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
        latency=chance.choice((0.05, 0.05, 0.05, 1.0)),
        per_seller=chance.choice((30_000, 30_000, 30_000, 7_000)),
        prices=chance.choice(((7, 11), (7, 11), (9, 9), (14, 20))),
    )


def _trouble(script: Script, chance: random.Random) -> Script:
    """What the wire, the mint and other people do to it."""
    if chance.random() < 0.6:
        weather = Weather(
            drop=chance.choice((0, 0.1, 0.25)),
            repeat=chance.choice((0, 0.4)),
            forge=chance.choice((0, 0.3)),
            lose_ok=chance.choice((0, 0.3)),
            delay=chance.choice((0.05, 0.3, 0.8)),
        )
        script = replace(script, weather=weather, faults=chance.choice((0.1, 0.3, 0.6)))
    if chance.random() < 0.15:
        label = chance.choice(("operation prepared", "purchase quoting", "purchase working"))
        who = chance.choice(("buyer", "buyer", "cheap"))
        number = chance.choice((1, 2, 3))
        script = replace(script, triggers=(Trigger(who, label, "rotate", number=number),))
    if chance.random() < 0.12:
        who = chance.choice(("buyer", "cheap"))
        script = replace(script, partition=(who, chance.random() * 5, chance.choice((2.0, 6.0, 20.0))))
    return replace(script, adversaries=tuple(chance.sample(ADVERSARIES, chance.choice((0, 0, 1, 2)))))


ALONE = (90, 99)  # prices at which no honest seller is in the way


DVM = ("dvm",)
PLAIN = Script(0, known=False)


def _about_money() -> tuple[Script, ...]:
    """At the mint: what chance alone brings about too seldom."""
    locking = "purchase paying/locking"
    long = (Job("job-0", timeout_s=30),)
    lost = (Crash("cheap", "sale delivered", down=100.0), Crash("cheap", "sale lost"))
    unsafe = Trigger("buyer", "purchase delivered/refunding", "away", 5.0)
    slow = (Trigger("buyer", locking, "outage", 12.0),)
    flaky = (Trigger("buyer", locking, "flaky", 4.0),)
    outage = (Trigger("buyer", locking, "outage", 9.0),)
    refunding = "purchase delivered/refunding"
    doubtful = (Trigger("buyer", refunding, "answer_lost"), Trigger("buyer", refunding, "blind", 15.0))
    return (
        replace(PLAIN, triggers=outage, order=DVM),
        replace(PLAIN, triggers=outage),
        replace(PLAIN, triggers=(*outage, Trigger("buyer", locking, "cancel", 1.0))),
        replace(PLAIN, triggers=(Trigger("buyer", "operation prepared", "rotate", number=3),)),
        replace(PLAIN, triggers=(Trigger("buyer", locking, "rotate"),)),
        replace(PLAIN, prices=ALONE, triggers=(Trigger("buyer", "purchase fallback/none", "cancel", 0.02),)),
        replace(PLAIN, jobs=long, triggers=slow),
        replace(PLAIN, jobs=long, triggers=slow, order=DVM),
        replace(PLAIN, triggers=flaky),
        replace(PLAIN, seed=1, triggers=flaky),
        replace(PLAIN, triggers=(Trigger("buyer", locking, "refusing", 3.0),)),
        replace(PLAIN, triggers=(Trigger("cheap", "sale working", "refusing", 3.0),)),
        replace(PLAIN, adversaries=("sleeper",), triggers=(unsafe,)),
        *(replace(PLAIN, seed=seed, adversaries=("racer",)) for seed in range(4)),
        *(replace(PLAIN, seed=seed, adversaries=("sleeper",), latency=8.0, triggers=doubtful) for seed in range(4)),
        replace(PLAIN, adversaries=("refunder",), sellers=1, crashes=lost, jobs=()),
        replace(PLAIN, sellers=1, crashes=lost),
        replace(PLAIN, adversaries=("sleeper",), faults=0.7, storm=130.0),
        replace(PLAIN, seed=5, adversaries=("sleeper",), faults=0.7, storm=130.0),
        replace(PLAIN, seed=6, adversaries=("sleeper",), faults=0.5, storm=130.0),
    )


def _about_offers() -> tuple[Script, ...]:
    """Among sellers: what chance alone brings about too seldom."""
    job, late = Job("job-0"), Crash("buyer", "purchase quoting", 3, down=10.0)
    jobs = (job, Job("job-1", at=0.1))
    return (
        replace(PLAIN, funds=5, order=DVM),
        replace(PLAIN, funds=5, adversaries=("donor",)),
        replace(PLAIN, adversaries=("donor",), prices=ALONE),
        replace(PLAIN, adversaries=("donor",), prices=ALONE, crashes=(late,), sellers=1),
        replace(PLAIN, adversaries=("changer",), prices=ALONE),
        replace(PLAIN, prices=ALONE, crashes=(Crash("buyer", "purchase quoting", 1, down=10.0),)),
        replace(PLAIN, prices=ALONE, order=DVM, crashes=(Crash("buyer", "purchase quoting", 1, down=10.0),)),
        replace(PLAIN, adversaries=("promiser",), prices=ALONE, seed=5),
        replace(PLAIN, adversaries=("promiser",), prices=ALONE),
        replace(PLAIN, seed=3, adversaries=("promiser",), prices=ALONE),
        replace(PLAIN, seed=4, adversaries=("promiser",), prices=ALONE, order=DVM),
        replace(PLAIN, adversaries=("garbage",), prices=ALONE, order=DVM),
        replace(PLAIN, adversaries=("garbage",), prices=ALONE),
        replace(PLAIN, adversaries=("quitter",), order=DVM),
        replace(PLAIN, adversaries=("donor",), per_seller=3_000, jobs=jobs),
        replace(PLAIN, per_seller=7_000, jobs=jobs),
        replace(PLAIN, per_seller=3_000, jobs=jobs, order=DVM, sellers=1),
        replace(PLAIN, per_seller=3_000, jobs=jobs, sellers=1),
        replace(PLAIN, clumsy=3.0, spare=True, order=("builtin",)),
        replace(PLAIN, clumsy=3.0, spare=True, order=("builtin", "dvm")),
        replace(PLAIN, adversaries=("sleeper",), jobs=(replace(job, cancel_at=2.5),)),
        replace(PLAIN, adversaries=("deleter",), jobs=(replace(job, cancel_at=0.5),)),
        replace(PLAIN, clumsy=1.0, sellers=1, order=DVM),
        replace(PLAIN, adversaries=("fair", "tardy"), late_in_day=True, jobs=jobs),
        replace(PLAIN, jobs=(replace(job, maximum=MicroUsd(900)),), order=DVM),
    )


# A lock, a claim and a refund, each with everything that can go wrong with its request or its answer.
SWAPS = (
    ("buyer", "purchase paying/locking", ()),
    ("cheap", "sale delivered", ()),
    ("buyer", "purchase delivered/refunding", ("sleeper",)),
)
FAULTS = tuple((swap, fault) for swap in SWAPS for fault in dict.fromkeys(MONEY_FAULTS))


def _about_faults() -> tuple[Script, ...]:
    return tuple(
        replace(PLAIN, sellers=1, adversaries=styles, triggers=(Trigger(node, label, fault.value),))
        for (node, label, styles), fault in FAULTS
    )


def _about_seals() -> tuple[Script, ...]:
    """Where results are sold sealed: each adversary, with and without somebody who does the work for nothing."""
    sealed = replace(PLAIN, atomic=True, funds=200)
    cancelled = (Trigger("buyer", "purchase sealed/locked", "cancel", 0.01),)
    return (
        sealed,
        *(replace(sealed, adversaries=(style,), order=order)
          for style in SEAL_ROGUES for order in (("dvm", "builtin"), DVM)),
        *(replace(sealed, seed=seed, adversaries=("latecomer",)) for seed in range(1, 4)),
        *(replace(sealed, adversaries=(style,), sellers=1, jobs=()) for style in SEAL_STRANGERS[:-1]),
        replace(sealed, hides=True),
        replace(sealed, hides=True, order=DVM),
        replace(sealed, adversaries=("keeper",), triggers=cancelled),
        replace(sealed, jobs=(Job("job-0"), Job("job-1", at=0.5), Job("job-2", at=1.0))),
    )  # fmt: skip


def _about_orders() -> tuple[Script, ...]:
    """Where the work comes before the money: what then ends an order, and who is asked next."""
    ordered = replace(PLAIN, atomic=True, orders="all", funds=200)
    alone = replace(ordered, orders="rogues", prices=ALONE)
    jobs = (Job("job-0"), Job("job-1", at=0.1))
    bad = ("junk_seal", "quitter_seal")
    locking = "purchase paying/locking"
    return (
        ordered,
        *(replace(ordered, adversaries=(style,)) for style in (*bad, *SEAL_ROGUES[2:])),
        *(replace(ordered, orders="rogues", adversaries=(style,)) for style in bad),
        *(replace(alone, adversaries=(style, "donor")) for style in bad),
        *(replace(alone, adversaries=(style,), order=order)
          for style in (*bad, *ORDER_ROGUES) for order in (("dvm", "builtin"), DVM)),
        replace(alone, adversaries=("silent_seal",), per_seller=3_000),
        replace(alone, adversaries=("silent_seal",), per_seller=3_000, order=DVM),
        replace(alone, adversaries=("silent_seal", "donor"), per_seller=3_000),
        replace(ordered, orders="rogues", adversaries=("silent_seal",), per_seller=3_000),
        replace(alone, adversaries=("silent_seal",), triggers=(Trigger("buyer", "purchase ordered", "cancel", 0.5),)),
        replace(ordered, adversaries=("bad_payer",), sellers=1, jobs=()),
        replace(ordered, per_seller=3_000, jobs=jobs),
        replace(ordered, adversaries=("thief",), per_seller=3_000),
        replace(ordered, per_seller=7_000, jobs=jobs),
        replace(ordered, triggers=(Trigger("buyer", locking, "refusing", 3.0),)),
        replace(ordered, triggers=(Trigger("buyer", locking, "rotate"),)),
        replace(ordered, prices=(7, 8), triggers=(Trigger("buyer", locking, "flaky", 4.0),)),
    )  # fmt: skip


SPECIALS = (*_about_money(), *_about_offers(), *_about_faults(), *_about_seals(), *_about_orders())
DIRECTED = len(SPECIALS) + len(CRASHES) + len(ADVERSARIES)  # so many seeds meet everything that must be met


def _with_crash(script: Script, number: int, chance: random.Random) -> Script:
    """A crash at a certain point, under conditions that lead there."""
    (node, label, needs), after = CRASHES[number]
    ticks = label.startswith("purchase staged")
    script = replace(
        script, funds=120, order=("dvm", "builtin"), unpriced=0.0, clumsy=0.0, per_seller=30_000, prices=(7, 11),
        jobs=tuple(replace(job, kind=PAID, maximum=None, cancel_at=None, ticks=ticks) for job in script.jobs),
        known=False, partition=None,
    )  # fmt: skip
    others = tuple(style for style in script.adversaries if style not in ("thief", "generous", "twoface", "changer"))
    if needs == "nobody":
        script = replace(script, prices=(90, 99))
    elif needs in ("atomic", "hides", "keeper"):
        plain = tuple(style for style in others if style in ("fair", "junk", "flood"))
        found = ("keeper", *plain) if needs == "keeper" else plain
        script = replace(script, atomic=True, hides=needs == "hides", adversaries=found)
    elif needs == "faults":
        before = "purchase paying/locking" if node == "buyer" else "sale delivered"
        script = replace(script, triggers=(Trigger(node, before, "answer_lost"),))
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
                ticks=place % 2 == 1,
            )
        )
    return tuple(jobs)


class _Ears(logging.Handler):
    """What the product calls an error is one: a task that broke, a handler at fault, coins that are gone."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in PRODUCT:
            error = record.exc_info[1] if record.exc_info else None
            self._world.oddities.append(f"an error was logged: {record.getMessage()} {error!r}")


def _enlist_sealed(world: World, underworld: Underworld) -> None:
    for style in world.script.adversaries:
        if style in SEAL_ADVERSARIES:
            maker = SealStranger if style in SEAL_STRANGERS else SealRogue
            world.actors.append(maker(underworld, style))


def play(script: Script, coverage: Coverage | None = None) -> Watch:
    """Run a script to its end, watched."""
    world = World(script)
    watches: list[Watch] = []

    async def story() -> None:
        world.build()
        underworld = enlist(world)
        _enlist_sealed(world, underworld)
        watch = Watch(world, underworld)
        watches.append(watch)
        if script.adversaries:
            await underworld.fund(200)
        try:
            await world.play()
            watch.finish()
        finally:
            await world.close()

    ears = _Ears(world)
    logging.disable(logging.WARNING)
    logging.getLogger().addHandler(ears)
    try:
        with remembering():
            run(story(), world.loop)
    finally:
        logging.getLogger().removeHandler(ears)
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
