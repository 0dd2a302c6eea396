"""kill −9 at any time under load: no acknowledged message is lost, none has two ticks, nothing is half there.

The times of the kills are drawn from a seed, which a failure prints; VENDO_KILL_SEED sets it.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import settings

from core.clock import SystemClock
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from tests.integration.agent.kill_part import AGENTS, NODE, RUN
from tests.postgres_part import fresh_database

ROOT = Path(__file__).parents[3]
TORTURE = settings.get_current_profile_name() == "torture"
KILLS = {"sqlite": 200, "postgres": 50} if TORTURE else {"sqlite": 10, "postgres": 3}
LANE = 100_000  # more than any child sends before it is killed
START_S, END_S = 60, 120


class Child:
    """The process, and what it has said."""

    def __init__(self, url: str, first: int, count: int) -> None:
        argv = [sys.executable, "-m", "tests.integration.agent.kill_part", url, str(first), str(count)]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self.ready, self.idle = threading.Event(), threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if line == "ready\n":
                self.ready.set()
            elif line == "idle\n":
                self.idle.set()

    def kill(self) -> list[int]:
        """The numbers of messages that it said were durable; a line that was cut off says nothing."""
        self.process.send_signal(signal.SIGKILL)
        return self.end()

    def end(self) -> list[int]:
        self.process.wait(END_S)
        self._reader.join(10)
        return [int(line.split()[1]) for line in self.said if line.startswith("sent ") and line.count(" ") == 1]

    def fault(self) -> str:
        self.process.kill()
        assert self.process.stderr is not None
        return self.process.stderr.read()[-3000:]


async def _check(url: str, sent: set[int]) -> None:
    base = await open_database(url if "://" in url else Path(url), seal=ledger_seal(NODE), clock=SystemClock())
    try:
        inbox = [row for row in await base.select("inbox") if row["cause"] == "message"]
        there = {int(row["envelope_id"][1:]) for row in inbox}
        assert sent <= there, f"lost: {sorted(sent - there)[:5]}"
        assert {row["state"] for row in inbox} == {"done"}, Counter(row["state"] for row in inbox)
        ticks = Counter(row["envelope_id"] for row in await base.select("tick", {"error": ""}))
        assert set(ticks.values()) == {1} or {name for name, count in ticks.items() if count > 1} == {"initialize"}
        assert {f"m{number}" for number in there} == set(ticks) - {"initialize"}
        done = 0
        for row in await base.select("agent"):
            state = orjson.loads(row["state"])
            own = [one for one in inbox if one["agent"] == row["name"]]
            assert state["done"] == len(own), row["name"]
            assert row["ticks"] == len(own) + 1
            done += state["done"]
        assert done == len(there)
        assert {row["event_id"] for row in await base.select("outbox")} == {f"event-{number}" for number in there}
        entries = await base.select("entry", {"run": RUN}, order=("seq",))
        assert [row["seq"] for row in entries] == list(range(len(there)))
        assert all(after["prev"] == before["id"] for before, after in pairwise(entries))
        assert {row["effect_id"] for row in entries} == {str(number) for number in there}
        assert len(await base.select("mark")) == sum(
            min(1024, sum(o["agent"] == f"a{k}" for o in inbox)) for k in range(AGENTS)
        )
    finally:
        await base.aclose()


@pytest.fixture
def start() -> Iterator[Callable[[str, int, int], Child]]:
    made: list[Child] = []

    def begin(url: str, first: int, count: int) -> Child:
        made.append(Child(url, first, count))
        return made[-1]

    yield begin
    for one in made:
        one.process.kill()
        one.process.wait()


@pytest.mark.timeout(3_600 if TORTURE else 240)
@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
async def test_nothing_acknowledged_is_lost_and_nothing_happens_twice(
    engine: str, tmp_path: Path, start: Callable[[str, int, int], Child]
) -> None:
    url = str(tmp_path / "node.db") if engine == "sqlite" else await fresh_database(str(tmp_path))
    seed = int(os.environ.get("VENDO_KILL_SEED") or random.SystemRandom().getrandbits(32))
    print(f"VENDO_KILL_SEED={seed}")  # noqa: T201 - shown where the test fails
    chance, sent = random.Random(seed), set()
    turns = itertools.count()
    while (turn := next(turns)) < KILLS[engine] or (not sent and turn < 10 * KILLS[engine]):
        child = start(url, turn * 4 * LANE, LANE)
        assert child.ready.wait(START_S), child.fault()
        time.sleep(chance.uniform(0.0, 0.6))
        assert child.process.poll() is None, child.fault()
        sent |= set(child.kill())
    last = start(url, 0, 0)
    assert last.idle.wait(END_S), last.fault()
    assert last.end() == []
    assert sent
    await _check(url, sent)
