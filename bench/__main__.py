"""The bench: `python -m bench [market|relay|pool|agents|flood|paid|query|tick|…]`; all of them if none is named.

Every number is a ratio to something measured in the same run, beside its durability. Exit code 1 if something could
not be run at all, 2 with `--strict` if a promise is not kept.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from bench import (
    agent,
    durability,
    flood,
    hibernate,
    http,
    market,
    paid,
    paper,
    pool,
    query,
    relay,
    spam,
    strain,
    table,
    tick,
)
from bench.process import ChildFailed
from bench.target import Section

Say = Callable[[str], None]
Part = Callable[[int, Path, Say], Coroutine[None, None, list[Section]]]

PARTS: dict[str, Part] = {
    "relay": relay.run,
    "pool": pool.run,
    "agents": agent.run,
    "flood": flood.run,
    "spam": spam.run,
    "paid": paid.run,
    "strain": strain.run,
    "query": query.run,
    "tick": tick.run,
    "long": tick.run_long,
    "postgres": tick.run_postgres,
    "postgres-long": tick.run_postgres_long,
    "hibernate": hibernate.run,
    "http": http.run,
    "sse": http.run_sse,
    "listing": http.run_listing,
}
NAMES = ("market", *PARTS)


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def around(folder: Path, busy: float) -> Section:
    """The machine under all of it."""
    p50, p99 = durability.probe(folder)
    section = Section("The machine")
    section.notes.append(
        f"{os.cpu_count()} processors, load {busy:.2f} before the start; one fsync here "
        f"({durability.filesystem(folder)}): p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    )
    return section


def measure(asked: argparse.Namespace, folder: Path) -> tuple[list[Section], int]:
    """The parts that were asked for, one after the other; and the worst exit code."""
    sections, code = [around(folder, os.getloadavg()[0])], 0
    for name in asked.part or NAMES:
        begun = time.monotonic()
        place = folder / name
        place.mkdir()
        try:
            if name == "market":
                report = asyncio.run(market.run([market.FLOOR, market.BEST, market.NODE], asked.rounds, place, say))
                sections.append(market.section(report))
                if not asked.json:
                    table.show(report)
                code = max(code, 1 if report["lost"] or report["wrong"] else 0)
            else:
                sections += asyncio.run(PARTS[name](asked.rounds, place, say))
        except ChildFailed as error:
            sections.append(Section(name, notes=[f"could not be run: {error}"]))
            code = 1
        finally:
            shutil.rmtree(place, ignore_errors=True)
        sections[-1].notes.append(f"{name} took {time.monotonic() - begun:.0f} s")
    return sections, code


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[[], *NAMES], help="which parts; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--strict", action="store_true", help="exit 2 if a promise is not kept")
    parser.add_argument("--dir", type=Path, help="where homes and databases go for the time of the run")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no child is left behind
    folder = Path(tempfile.mkdtemp(prefix="vendo-bench-", dir=asked.dir))
    try:
        sections, code = measure(asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        print(json.dumps([one.to_dict() for one in sections]))
    else:
        paper.show(sections)
    kept = all(one.kept for section in sections for one in section.targets)
    return code or (2 if asked.strict and not kept else 0)


if __name__ == "__main__":
    sys.exit(main())
