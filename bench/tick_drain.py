"""A child of the bench that drains a long inbox through the engine: `python -m bench.tick_drain GROUND DIR N AGENTS`.

It prints one JSON line: how fast it enqueued and drained, what memory it took, and what the first ticks and the last
ones cost. A process of its own, so that its memory is its own. With one agent it is a long life instead: each message
comes when the one before was dealt with, so that the history grows and the queue does not; its last ticks are compared
with those of a new agent in a new database, one after the other.
"""

import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path

from bench.target import quantile
from bench.tick_engine import Line, engine, notify_all, running
from bench.tick_floor import Ground, SqliteGround, Store
from bench.tick_row import agent as agent_row
from bench.tick_row import fill, message, messages, names
from core.clock import SystemClock
from node.gate.ledger import ledger_seal
from relays.key import Key

FEW = 1_000
_SKIPPED = 9  # ticks before those that count as early
_LOOK_S = 0.25
_BLOCK = 125  # ticks of the long life and of the new one, in turns


class _Ends:
    """The first values and the last, and none between."""

    def __init__(self) -> None:
        self.early: list[float] = []
        self.late: deque[float] = deque(maxlen=FEW)
        self._count = 0

    def note(self, value: float) -> None:
        """One more."""
        self._count += 1
        if _SKIPPED < self._count <= FEW + _SKIPPED:
            self.early.append(value)
        self.late.append(value)


def ground(name: str, folder: Path) -> Ground:
    """What the ticks are on."""
    if name == "postgres":
        from bench.tick_postgres import PostgresGround  # without its driver there is still SQLite

        return PostgresGround()
    return SqliteGround(folder)


def rss_mib(what: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the most until now) of this process, in MiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not say {what}")


async def _watch(seen: list[float]) -> None:
    while True:
        seen.append(rss_mib("VmRSS"))
        await asyncio.sleep(_LOOK_S)


async def drain(one: Ground, count: int, agents: int) -> dict[str, float]:
    """Enqueue so many messages for so many agents, then let the engine deal with all of them."""
    store = await one.open(ledger_seal(Key.generate()), SystemClock())
    every = names(agents)
    await fill(store, map(agent_row, every))
    begun = time.perf_counter()
    await fill(store, messages(every, count))
    filled = time.perf_counter() - begun
    before, line, took, seen = rss_mib("VmRSS"), Line(), _Ends(), list[float]()
    runner, watch = engine(store, line), asyncio.create_task(_watch(seen))
    begun = time.perf_counter()
    done = line.begin(count, took.note)
    async with running(runner):
        notify_all(runner.notify, every)
        await done
    seconds = time.perf_counter() - begun
    watch.cancel()
    return await _found(store, count, filled, seconds, before, seen, took)


class _Life:
    """One agent, in a database of its own, that gets each message when the tick before is durable.

    Args:
        store: the database, empty.
        name: the agent's.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self._name, self._line = store, name, Line()
        self.engine = engine(store, self._line)
        self.filled, self._ticks = 0.0, 0

    @classmethod
    async def born(cls, on: Ground) -> "_Life":
        """A new agent in a new database."""
        store = await on.open(ledger_seal(Key.generate()), SystemClock())
        (name,) = names(1)
        await fill(store, [agent_row(name)])
        return cls(store, name)

    async def goes_on(self, count: int) -> list[float]:
        """So many ticks; the seconds of each, without those of its message's own commit."""
        took: list[float] = []
        turn, told = asyncio.Semaphore(1), 0.0

        def note(_seconds: float) -> None:
            took.append(time.perf_counter() - told)
            turn.release()

        done = self._line.begin(count, note)
        for _ in range(count):
            await turn.acquire()
            since = time.perf_counter()
            await self.store.commit([message(self._name, self._ticks)])
            told = time.perf_counter()
            self.filled += told - since
            self._ticks += 1
            self.engine.notify(self._name)
        await done
        return took


async def live(one: Ground, other: Ground, count: int) -> dict[str, float]:
    """A long life, and at its end a new one in turns with it: what is compared was measured in the same minute."""
    old, new = await _Life.born(one), await _Life.born(other)
    took, seen = _Ends(), list[float]()
    before, watch = rss_mib("VmRSS"), asyncio.create_task(_watch(seen))
    async with running(old.engine), running(new.engine):
        begun = time.perf_counter()
        for _ in range(count // FEW):
            await old.goes_on(FEW)
        seconds = time.perf_counter() - begun - old.filled
        filled = old.filled
        await new.goes_on(_SKIPPED)
        for _ in range(FEW // _BLOCK):
            took.late.extend(await old.goes_on(_BLOCK))
            took.early.extend(await new.goes_on(_BLOCK))
    watch.cancel()
    await new.store.aclose()
    return await _found(old.store, count // FEW * FEW, filled, seconds, before, seen, took, after=FEW)


async def _found(
    store: Store, count: int, filled: float, seconds: float, before: float, seen: list[float], took: _Ends,
    after: int = 0,
) -> dict[str, float]:  # fmt: skip
    """What is said of it, once all is dealt with: `filled` and `seconds` are what its two parts took.

    `after`: ticks that came later.
    """
    left, ticks = await store.count("inbox", {"state": "new"}), await store.count("tick", {"error": ""})
    await store.aclose()
    seen = seen or [rss_mib("VmRSS")]
    tenth = len(seen) // 10
    return {
        "lost": left + count + after - ticks, "enqueued_per_s": count / filled, "drained_per_s": count / seconds,
        "both_per_s": count / (filled + seconds),
        "before_mib": before, "early_mib": max(seen[: tenth + 1]), "most_mib": max(seen),
        "early_us": quantile(took.early, 0.5) * 1e6, "late_us": quantile(list(took.late), 0.5) * 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    kind, where, number, of = sys.argv[1:]
    folder = Path(where)
    made = ground(kind, folder)
    if of == "1":
        (folder / "new").mkdir()
        told = asyncio.run(live(made, ground(kind, folder / "new"), int(number)))
    else:
        told = asyncio.run(drain(made, int(number), int(of)))
    print(json.dumps(told), flush=True)
