"""What a number of runs came across: transitions, crash points, faults, adversaries. A zero is a hole in the proof."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dvm import buyer, seller
from tests.simulation.world import World
from wallet import payment


def _name(place: Any, event: type, to: Any, number: int) -> str:
    return f"{place}, {event.__name__} -> {to}" + (f" ({number})" if number else "")


@dataclass
class Coverage:
    """Counts over many runs."""

    transitions: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)

    def add(self, world: World, checks: Counter[str]) -> None:
        self.crashes.update(world.crashed)
        self.faults.update(world.faults)
        self.actors.update(world.acted)
        self.actors.update({f"actor {style}": 1 for style in world.script.adversaries if _acted(world, style)})
        self.commits.update(world.commits)
        self.checks.update(checks)

    def zeros(self, kind: str, wanted: Iterable[str]) -> list[str]:
        """Those of what is wanted that never came."""
        found: Counter[str] = getattr(self, kind)
        return sorted(name for name in wanted if not found[name])

    def report(self) -> str:
        lines = []
        for kind in ("transitions", "crashes", "faults", "actors", "checks"):
            found: Counter[str] = getattr(self, kind)
            lines.append(f"{kind}:")
            lines += [f"  {count:7d}  {name}" for name, count in sorted(found.items())]
        return "\n".join(lines)


def all_transitions() -> set[str]:
    """Every rule of the three machines, by its name here."""
    names: set[str] = set()
    with recording(Coverage(), names):
        return names


def _acted(world: World, style: str) -> bool:
    """Whether it really came to what this adversary is for."""
    words = [name.removeprefix(style).strip() for name in world.acted if name.split()[0] == style]
    last = {"asks": False, "quotes": False}
    if style in ("flood", "freeflood", "url", "deleter"):
        return "asks" in words
    return any(last.get(word, True) for word in words)


@contextmanager
def recording(coverage: Coverage, names: set[str] | None = None) -> Iterator[Coverage]:
    """While this is open every rule that fires is counted."""

    def counted(name: str, when: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
        if names is not None:
            names.add(name)

        def guard(state: Any, event: Any) -> bool:
            holds = when(state, event)
            coverage.transitions[name] += bool(holds)
            return holds

        return guard

    machines: list[tuple[str, dict[Any, Any]]] = [("buyer", buyer.TRANSITIONS), ("seller", seller.TRANSITIONS)]
    kept = [(table, dict(table)) for _, table in machines]
    saga = payment.TRANSITIONS
    for word, table in machines:
        for (place, event), rules in table.items():
            table[place, event] = tuple(
                replace(rule, when=counted(f"{word}: {_name(place, event, rule.to, number)}", rule.when))
                for number, rule in enumerate(rules)
            )
    payment.TRANSITIONS = tuple(replace(row, when=counted(f"wallet: {row.name}", row.when)) for row in saga)
    try:
        yield coverage
    finally:
        for table, old in kept:
            table.update(old)
        payment.TRANSITIONS = saga
