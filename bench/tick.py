"""Durable ticks: by hand (the floor), through the store, through the whole engine; on the same disk in the same run.

A tick is the agent's row compared and set, its message acknowledged, a record of the tick, an outbox row and a signed
ledger row. The floors write the same rows into the same tables with prepared statements: F1 in one transaction for
each tick, F64 in one for 64. They sign nothing and check nothing; what the engine adds to a tick (hooks, limits, its
trace and its recording) it writes in the same transaction.
"""

import asyncio
import statistics
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench import tick_long
from bench.process import ChildFailed
from bench.target import Section, Target, quantile, ratio
from bench.tick_engine import through_engine
from bench.tick_floor import Ground, SqliteGround
from bench.tick_store import Run, through_store

AGENTS, GROUP = 1_000, 64
SLOWER_S = 0.001
_QUICK = 20  # how many times less is done if one round is asked for
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of the table: what is measured, on how many agents, with how many ticks."""

    name: str
    agents: int
    ticks: int
    measure: Callable[[Ground, int, int], Coroutine[None, None, Run]]


def _floor(group: int) -> Callable[[Ground, int, int], Coroutine[None, None, Run]]:
    async def measure(ground: Ground, ticks: int, agents: int) -> Run:
        await ground.prepare(ticks, agents)
        took = await asyncio.to_thread(ground.floor, ticks, group, agents)
        return Run(ticks, sum(took), took, groups=len(took))

    return measure


F1_LONE, F1, F64 = "F1, one agent", "F1", "F64"
STORE_LONE, STORE, ENGINE_LONE, ENGINE = "store, one agent", "store", "engine, one agent", "engine"
FAST = (
    _Line(F1_LONE, 1, 2_000, _floor(1)),
    _Line(F1, AGENTS, 5_000, _floor(1)),
    _Line(F64, AGENTS, GROUP * 250, _floor(GROUP)),
    _Line(STORE_LONE, 1, 2_000, through_store),
    _Line(STORE, AGENTS, 16_000, through_store),
    _Line(ENGINE_LONE, 1, 1_500, through_engine),
    _Line(ENGINE, AGENTS, 10_000, through_engine),
)
SLOW = (
    _Line(F1, AGENTS, 1_000, _floor(1)),
    _Line(F64, AGENTS, GROUP * 150, _floor(GROUP)),
    _Line(STORE, AGENTS, 24_000, through_store),
    _Line(ENGINE, AGENTS, 10_000, through_engine),
)


class _Rounds:
    """What the rounds measured, by line; ratios are taken within a round, and then their median."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}

    def add(self, name: str, run: Run) -> None:
        self.runs.setdefault(name, []).append(run)

    def median(self, name: str, value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, self.runs[name]))

    def over(self, name: str, floor: str, value: Callable[[Run], float]) -> float | None:
        pairs = zip(self.runs[name], self.runs[floor], strict=True)
        found = [one for one in (ratio(value(run), value(base)) for run, base in pairs) if one is not None]
        return round(statistics.median(found), 3) if found else None


def _per_s(run: Run) -> float:
    return run.per_s


def _p50_us(run: Run) -> float:
    return quantile(run.took, 0.5) * 1e6


def _p99_us(run: Run) -> float:
    return quantile(run.took, 0.99) * 1e6


def _late_ms(run: Run) -> float:
    return quantile(run.late, 0.99) * 1e3


async def _rounds(ground: Ground, lines: Sequence[_Line], rounds: int, slower_s: float, say: Say) -> _Rounds:
    found = _Rounds()
    for number in range(rounds):
        for line in lines:
            with (ground.slowed(slower_s) if slower_s else None) or nullcontext():
                run = await line.measure(ground, line.ticks, line.agents)
            found.add(line.name, run)
            say(f"{ground.name} round {number + 1}: {line.name}: {run.per_s:,.0f} ticks/s")
    return found


