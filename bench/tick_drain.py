"""A child of the bench that drains a long inbox through the engine: `python -m bench.tick_drain GROUND DIR N AGENTS`.

It prints one JSON line: how fast it enqueued and drained, what memory it took, and what the first ticks and the last
ones cost. A process of its own, so that its memory is its own. With one agent it is a long life instead: each message
comes when the one before was dealt with, so that the history grows and the queue does not.
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


class _Ends:
    """The first values and the last, and none between."""

    def __init__(self) -> None:
        self.early: list[float] = []
        self.late: deque[float] = deque(maxlen=FEW)

    def note(self, value: float) -> None:
        """One more."""
        if len(self.early) < FEW + _SKIPPED:
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


async def live(one: Ground, count: int) -> dict[str, float]:
    """So many messages for one agent, each when the tick before is durable."""
    store = await one.open(ledger_seal(Key.generate()), SystemClock())
    (name,) = names(1)
    await fill(store, [agent_row(name)])
    before, line, took, seen = rss_mib("VmRSS"), Line(), _Ends(), list[float]()
    runner, watch = engine(store, line), asyncio.create_task(_watch(seen))
    turn = asyncio.Semaphore(1)
    begun = told = time.perf_counter()
    filled = 0.0

    def note(_seconds: float) -> None:
        took.note(time.perf_counter() - told)  # the tick alone, without the message's own commit
        turn.release()

    done = line.begin(count, note)
    async with running(runner):
        for number in range(count):
            await turn.acquire()
            since = time.perf_counter()
            await store.commit([message(name, number)])
            told = time.perf_counter()
            filled += told - since
            runner.notify(name)
        await done
    seconds = time.perf_counter() - begun - filled
    watch.cancel()
    return await _found(store, count, filled, seconds, before, seen, took)


async def _found(
    store: Store, count: int, filled: float, seconds: float, before: float, seen: list[float], took: _Ends
) -> dict[str, float]:
    """What is said of it, once all is dealt with: `filled` and `seconds` are what its two parts took."""
    left, ticks = await store.count("inbox", {"state": "new"}), await store.count("tick", {"error": ""})
    await store.aclose()
    seen = seen or [rss_mib("VmRSS")]
    tenth = len(seen) // 10
    return {
        "lost": left + count - ticks, "enqueued_per_s": count / filled, "drained_per_s": count / seconds,
        "both_per_s": count / (filled + seconds),
        "before_mib": before, "early_mib": max(seen[: tenth + 1]), "most_mib": max(seen),
        "early_us": quantile(took.early[_SKIPPED:], 0.5) * 1e6, "late_us": quantile(list(took.late), 0.5) * 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    kind, where, number, of = sys.argv[1:]
    made = ground(kind, Path(where))
    print(
        json.dumps(asyncio.run(live(made, int(number)) if of == "1" else drain(made, int(number), int(of)))), flush=True
    )
