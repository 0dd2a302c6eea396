"""Turns a plot into one of gifts (ADR 29): customers that pay with nutzaps, and what is owed to them."""

import random

from core.change import replace
from tests.simulation.pure.cast import (
    BORROWERS,
    DOUBTFUL,
    GIFT_POINTS,
    GIVERS,
    HONEST,
    INVOICED,
    LENT,
    MELT_FAULTS,
    NWC_FAULTS,
    NWC_POINTS,
    Crash,
    Plot,
)

DOWN = (50, 200, 3_000, 90_000)


def gifts(script: Plot, chance: random.Random) -> Plot:
    """Nodes that take nutzaps, and quote for invoices or for ecash."""
    turn = chance.random
    stalls = script.stalls
    if turn() < 0.6:
        stalls = tuple(replace(one, way=INVOICED, mints=0) if one.style == HONEST else one for one in stalls)
        script = replace(script, jobs=tuple(replace(job, invoices=True, free=False) for job in script.jobs))
    givers = [chance.choice(GIVERS)]
    if turn() < 0.3 or givers[0] == "copies nutzaps":
        givers.append(chance.choice(GIVERS[:5]))
    script = replace(script, stalls=stalls, strangers=tuple(dict.fromkeys(givers)), gifts=True)
    if turn() < 0.15:
        script = replace(script, faults=("clumsy provider", *script.faults[:1]))
    if turn() < 0.5:
        return _crash_at(script, chance.choice(GIFT_POINTS), chance)
    return script


def lent(script: Plot, chance: random.Random) -> Plot:
    """Nodes that work first, for customers that they trust, and send the invoice with the result."""
    turn = chance.random
    stalls = tuple(
        replace(one, way=LENT, mints=0) if one.style == HONEST and place < 3 else one
        for place, one in enumerate(script.stalls)
    )
    jobs = tuple(replace(job, invoices=True, free=False) for job in script.jobs)
    if turn() < 0.3:
        jobs = (replace(jobs[0], cancel_at=None), replace(jobs[0], at=chance.choice((4_000, 20_000, 200_000))))
    borrower = chance.choice(BORROWERS)
    gifts = borrower == "pays a result by nutzap"
    script = replace(script, stalls=stalls, jobs=jobs, strangers=(borrower,), gifts=gifts)
    if turn() < 0.3:
        script = replace(script, faults=(chance.choice(MELT_FAULTS), *script.faults[: int(turn() * 2)]))
    if turn() < 0.4:
        points = ("seller billed", "seller billed", "seller working", "seller lost", "seller deposit waiting")
        crash = Crash(chance.choice(points), turn() < 0.4, chance.choice((*DOWN, 500_000)), 1 + (turn() < 0.3))
        script = replace(script, crashes=(crash,))
    return script


def wallets(script: Plot, chance: random.Random) -> Plot:
    """A buyer with a Lightning wallet of its own, which pays and is paid beside everything else."""
    faults = (chance.choice(NWC_FAULTS), *chance.sample(NWC_FAULTS, int(chance.random() * 3)), *script.faults[:1])
    crashes = script.crashes
    if chance.random() < 0.5:
        crashes = (Crash(chance.choice(NWC_POINTS), chance.random() < 0.4, chance.choice((*DOWN, 200_000))),)
    return replace(script, faults=tuple(dict.fromkeys(faults)), crashes=crashes, nwc=True)


def _crash_at(script: Plot, point: str, chance: random.Random) -> Plot:
    """Circumstances in which somebody comes to that point."""
    name, faults, style = point.rpartition(" ")[2], script.faults, chance.choice(GIVERS[:5])
    down = chance.choice(DOWN)
    if name == "seen":
        faults = (chance.choice(("mint: away", "mint: request lost", "mint: answer lost", "mint: blind")),)
    elif name == "refused":
        style = chance.choice(("nutzap of spent coins", "gives and takes back"))
    elif name == "kept":
        style = "nutzap for nothing"
    elif name == "taken" and chance.random() < 0.3:
        style, down = "gives and takes back", 4_000_000
    if set(faults) >= DOUBTFUL:
        faults = tuple(one for one in faults if one != "mint: refuses")
    crashes = (Crash(point, chance.random() < 0.4, down),)
    if style == "gives and takes back" and name == "refused":
        crashes = (Crash("seller tip taken", False, 4_000_000), *crashes)
    return replace(script, faults=faults, strangers=(style,), crashes=crashes)