def _row(ground: Ground, line: _Line, found: _Rounds, slower_s: float) -> dict[str, object]:
    floors = line.name in (F1_LONE, F1, F64)
    per_commit = found.median(line.name, lambda run: run.ticks / max(1, run.groups))
    return {
        "ticks": line.name, "agents": line.agents, "a second": found.median(line.name, _per_s),
        "p50 µs": found.median(line.name, _p50_us), "p99 µs": found.median(line.name, _p99_us),
        "of F1": found.over(line.name, F1, _per_s), "of F64": found.over(line.name, F64, _per_s),
        "ticks a commit": per_commit, "loop late p99 ms": None if floors else found.median(line.name, _late_ms),
        "durable": ground.short + (f", fsync + {slower_s * 1e3:g} ms" if slower_s else ""),
    }  # fmt: skip


def _fast(ground: Ground, found: _Rounds) -> Section:
    section = Section(f"Durable ticks on {ground.name}, {len(found.runs[F1])} rounds (F64: p50 of its transactions)")
    section.rows = [_row(ground, line, found, 0.0) for line in FAST]
    where = f"on {ground.name}"
    section.targets = [
        Target(f"a lone tick's p50 {where}, of F1's", 2, found.over(STORE_LONE, F1_LONE, _p50_us), at_least=False),
        Target(f"ticks of {AGENTS:,} agents {where}, of F1's", 3, found.over(STORE, F1, _per_s)),
        Target(f"ticks of {AGENTS:,} agents {where}, of F64's", ground.grouped, found.over(STORE, F64, _per_s)),
        Target(
            f"loop late under {AGENTS:,} agents {where}, p99", 10, round(found.median(STORE, _late_ms), 2),
            at_least=False, unit=" ms",
        ),
    ]  # fmt: skip
    lone, many = found.over(ENGINE_LONE, F1_LONE, _p50_us), found.over(ENGINE, F64, _per_s)
    section.notes = [
        f"{ground.durability}; the same for every line.",
        f"The whole engine: a lone tick's p50 is {lone}× F1's; {AGENTS:,} agents have {many} of F64's ticks, "
        f"{found.over(ENGINE, F1, _per_s)}× F1's, {found.over(ENGINE, STORE, _per_s)} of the store's.",
    ]
    return section


def _slow(ground: Ground, found: _Rounds) -> Section:
    section = Section(f"Durable ticks on {ground.name}, every fsync {SLOWER_S * 1e3:g} ms slower")
    section.rows = [_row(ground, line, found, SLOWER_S) for line in SLOW]
    section.targets = [
        Target(f"ticks of {AGENTS:,} agents with a slow disk, of F1's", 15, found.over(STORE, F1, _per_s)),
        Target(
            f"loop late under {AGENTS:,} agents with a slow disk, p99", 10, round(found.median(STORE, _late_ms), 2),
            at_least=False, unit=" ms",
        ),
    ]  # fmt: skip
    section.notes = [f"{ground.durability}; the shim adds its time to the floor's fsyncs as to the store's."]
    return section


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Ticks on SQLite."""
    return await _ticks(SqliteGround(folder), rounds, say)


async def run_long(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Many rows on SQLite; a twentieth of them if one round is asked for."""
    return [await tick_long.section(SqliteGround(folder), "sqlite", folder, say, _QUICK if rounds == 1 else 1)]


async def run_postgres(rounds: int, folder: Path, say: Say) -> list[Section]:
    """As `run` on PostgreSQL, with a server of the bench's own.

    Raises:
        ChildFailed: there is no PostgreSQL on this machine.
    """
    return await _ticks(_postgres(), rounds, say)


async def run_postgres_long(rounds: int, folder: Path, say: Say) -> list[Section]:
    """As `run_long` on PostgreSQL.

    Raises:
        ChildFailed: there is no PostgreSQL on this machine.
    """
    return [await tick_long.section(_postgres(), "postgres", folder, say, _QUICK if rounds == 1 else 1)]


def _postgres() -> Ground:
    from bench.tick_postgres import PostgresGround, is_there  # without its driver there is still SQLite

    if not is_there():
        raise ChildFailed("there is no PostgreSQL on this machine; scripts/test-postgres.sh installs it")
    return PostgresGround()


async def _ticks(ground: Ground, rounds: int, say: Say) -> list[Section]:
    sections = [_fast(ground, await _rounds(ground, FAST, rounds, 0.0, say))]
    if ground.slowed(SLOWER_S) is None:
        sections[-1].notes.append("A server's own fsync cannot be slowed from here.")
    else:
        sections.append(_slow(ground, await _rounds(ground, SLOW, rounds, SLOWER_S, say)))
    return sections
