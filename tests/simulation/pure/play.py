"""Plays plots, many of them; finds the shortest plot that still breaks a rule, and tells its story."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dvm import buyer as buyer_machine
from dvm import custody as custody_machine
from dvm import deposit as deposit_machine
from dvm import invoice as bills
from dvm import prepaid
from dvm import seller as seller_machine
from dvm import tip as tip_machine
from tests.simulation.pure.buyer import Buyer
from tests.simulation.pure.cast import (
    BORROWERS,
    DEPOSITARIES,
    DEPOSITORS,
    GIVERS,
    HONEST,
    MACHINES,
    ORDER_ROGUES,
    ORDER_STRANGERS,
    PAYERS,
    SEAL_STRANGERS,
    Plot,
)
from tests.simulation.pure.gift_other import Giver
from tests.simulation.pure.judge import Judge
from tests.simulation.pure.lightning import read
from tests.simulation.pure.mint import Output
from tests.simulation.pure.other import Rogue, Stranger
from tests.simulation.pure.paper import holds, identity, was_signed
from tests.simulation.pure.plot import plot
from tests.simulation.pure.prepaid_other import Depositary, Depositing
from tests.simulation.pure.seal_other import Borrower, Machine, Payer, SealRogue, SealStranger
from tests.simulation.pure.seller import Seller
from tests.simulation.pure.world import Coverage, World
from wallet import lightning, verification
from wallet import payment as saga

TABLES: tuple[tuple[str, Any], ...] = (
    ("buyer", buyer_machine.TRANSITIONS),
    ("seller", seller_machine.TRANSITIONS),
    ("deposit", deposit_machine.TRANSITIONS),
    ("custody", custody_machine.TRANSITIONS),
    ("tip", tip_machine.TRANSITIONS),
)
FUNDS = (64, 32, 16, 8)  # sat: the buyer's coins at each mint


def name_of(place: Any, event: type, to: Any, number: int) -> str:
    return f"{place}, {event.__name__} -> {to}" + (f" ({number})" if number else "")


def transitions() -> set[str]:
    """Every row of the machines, by its name in the coverage."""
    names = {f"wallet: {row.name}" for row in saga.TRANSITIONS} | {f"nwc: {row.name}" for row in lightning.TRANSITIONS}
    for word, table in TABLES:
        for (place, event), rules in table.items():
            names |= {f"{word}: {name_of(place, event, rule.to, number)}" for number, rule in enumerate(rules)}
    return names


@contextmanager
def recording(coverage: Coverage) -> Iterator[Coverage]:
    """While this is open each row that fires is counted, and the mints' signatures are words."""
    counts = coverage.transitions

    def counted(name: str, do: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def act(state: Any, event: Any) -> Any:
            counts[name] += 1
            return do(state, event)

        return act

    kept = [(table, dict(table)) for _, table in TABLES]
    for word, table in TABLES:
        for (place, event), rules in list(table.items()):
            table[place, event] = tuple(
                replace(rule, do=counted(f"{word}: {name_of(place, event, rule.to, number)}", rule.do))
                for number, rule in enumerate(rules)
            )
    signed, reader, holder = verification.was_signed, bills.read_invoice, prepaid.holds
    verification.was_signed, prepaid.holds = was_signed, holds
    bills.read_invoice = read
    try:
        yield coverage
    finally:
        verification.was_signed, bills.read_invoice, prepaid.holds = signed, reader, holder
        for table, old in kept:
            table.clear()
            table.update(old)


def build(script: Plot, coverage: Coverage, story: list[str] | None = None) -> World:
    """Everybody in their places."""
    world = World(script, coverage, story)
    judge = world.judge = Judge(world)
    shops: list[Any] = []
    for place, stall in enumerate(script.stalls):
        name = f"s{place}"
        honest = stall.style == HONEST
        shop: Any = Seller(world, name, identity(name), stall) if honest else _rogue(stall.style)(world, name, stall)
        world.shops.setdefault(place % script.groups, []).append(shop)
        world.by_key[shop.key] = shop
        if honest:
            shops.append(shop)
    for number in range(script.buyers):
        buyer = Buyer(world, f"b{number}", identity(f"b{number}"), script.jobs, number % script.groups)
        world.nodes.append(buyer)
        world.by_key[buyer.key] = buyer
        world.trusted.add(buyer.key)
        _fund(world, buyer)
        buyer.open()
    world.nodes += shops
    for number, style in enumerate(script.strangers):
        stranger: Any = _stranger(style)(world, f"x{number}", style)
        world.by_key.setdefault(stranger.key, stranger)
        stranger.open()
    world.unsettle()
    if script.deposit:
        _deposits(world)
    del judge
    return world


def _rogue(style: str) -> Any:
    if style in DEPOSITARIES:
        return Depositary
    return SealRogue if style in ORDER_ROGUES else Machine if style in MACHINES else Rogue


def _stranger(style: str) -> Any:
    if style in PAYERS:
        return Payer
    if style in BORROWERS:
        return Borrower
    if style in GIVERS:
        return Giver
    if style in DEPOSITORS:
        return Depositing
    return SealStranger if style in (*SEAL_STRANGERS, *ORDER_STRANGERS) else Stranger


def _fund(world: World, buyer: Buyer) -> None:
    for place, mint in enumerate(world.mints):
        poor = "no funds" in world.faults or ("no funds at one mint" in world.faults and place == 0)
        for amount in (2, 1) if poor else FUNDS:
            buyer.purse.count += 1
            coin = Output(f"{buyer.name}/{buyer.purse.count}", amount, buyer.name, 0)
            mint.give(coin)
            buyer.purse.coins[coin.name] = [amount, mint, None]
        if poor and "no funds at one mint" in world.faults:
            world.coverage.faults["no funds at one mint"] += 1


def _deposits(world: World) -> None:
    """Lightning in: one invoice that is paid soon, one late, one never."""
    for number, wait in enumerate((1_000, 40_000, None)):
        mint, buyer = world.mints[number % 2], world.nodes[0]
        id_ = f"deposit {number}"
        again = _Deposit(world, buyer, id_, mint)
        world.soon(None, 10 + number, again.ask)
        if wait is not None:
            world.soon(None, 100 + wait, again.pay)


class _Deposit:
    """A caller that asks for an invoice until it has one, and whoever pays it."""

    def __init__(self, world: World, buyer: Buyer, id_: str, mint: Any) -> None:
        self.world, self.buyer, self.id, self.mint = world, buyer, id_, mint

    def ask(self) -> None:
        if self.id not in self.buyer.purse.ops:
            self.world.soon(None, 5_000, self.ask)
        if self.id not in self.buyer.purse.ops and self.buyer.life >= 0:
            self.buyer.purse.deposit(self.id, self.mint, 30)

    def pay(self) -> None:
        if self.id in self.mint.quotes:
            self.world.pay_invoice(self.mint, self.id)
        else:
            self.world.soon(None, 5_000, self.pay)


@dataclass
class Played:
    """How one history went."""

    plot: Plot
    events: int
    breaches: list[tuple[str, str]]
    story: list[str] = field(default_factory=list)


def play(script: Plot, coverage: Coverage, *, tells: bool = False) -> Played:
    """One history, to its end. Inside `recording`."""
    story: list[str] | None = [] if tells else None
    world = build(script, coverage, story)
    world.run()
    world.judge.finish()
    coverage.histories += 1
    coverage.events += world.events
    coverage.checks["by the judge"] += world.judge.count
    return Played(script, world.events, world.judge.breaches, story or [])


def survey(
    seeds: Iterable[int], coverage: Coverage, make: Callable[[int], Plot] = plot, most: int = 20
) -> list[Played]:
    """Play the plots of these seeds; those that broke a rule, at most so many."""
    failed: list[Played] = []
    with recording(coverage):
        for seed in seeds:
            played = play(make(seed), coverage)
            if played.breaches:
                failed.append(played)
                if len(failed) >= most:
                    break
    return failed


def shrink(script: Plot, rule: str) -> Plot:
    """The same plot without what is not needed to break that rule: dropped one by one as long as it still does."""
    coverage = Coverage()

    def breaks(one: Plot) -> bool:
        return any(found == rule for found, _ in play(one, coverage).breaches)

    with recording(coverage):
        smaller = True
        while smaller:
            smaller = False
            for candidate in _smaller(script):
                if breaks(candidate):
                    script, smaller = candidate, True
                    break
    return script


def _smaller(script: Plot) -> Iterator[Plot]:
    for name in ("crashes", "strangers", "faults", "jobs", "stalls", "balances"):
        values = getattr(script, name)
        for place in range(len(values)):
            if len(values) > (name in ("jobs", "stalls")):
                yield replace(script, **{name: values[:place] + values[place + 1 :]})
    for place, job in enumerate(script.jobs):
        if job.cancel_at is not None:
            yield replace(script, jobs=(*script.jobs[:place], replace(job, cancel_at=None), *script.jobs[place + 1 :]))
    for place, stall in enumerate(script.stalls):
        if stall.style != HONEST:
            yield replace(
                script, stalls=(*script.stalls[:place], replace(stall, style=HONEST), *script.stalls[place + 1 :])
            )
    for name in ("deposit", "gifts", "nwc"):
        if getattr(script, name):
            yield replace(script, **{name: False})
