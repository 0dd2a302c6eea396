"""From a seed to a plot: who is there, what they want, and what goes wrong."""

import random

from core.change import replace
from tests.simulation.pure import way
from tests.simulation.pure.cast import (
    ALL_POINTS,
    BORROWERS,
    COMMON_FAULTS,
    DEPOSITARIES,
    DEPOSITORS,
    DOUBTFUL,
    FAULTS,
    GIVERS,
    HONEST,
    INVOICED,
    LENT,
    MACHINES,
    ORDER_ROGUES,
    ORDER_STRANGERS,
    ORDERED,
    PAYERS,
    PLAIN,
    POINTS,
    PREPAID,
    ROGUES,
    SEAL_STRANGERS,
    SEALED,
    STRANGERS,
    Balance,
    Crash,
    Job,
    Plot,
    Stall,
)


def plot(seed: int) -> Plot:
    """The plot of a seed: 3 to 8 sellers, at least one fault and one adversary; five of eight pay in a new way."""
    chance = random.Random(seed)
    if seed % 23 == 0:
        return _special(seed, chance)
    script = plain(seed, chance)
    return script if (seed >> 4 & 7) < 3 else way.lead(script, chance)


def locked(seed: int) -> Plot:
    """The same, and all that is paid is paid with locked ecash."""
    chance = random.Random(seed)
    return plain(seed, chance) if seed % 23 else _special(seed, chance)


def plain(seed: int, chance: random.Random) -> Plot:
    """A market of locked ecash."""
    count = chance.randrange(3, 9)
    turn = chance.random
    stalls = [
        Stall(chance.randrange(4, 13) * 1000 - 500 * (turn() < 0.2), (3, 3, 1, 2)[seed + n & 3]) for n in range(count)
    ]
    rogues: list[str] = []
    strangers: list[str] = []
    for _ in range(1 + (turn() < 0.4)):
        if turn() < 0.6:
            rogues.append(chance.choice(ROGUES))
        else:
            strangers.append(chance.choice(STRANGERS))
    for place, style in enumerate(rogues):
        # Cheap, so that it comes to what it is for; half of them are among honest ones that are cheaper.
        price = 3_000 if turn() < 0.8 else 9_000
        stalls[place] = Stall({"dear": 900_000, "usurer": 25_000}.get(style, price), 3, style)
    faults = [chance.choice(COMMON_FAULTS)]
    while turn() < 0.4:
        faults.append(chance.choice(COMMON_FAULTS))
    if set(faults) >= DOUBTFUL:
        faults = [fault for fault in faults if fault != "mint: refuses"]
    if turn() < 0.04:  # nobody honest is in the way of a fallback, a wait, or an end without a result
        stalls = [stall if stall.style != HONEST else replace(stall, price=900_000, style="dear") for stall in stalls]
    crashes: tuple[Crash, ...] = ()
    if turn() < 0.55:
        crashes = (
            Crash(chance.choice(POINTS), turn() < 0.4, chance.choice((50, 200, 3_000, 90_000)), 1 + (turn() < 0.1)),
        )
        if turn() < 0.2:
            crashes += (Crash(chance.choice(POINTS), turn() < 0.4, 200),)
    unit = "uusd" if turn() < 0.8 else "msat"
    jobs = [_job(chance, number, unit) for number in range(1 if turn() < 0.8 else 2)]
    deposit = turn() < 0.06 or any("deposit" in crash.point for crash in crashes)
    script = Plot(
        seed, tuple(stalls), tuple(jobs), tuple(dict.fromkeys(faults)), tuple(dict.fromkeys(strangers)), crashes, unit,
        deposit=deposit,
    )  # fmt: skip
    return _lead_to(script, crashes[0].point, chance) if crashes else script


