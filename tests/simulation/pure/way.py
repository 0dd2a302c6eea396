"""Turns a plot of locked ecash into one of another way to pay: sealed results, invoices of nodes and of machines."""

import random

from core.change import replace
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
    Plot,
    Stall,
)
from tests.simulation.pure.way_credit import gifts, lent, wallets
from tests.simulation.pure.way_prepaid import prepaid

DOWN = (50, 200, 3_000, 90_000)
DOUBTS = ("mint: answer lost", "mint: late request", "mint: request lost", "mint: false answer")


def lead(script: Plot, chance: random.Random) -> Plot:
    """The same history in a market that pays in one of the other ways."""
    ways = (sealed, ordered, ordered, invoiced, machined, prepaid, prepaid, gifts, lent, wallets)
    return chance.choice(ways)(script, chance)


def _of(script: Plot, way: str, jobs: dict[str, object]) -> Plot:
    mints = {"mints": 0} if way == INVOICED else {}
    stalls = tuple(replace(one, way=way, **mints) if one.style == HONEST else one for one in script.stalls)
    return replace(script, stalls=stalls, jobs=tuple(replace(job, **jobs) for job in script.jobs))


def _with_rogue(script: Plot, style: str, price: int = 3_000) -> Plot:
    """One rogue, and all others honest and dearer."""
    way = script.stalls[-1].way
    honest = [replace(one, style=HONEST, way=way, price=max(one.price, 4_000) % 100_000) for one in script.stalls[1:]]
    return replace(script, stalls=(Stall(price, 3, style, way), *honest))


def sealed(script: Plot, chance: random.Random) -> Plot:
    """Sealed results, paid before the work (mode B)."""
    script = _of(script, SEALED, {"modes": ("B",), "free": False})
    return _of_seals(script, chance, SEAL_ROGUES, SEAL_STRANGERS)


def ordered(script: Plot, chance: random.Random) -> Plot:
    """Sealed results, paid after the work (mode A)."""
    script = _of(script, ORDERED, {"modes": ("A", "B"), "free": False})
    if chance.random() < 0.45:
        return _another(script, chance)
    return _of_seals(script, chance, ORDER_ROGUES, (*ORDER_STRANGERS, "lock to another hash"))


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


def invoiced(script: Plot, chance: random.Random) -> Plot:
    """Nodes that are paid by invoice."""
    turn = chance.random
    script = _of(script, INVOICED, {"invoices": True, "free": False})
    script = replace(script, strangers=(chance.choice(PAYERS),))
    if turn() < 0.3:
        script = _with_rogue(script, chance.choice(MACHINES), 1_000)
    return _of_melts(script, chance)


def machined(script: Plot, chance: random.Random) -> Plot:
    """A machine that is paid by invoice, among nodes that take locked ecash."""
    script = replace(script, jobs=tuple(replace(job, invoices=True, free=False) for job in script.jobs))
    script = _with_rogue(script, chance.choice(MACHINES), 1_000)
    return _of_melts(script, chance)


def _of_melts(script: Plot, chance: random.Random) -> Plot:
    turn = chance.random
    if turn() < 0.06:
        stalls = (Stall(4_000, 3, "promiser"), Stall(1_000, 3, "machine afterwards"), Stall(900_000, 3, "dear"))
        return replace(script, stalls=stalls, jobs=script.jobs[:1], faults=("drop",), crashes=())
    if turn() < 0.5:
        script = replace(script, faults=(chance.choice(MELT_FAULTS), *script.faults[: int(turn() * 2)]))
    if turn() < 0.4:
        points = ("buyer melt prepared", "buyer melt unknown", "buyer melt done", "buyer melt refused")
        points += ("buyer fallback/locking", "buyer failed/locking")
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
    elif name.endswith("/locking"):
        faults = ("mint: says pending for ever",)
        route = ("dvm",) if name.startswith("failed") else ("dvm", "builtin")
        script = replace(script, jobs=tuple(replace(job, route=route, cancel_at=None) for job in script.jobs))
    elif name == "melt refused":
        faults = (chance.choice(("mint: cannot pay", "mint: away")),)
    elif name in ("owed", "repaid"):
        strangers = (chance.choice(("pays too late", "cancels and pays")) if name == "owed" else "pays and asks again",)
        if name == "repaid":
            faults = ("clumsy provider",)
    if set(faults) >= DOUBTFUL:
        faults = tuple(one for one in faults if one != "mint: refuses")
    return replace(script, faults=faults, strangers=strangers, crashes=(crash,))


def _another(script: Plot, chance: random.Random) -> Plot:
    """An order that comes to nothing, or that the budget has no room for, and what is left then."""
    dear = Stall(900_000, 3, "dear")
    rest = chance.choice(
        (
            (dear,), (Stall(4_000, 3, "giver"),), (Stall(4_000, 3, "giver"),), (Stall(11_000, 3, HONEST, SEALED),),
            (Stall(11_000, 3, HONEST, ORDERED),),
        )
    )  # fmt: skip
    style = chance.choice(("blank", "breaks an order off", "wrong ciphertext", HONEST, "", "promiser"))
    first, faults = Stall(3_000, 3, style, ORDERED), ("delay",)
    if style in (HONEST, ""):
        first, faults = Stall(9_000, 3, HONEST, ORDERED if style else SEALED), ("no room in the budget",)
    elif style == "promiser":
        first, faults = Stall(3_000, 3, style), ("drop",)
        rest = (Stall(5_000, 3, HONEST, ORDERED),)
    route = chance.choice((("dvm",), ("dvm", "builtin")))
    jobs = tuple(replace(job, route=route, cancel_at=None) for job in script.jobs[:1])
    return replace(script, stalls=(first, *rest, dear), jobs=jobs, faults=faults, crashes=(), unit="uusd")
