"""Turns a plot of locked ecash into one of another way to pay: sealed results, invoices of nodes and of machines."""

import random
from dataclasses import replace

from tests.simulation.pure.cast import (
    DOUBTFUL,
    HONEST,
    INVOICED,
    MACHINES,
    MELT_FAULTS,
    ORDER_ROGUES,
    ORDER_STRANGERS,
    ORDERED,
    PAYERS,
    SEAL_ROGUES,
    SEAL_STRANGERS,
    SEALED,
    Crash,
    Job,
    Plot,
    Stall,
)

DOWN = (50, 200, 3_000, 90_000)
DOUBTS = ("mint: answer lost", "mint: late request", "mint: request lost", "mint: false answer")


def lead(script: Plot, chance: random.Random) -> Plot:
    """The same history in a market that pays in one of the other ways."""
    return (_sealed, _ordered, _invoiced, _machined)[chance.randrange(4)](script, chance)


def _of(script: Plot, way: str, jobs: dict[str, object]) -> Plot:
    mints = {"mints": 0} if way == INVOICED else {}
    stalls = tuple(replace(one, way=way, **mints) if one.style == HONEST else one for one in script.stalls)
    return replace(script, stalls=stalls, jobs=tuple(replace(job, **jobs) for job in script.jobs))  # type: ignore[arg-type]


def _with_rogue(script: Plot, style: str, price: int = 3_000) -> Plot:
    """One rogue, and all others honest and dearer."""
    way = script.stalls[-1].way
    honest = [replace(one, style=HONEST, way=way, price=max(one.price, 4_000) % 100_000) for one in script.stalls[1:]]
    return replace(script, stalls=(Stall(price, 3, style, way), *honest))


def _sealed(script: Plot, chance: random.Random) -> Plot:
    script = _of(script, SEALED, {"modes": ("B",), "free": False})
    return _of_seals(script, chance, SEAL_ROGUES, SEAL_STRANGERS)


def _ordered(script: Plot, chance: random.Random) -> Plot:
    script = _of(script, ORDERED, {"modes": ("A", "B"), "free": False})
    return _of_seals(script, chance, ORDER_ROGUES, (*ORDER_STRANGERS, *SEAL_STRANGERS[2:3]))


def _of_seals(script: Plot, chance: random.Random, rogues: tuple[str, ...], strangers: tuple[str, ...]) -> Plot:
    turn = chance.random
    if turn() < 0.5:
        script = _with_rogue(script, chance.choice(rogues))
    else:
        script = replace(script, strangers=(chance.choice(strangers),))
    if turn() < 0.2:
        script = replace(script, faults=("mint: hides the key", *script.faults[:1]))
    if turn() < 0.4:
        points = (
            "buyer sealed/locked",
            "buyer sealed/claimed",
            "buyer sealed/refunding",
            "seller sealed",
            "seller lost",
        )
        ordered = script.jobs[0].modes[0] == "A"
        point = chance.choice(("buyer ordered/none", *points) if ordered else points)
        return _crash_at(script, point, chance)
    return script


def _invoiced(script: Plot, chance: random.Random) -> Plot:
    turn = chance.random
    script = _of(script, INVOICED, {"invoices": True, "free": False})
    script = replace(script, strangers=(chance.choice(PAYERS),))
    if turn() < 0.3:
        script = _with_rogue(script, chance.choice(MACHINES), 1_000)
    return _of_melts(script, chance)


def _machined(script: Plot, chance: random.Random) -> Plot:
    script = replace(script, jobs=tuple(replace(job, invoices=True, free=False) for job in script.jobs))
    script = _with_rogue(script, chance.choice(MACHINES), 1_000)
    return _of_melts(script, chance)


def _of_melts(script: Plot, chance: random.Random) -> Plot:
    turn = chance.random
    if turn() < 0.5:
        script = replace(script, faults=(chance.choice(MELT_FAULTS), *script.faults[: int(turn() * 2)]))
    if turn() < 0.4:
        points = ("buyer melt prepared", "buyer melt unknown", "buyer melt done", "buyer melt refused")
        if any(one.way == INVOICED for one in script.stalls):
            points += tuple(
                f"seller {name}"
                for name in (
                    "invoicing", "lapsed", "owed", "repaid", "deposit waiting", "deposit prepared", "deposit unknown",
                    "deposit done", "deposit refused",
                )
            )  # fmt: skip
        return _crash_at(script, chance.choice(points), chance)
    return script


def _crash_at(script: Plot, point: str, chance: random.Random) -> Plot:
    """Circumstances in which somebody comes to that point."""
    crash = Crash(point, chance.random() < 0.4, chance.choice(DOWN))
    name = point.partition(" ")[2]
    faults, strangers = script.faults, script.strangers
    if name == "sealed/claimed":
        faults = ("mint: hides the key",)
        script = _with_rogue(script, HONEST)
    elif name == "sealed/refunding":
        script = _with_rogue(script, "keeps the co-signature")
    elif name == "lost":
        strangers = ("never signs",)
    elif name.endswith(" unknown"):
        faults = (chance.choice(DOUBTS),)
    elif name == "melt refused":
        faults = (chance.choice(("mint: cannot pay", "mint: away")),)
    elif name in ("owed", "repaid"):
        strangers = (chance.choice(("pays too late", "cancels and pays")) if name == "owed" else "pays and asks again",)
        if name == "repaid":
            faults = ("clumsy provider",)
    if set(faults) >= DOUBTFUL:
        faults = tuple(one for one in faults if one != "mint: refuses")
    return replace(script, faults=faults, strangers=strangers, crashes=(crash,))


def specials(seed: int, chance: random.Random) -> tuple[Plot, ...]:
    """What chance alone brings about too seldom."""
    del chance
    dear = Stall(900_000, 3, "dear")
    order = Job(route=("dvm",), modes=("A", "B"))
    pays = Job(route=("dvm",), invoices=True)
    return (
        Plot(seed, (Stall(3_000, 3, "silent", ORDERED), Stall(5_000, 3, HONEST, ORDERED), dear), (order,), ("delay",)),
        Plot(seed, (Stall(1_000, 3, "machine afterwards"), dear, dear), (pays,), ("delay",)),
    )