def _special(seed: int, chance: random.Random) -> Plot:
    """What chance alone brings about too seldom."""
    dear, cheap = Stall(900_000, 3, "dear"), Stall(5_000)
    market = Job(route=("dvm",))
    route = chance.choice((("dvm",), ("dvm", "builtin")))
    giver = (Stall(3_000, 3, "giver"), dear, dear)
    before = chance.random() < 0.5
    away = Crash("buyer quoting/none", False, 90_000, chance.choice((2, 3, 4)))
    ended = chance.choice(("fallback", "failed"))
    in_doubt = Crash(f"buyer {ended}/locking", before)
    doubts = Job(route=("dvm",) if ended == "failed" else ("dvm", "builtin"))
    return (
        Plot(seed, (cheap, Stall(9_000), dear), (Job(route=route),), ("no room in the budget",)),
        Plot(seed, (*giver, Stall(11_000)), (Job(route=route),), ("no room in the budget",)),
        Plot(seed | 3, (cheap, cheap, dear), (Job(route=route),), ("mint: stalls long",)),
        Plot(seed, (*giver, cheap), (market,), ("mint: refuses", "no funds")),
        Plot(seed, (Stall(3_000, 3, "promiser"), cheap, dear), (market,), ("drop",)),
        Plot(seed, giver, (market,), ("delay",), crashes=(away,)),
        Plot(seed | 3, (cheap, cheap, dear), (doubts,), ("mint: stalls long",), crashes=(in_doubt,)),
        Plot(
            seed, (Stall(3_000, 3, "mute"), dear, dear), (Job(),), ("delay",),
            crashes=(Crash("buyer fallback/locked", False, 500_000), Crash("buyer fallback/refunding", before)),
        ),
    )[seed // 23 % 8]  # fmt: skip


def _lead_to(script: Plot, point: str, chance: random.Random) -> Plot:
    """Circumstances in which somebody comes to that point; else only the usual ones would be met."""
    role, _, name = point.partition(" ")
    state, _, money = name.partition("/")
    style, fault, job = "", "", script.jobs[0]
    if money == "none" and state in ("fallback", "failed"):
        route = ("dvm",) if state == "failed" else ("dvm", "builtin")
        stalls = tuple(replace(one, price=900_000, style="dear") for one in script.stalls)
        return replace(script, stalls=stalls, jobs=(replace(job, free=False, cancel_at=None, route=route),))
    if state in ("failed", "fallback", "cancelled", "delivered") and money not in ("none", ""):
        style = {"refunding": "sleeper", "refunded": "sleeper", "claimed": "thief", "locked": "mute"}.get(money, "")
        if money == "locking":
            style, fault = HONEST, chance.choice(("mint: answer lost", "mint: request lost", "mint: late request"))
        if state in ("failed", "fallback") and style == "sleeper":
            style = "mute"
        job = replace(job, free=False, cancel_at=None, route=("dvm",) if state == "failed" else ("dvm", "builtin"))
    if state == "cancelled":
        job = replace(job, cancel_at={"none": 300, "locking": 1_560}.get(money, 1_900), route=("dvm", "builtin"))
        style = {"claimed": "thief", "locked": "mute", "none": ""}.get(money, "mute")
        style = HONEST if money == "locking" else style
    if state == "working" and money == "claimed":
        style = "thief"
    if name.endswith(" unknown"):
        fault = chance.choice(("mint: answer lost", "mint: late request", "mint: request lost", "mint: false answer"))
    if name.startswith("refund "):
        style = "late claim" if name == "refund refused" else "mute"
        script = replace(script, seed=script.seed & ~3 if fault else script.seed)
    if name == "lock refused":
        fault = "mint: refuses"
    if name in ("lost", "claim refused"):
        return _a_lost_claim(replace(script, jobs=(job, *script.jobs[1:])))
    if name == "cancelled" and role == "seller":
        job = replace(job, cancel_at=400, free=False, route=("dvm",))
    if name == "failed" and role == "seller":
        style, fault = HONEST, "clumsy provider"
    script = replace(script, jobs=(job, *script.jobs[1:]))
    if style:
        script = replace(script, stalls=(Stall(3_000, 3, style), *script.stalls[1:]))
    if fault:
        script = replace(
            script,
            faults=(
                fault,
                *(one for one in script.faults if one.startswith("mint") and one != fault and {one, fault} != DOUBTFUL),
            ),
        )
    return script


def _a_lost_claim(script: Plot) -> Plot:
    """A seller that dies once it has delivered, and is away until its customer has taken the money back."""
    return replace(
        script, faults=("delay",), strangers=("early refund",),
        crashes=(Crash("seller delivered", False, 500_000), *script.crashes),
    )  # fmt: skip


def _job(chance: random.Random, number: int, unit: str) -> Job:
    turn = chance.random
    maximum = 20_000 if turn() < 0.9 else 3_000
    cancel = chance.choice((0, 100, 1_000, 1_700, 2_500, 5_000, 400_000)) if turn() < 0.15 else None
    route = (
        ("dvm", "builtin")
        if turn() < 0.6
        else chance.choice((("dvm",), ("builtin", "dvm"), ("dvm", "builtin", "spare"), ("builtin",)))
    )
    return Job(
        number * chance.randrange(4_000), maximum if unit == "uusd" else maximum * 2, cancel, turn() < 0.05, route
    )


def large(seed: int, nodes: int = 2_000) -> Plot:
    """One history with many buyers and sellers; each request goes to the sellers of one kind."""
    chance = random.Random(f"large {seed}")
    buyers = nodes // 10
    groups = max(1, nodes // 25)
    stalls = []
    for _ in range(nodes - buyers):
        style = chance.choice((*ROGUES, *ORDER_ROGUES, *MACHINES, *DEPOSITARIES)) if chance.random() < 0.15 else HONEST
        paid = chance.choice((PLAIN, PLAIN, SEALED, ORDERED, INVOICED, PREPAID, LENT))
        mints = 0 if paid in (INVOICED, LENT) and style == HONEST else 3
        stalls.append(Stall(chance.randrange(3, 13) * 1000, mints, style, paid))
    faults = tuple(fault for fault in chance.sample(FAULTS, 4) if fault != "mint: refuses")
    crashes = tuple(Crash(point, chance.random() < 0.5, 500) for point in ALL_POINTS)
    jobs = (
        Job(chance.randrange(4_000), modes=("A", "B")),  # at least one goes to the market, and is wanted
        replace(_job(chance, chance.randrange(8), "uusd"), invoices=True),
    )
    all_of_them = (*STRANGERS, *SEAL_STRANGERS, *ORDER_STRANGERS, *PAYERS, *DEPOSITORS, *GIVERS, *BORROWERS)
    places = [place for place, one in enumerate(stalls[::groups]) if one.way == PREPAID or one.style in DEPOSITARIES]
    return Plot(
        seed, tuple(stalls), jobs, faults, tuple(chance.sample(all_of_them, 10)), crashes, buyers=buyers, groups=groups,
        gifts=True, nwc=True, balances=tuple([Balance(place, 20, 0, 30_000) for place in places[:2]]),
    )  # fmt: skip
