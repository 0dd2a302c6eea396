"""Turns a plot of locked ecash into one of prepaid balances: who cheats with them, and who dies where."""

import random

from core.change import replace
from tests.simulation.pure.cast import (
    BALANCE_POINTS,
    DEPOSITARIES,
    DEPOSITORS,
    DOUBTFUL,
    HONEST,
    PREPAID,
    Balance,
    Crash,
    Plot,
    Stall,
)

DOWN = (50, 200, 3_000, 90_000)
SELDOM = (
    "seller send unknown", "seller send refused", "buyer receive unknown", "buyer receive unknown",
    "buyer balance refunding", "buyer balance refunded", "buyer balance lost", "seller balance lost",
    "seller balance released",
)  # fmt: skip
DOUBTS = ("mint: answer lost", "mint: late request", "mint: request lost", "mint: false answer")
PRICES = (1_000, 1_500, 2_500, 4_000, 6_000)


def prepaid(script: Plot, chance: random.Random) -> Plot:
    """A buyer with a deposit at the cheapest seller, and jobs that are drawn from it."""
    turn = chance.random
    stalls = [replace(one, way=PREPAID) if one.style == HONEST else one for one in script.stalls]
    stalls[0] = Stall(chance.choice(PRICES), 3, HONEST, PREPAID)
    strangers = script.strangers
    if turn() < 0.45:
        stalls[0] = replace(stalls[0], style=chance.choice(DEPOSITARIES))
        stalls[1] = replace(stalls[1], style=HONEST, way=PREPAID)
    elif turn() < 0.85:
        strangers = (chance.choice(DEPOSITORS),)
    first = chance.choice((2_000, 5_000, 12_000))
    jobs = [replace(script.jobs[0], at=first, free=False)]
    if turn() < 0.5:
        jobs.append(replace(script.jobs[0], at=first + chance.randrange(4_000), free=False, cancel_at=None))
    close = chance.choice((None, 0, 60, 120, 200, 3_000, 9_000, 20_000, 60_000))
    lasts, apart = chance.choice(((150, 40), (300, 60), (900, 120)))
    script = replace(
        script, stalls=tuple(stalls), jobs=tuple(jobs), strangers=strangers, lasts_s=lasts, apart_s=apart,
        balances=(Balance(0, chance.choice((10, 12, 20, 30)), 10, close),),
    )  # fmt: skip
    if turn() < 0.1:
        script = replace(script, faults=("voucher lost", *script.faults[:1]))
    lot = turn()
    if lot < 0.16:
        return _all_of_it(script, chance)
    if lot < 0.2:
        return _due_at_work(script, chance)
    if lot < 0.85:
        return _crash_at(script, chance.choice((*BALANCE_POINTS, *SELDOM)), chance)
    return script


def _all_of_it(script: Plot, chance: random.Random) -> Plot:
    """Two jobs that take all that was deposited; nothing is left to give back."""
    style = HONEST if chance.random() < 0.7 else "closes unasked"
    stalls = (Stall(5_000, 3, style, PREPAID), *(replace(one, price=one.price + 6_000) for one in script.stalls[1:]))
    job = replace(script.jobs[0], cancel_at=None, route=("dvm",), maximum=20_000)
    jobs = (job, replace(job, at=job.at + chance.randrange(4_000)))
    close = chance.choice((30_000, 60_000, None))
    return replace(script, stalls=stalls, jobs=jobs, balances=(Balance(0, 10, 10, close),), unit="uusd")


def _due_at_work(script: Plot, chance: random.Random) -> Plot:
    """A seller that dies at work, and is back as the deposit must be claimed."""
    job = replace(script.jobs[0], at=112_000, cancel_at=None, route=("dvm",), maximum=20_000)
    stalls = (Stall(4_000, 3, HONEST, PREPAID), *(replace(one, price=one.price + 6_000) for one in script.stalls[1:]))
    return replace(
        script, seed=script.seed | 4, stalls=stalls, jobs=(job,), faults=("no funds at one mint",), strangers=(),
        crashes=(Crash("seller working", False, 33_000 + chance.randrange(800)),), unit="uusd", lasts_s=150, apart_s=4,
        balances=(Balance(0, 12, 10, None),),
    )  # fmt: skip


def _crash_at(script: Plot, point: str, chance: random.Random) -> Plot:
    """Circumstances in which somebody comes to that point."""
    down = 90_000 if point == "buyer balance refunding" else chance.choice(DOWN)
    crash = Crash(point, chance.random() < 0.5, down)
    name = point.partition(" ")[2]
    faults, style, stall = script.faults, "", script.stalls[0]
    balance = replace(script.balances[0], close_at=chance.choice((9_000, 20_000)))
    crashes: tuple[Crash, ...] = (crash,)
    if chance.random() < 0.5:
        crashes += (Crash(chance.choice(BALANCE_POINTS), chance.random() < 0.5, 200),)
    strangers = script.strangers
    if name.endswith(" unknown"):
        faults = (chance.choice(DOUBTS),)
    elif name.endswith(" refused") and point != "buyer receive refused":
        faults = (chance.choice(("mint: refuses", "mint: away")),)
    if point == "buyer receive refused":
        style = chance.choice(("gives back junk", "gives back spent coins"))
    elif point == "buyer balance failed":
        style = chance.choice(("takes no deposit", "terms of a thief", "never says its terms"))
    elif point == "buyer balance lost":
        style = "keeps the deposit"
    elif point in ("buyer balance refunding", "buyer balance refunded"):
        style = chance.choice(
            (
                "refuses the deposit",
                "silent with the deposit",
                "takes at the last moment",
                "gives back and takes at last",
                "says it at the last moment",
                "says it at the last moment",
                "gives back and takes nothing",
            )
        )
        if chance.random() < 0.4:
            faults, script = ("mint: refuses",), replace(script, seed=script.seed & ~3, lasts_s=150, apart_s=40)
    elif point == "seller balance released":
        balance, style = replace(balance, close_at=None), HONEST
        faults = ("voucher lost",)
        crashes += (Crash("buyer balance open", False, 900_000),)
    elif point == "seller balance lost":
        style, strangers = HONEST, ("takes the deposit back",)
        crashes += (Crash("seller balance open", False, 500_000, 2),)
    else:
        style = HONEST
    stalls = (replace(stall, style=style or stall.style), *script.stalls[1:])
    if set(faults) >= DOUBTFUL:
        faults = tuple(one for one in faults if one != "mint: refuses")
    return replace(script, stalls=stalls, faults=faults, crashes=crashes, balances=(balance,), strangers=strangers)
