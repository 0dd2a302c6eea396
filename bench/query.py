"""Queries against a big store: REQ to EOSE over the wire, for each shape of `filters.json`, and the rows examined.

`python -m bench.query [--events 1000000] [--times 150]`. The store is built once and kept (see `bench/store.py`).
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import paper
from bench.process import Children
from bench.store import Population, stored
from bench.target import Section, Target, quantile
from bench.wire import Client, ask
from relays.embedded.error import QueryTooBroad
from relays.embedded.store_query import EventReader
from relays.embedded.store_scan import EXAMINED_PER_ROW
from relays.embedded.store_schema import connect, hashing
from relays.filter import parse_filter

EVENTS, TIMES, WARM, P99_MS = 1_000_000, 150, 15, 10.0
SHAPES = json.loads(Path(__file__).with_name("filters.json").read_text(encoding="utf-8"))
_END = (b'["EOSE"', b'["CLOSED"')
Say = Callable[[str], None]


def filters(shape: dict[str, Any], people: Population, count: int) -> list[dict[str, Any]]:
    """So many filters of one shape, always the same ones."""
    rng = random.Random(shape["shape"])
    return [people.fill(shape["filter"], rng) for _ in range(count)]


async def timed(url: str, asked: list[dict[str, Any]]) -> tuple[list[float], float, int]:
    """Milliseconds from REQ to EOSE of each filter, events returned on average, and how many were refused."""
    client = await Client.connect(url)
    spent, returned, refused = [], 0, 0
    for number, wanted in enumerate(asked):
        seen = 0
        done: asyncio.Future[tuple[float, bool]] = asyncio.get_running_loop().create_future()

        def heard(messages: list[bytes], done: "asyncio.Future[tuple[float, bool]]" = done) -> None:
            nonlocal seen
            for message in messages:
                if message.startswith(_END) and not done.done():
                    done.set_result((time.perf_counter(), message.startswith(_END[1])))
                else:
                    seen += 1

        client.heard = heard
        started = time.perf_counter()
        client.transport.write(ask(f"q{number}", wanted))
        ended, was_refused = await asyncio.wait_for(done, 30)
        spent.append(1e3 * (ended - started))
        returned, refused = returned + seen, refused + was_refused
        client.transport.write(ask_close(f"q{number}"))
    client.close()
    return spent, returned / len(asked), refused


def ask_close(sub_id: str) -> bytes:
    """The frame of a CLOSE."""
    from bench.wire import masked

    return masked(json.dumps(["CLOSE", sub_id]).encode())


def examined(home: Path, asked: list[dict[str, Any]]) -> tuple[float, int]:
    """The greatest number of index rows read for each row returned (plus one), and how many were too broad."""
    db = connect(home / "relay.db")
    kinds = frozenset(row[0] for row in db.execute("SELECT DISTINCT kind FROM event"))
    reader, worst, broad = EventReader(home / "relay.db", hashing(db), lambda: kinds), 0.0, 0
    for wanted in asked:
        try:
            snapshot = reader.snapshot([parse_filter(wanted)], 0)
        except QueryTooBroad:
            broad += 1
        else:
            worst = max(worst, snapshot.examined / (len(snapshot.seqs) + 1))
    reader.close()
    db.close()
    return worst, broad


def _cache(path: Path) -> None:
    """Read the file once: what is measured is the relay, not how fast this machine's disk fills its cache."""
    with path.open("rb") as file:
        while file.read(1 << 22):
            pass


async def run(_rounds: int, folder: Path, say: Say, events: int = EVENTS, times: int = TIMES) -> list[Section]:
    """One section: a row for each shape, and the promises."""
    say(f"a store of {events:,} events")
    home, people = stored(events)
    _cache(home / "relay.db")
    section = Section(f"Queries at {events:,} stored events, limit 100, REQ to EOSE over the wire")
    async with Children(folder) as children:
        argv = ("cli.relay", "--home", str(home), "--port", "0", "--private-messages", "everybody")
        child = await children.start("relay-query", *argv)
        for shape in SHAPES:
            asked = filters(shape, people, WARM + times)
            await timed(child.said["url"], asked[:WARM])
            spent, returned, refused = await timed(child.said["url"], asked[WARM:])
            worst, broad = await asyncio.to_thread(examined, home, asked[WARM:])
            p99 = quantile(spent, 0.99)
            section.rows.append(
                {
                    "shape": shape["shape"],
                    "p50 ms": round(statistics.median(spent), 2),
                    "p99 ms": round(p99, 2),
                    "events": round(returned),
                    "rows examined / (returned + 1), worst": round(worst, 2),
                    "refused": max(refused, broad),
                }
            )
            say(f"  {shape['shape']}: p50 {statistics.median(spent):.2f} ms, p99 {p99:.2f} ms, refused {refused}")
            section.targets.append(
                Target(f"p99 of {shape['shape']}", P99_MS, round(p99, 2), at_least=False, unit=" ms")
            )
        section.notes.append(f"resident memory of the relay: {child.rss_mb():.0f} MiB")
    most = max(row["rows examined / (returned + 1), worst"] for row in section.rows)
    section.targets.append(Target("rows examined for each returned", EXAMINED_PER_ROW, most, at_least=False))
    refused = sum(row["refused"] for row in section.rows)
    section.targets.append(Target("common filters refused", 0, refused, at_least=False, unit=""))
    section.notes.append(
        f"{times} different filters a shape, after {WARM} others to warm up; the file was read once before"
    )
    return [section]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.query", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--times", type=int, default=TIMES)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vendo-bench-") as folder:

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        sections = asyncio.run(run(1, Path(folder), say, asked.events, asked.times))
    paper.show(sections)
    return 0 if all(target.kept for section in sections for target in section.targets) else 2


if __name__ == "__main__":
    sys.exit(main())
