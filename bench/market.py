"""The market's bench: the node that sells a free echo, as a ratio to a floor that is measured in the same run.

`python -m bench.market` starts, as processes of their own on this machine: two kinds of relay (a bare one in memory,
and vendo's own, which verifies and keeps everything) and for each of them the floor and the node, every pair on a
relay of its own so that an idle one costs the other nothing. Then it asks for jobs in rounds that alternate between
the responders. Exit code 1 if a job is lost or answered wrongly; with `--strict`, 2 if a target is missed.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import durability, table
from bench.load import Load, measure
from bench.process import Child, ChildFailed, Children
from bench.target import Section, Target
from node import home

JOBS = {1: 120, 16: 480, 64: 960}  # by number of customers
RELAYS = ("bare", "embedded")
FLOOR, BEST, NODE = "floor", "best floor", "vendo"
MIN_THROUGHPUT, MAX_P50 = 0.7, 2.5
ROUND_LIMIT_S, LIMIT_S = 60.0, 285.0
SELL = '\n[[sell]]\nkind = 5050\nprice_msat = 0\nprovider = "echo"\nmax_parallel = 256\n'


@dataclass(slots=True)
class Responder:
    """Someone who answers jobs on one relay."""

    relay: str
    name: str
    url: str
    pubkey: str
    process: Child
    relay_process: Child
    home: Path | None = None
    relay_home: Path | None = None
    loads: dict[int, list[Load]] = field(default_factory=dict)
    cpu_s: dict[int, float] = field(default_factory=dict)
    rss_mb: dict[int, float] = field(default_factory=dict)
    asked: int = 0


async def _start(children: Children, folder: Path, relay: str, name: str) -> Responder:
    tag = f"{relay}-{name.replace(' ', '-')}"
    relay_home = None
    if relay == "bare":
        carrier = await children.start(f"relay-{tag}", "bench.bare_relay")
    else:
        relay_home = folder / f"relay-{tag}"
        carrier = await children.start(f"relay-{tag}", "cli.relay", "--home", str(relay_home), "--port", "0")
    url = str(carrier.said["url"])
    if name != NODE:
        crypto = "nostr_sdk" if name == FLOOR else "coincurve"
        process = await children.start(tag, "bench.floor", url, "--crypto", crypto)
        return Responder(relay, name, url, str(process.said["pubkey"]), process, carrier, None, relay_home)
    path = folder / tag
    home.create(path, relays=[url], mints=[], port=0, name="bench")
    with (path / "config.toml").open("a", encoding="utf-8") as config:
        config.write(SELL)
    process = await children.start(tag, "cli.main", "up", "--home", str(path))
    pubkey = home.open_keyring(path).node.pubkey
    return Responder(relay, name, url, str(pubkey), process, carrier, path, relay_home)


async def _round(responder: Responder, customers: int, jobs: int) -> None:
    before = responder.process.cpu_s()
    async with asyncio.timeout(ROUND_LIMIT_S):
        load = await measure(responder.url, responder.pubkey, customers, jobs)
    responder.process.check()
    responder.relay_process.check()
    responder.asked += jobs + customers
    responder.loads.setdefault(customers, []).append(load)
    spent = responder.process.cpu_s() - before
    responder.cpu_s[customers] = responder.cpu_s.get(customers, 0.0) + spent * jobs / (jobs + customers)
    responder.rss_mb[customers] = max(responder.rss_mb.get(customers, 0.0), responder.process.rss_mb())


async def _measure_all(responders: list[Responder], rounds: int, say: Any) -> None:
    begun = time.monotonic()
    for one in responders:
        await measure(one.url, one.pubkey, 1, 10)  # imports, first statements, first connection: not what is measured
        one.asked += 11
    for number in range(rounds):
        if number and time.monotonic() - begun + (time.monotonic() - begun) / number > LIMIT_S:
            say(f"stopped after {number} rounds: another one would not fit into {LIMIT_S:.0f} s")
            break
        for customers, jobs in JOBS.items():
            for relay in RELAYS:
                turn = [one for one in responders if one.relay == relay]
                shift = number % len(turn)
                for one in turn[shift:] + turn[:shift]:
                    say(f"round {number + 1}/{rounds}: {customers} customers, {relay} relay, {one.name}")
                    await _round(one, customers, jobs)


def _row(one: Responder, customers: int) -> dict[str, Any]:
    loads = one.loads[customers]

    def middle(name: str) -> float:
        values: list[float] = [getattr(load, name) for load in loads]
        return round(statistics.median(values), 3)

    jobs = sum(load.done for load in loads)
    return {
        "relay": one.relay, "responder": one.name, "customers": customers, "rounds": len(loads),
        "jobs": loads[0].jobs, "lost": sum(load.lost for load in loads), "wrong": sum(load.wrong for load in loads),
        **{name: middle(name) for name in ("jobs_per_s", "p50_ms", "p99_ms", "max_ms", "first_p50_ms")},
        "jobs_per_s_rounds": [load.jobs_per_s for load in loads], "p50_ms_rounds": [load.p50_ms for load in loads],
        "cpu_ms_per_job": round(one.cpu_s[customers] * 1e3 / max(1, jobs), 3),
        "rss_mb": round(one.rss_mb[customers], 1),
    }  # fmt: skip


def _ratio(rows: list[dict[str, Any]], relay: str, customers: int) -> dict[str, Any] | None:
    by = {row["responder"]: row for row in rows if row["relay"] == relay and row["customers"] == customers}
    if not {FLOOR, BEST, NODE} <= by.keys():
        return None
    node = by[NODE]

    def over(name: str, other: str) -> float:
        return round(node[name] / by[other][name], 3) if by[other][name] else 0.0

    ratio: dict[str, Any] = {
        "relay": relay, "customers": customers, "throughput": over("jobs_per_s", FLOOR), "p50": over("p50_ms", FLOOR),
        "p99": over("p99_ms", FLOOR), "best_throughput": over("jobs_per_s", BEST), "best_p50": over("p50_ms", BEST),
    }  # fmt: skip
    good = ratio["throughput"] >= MIN_THROUGHPUT
    ratio["targets"] = [{"name": "throughput", "bound": f"≥ {MIN_THROUGHPUT}", "pass": good}] if customers > 1 else []
    if customers == 1:
        ratio["targets"].append({"name": "p50", "bound": f"≤ {MAX_P50:g}×", "pass": ratio["p50"] <= MAX_P50})
    return ratio


async def _kept(responders: list[Responder], folder: Path) -> dict[str, Any]:
    files = []
    for one in responders:
        if one.home is not None:
            tables = ("sale", "effect", "entry", "outbox")
            facts = durability.database(f"vendo on the {one.relay} relay", one.home / "node.db", one.asked, tables)
            token = home.read_token(one.home)
            files.append(facts | {"stats": await durability.stats(str(one.process.said["control"]), token)})
        if one.relay_home is not None:
            path = next(path for path in sorted(one.relay_home.glob("*.db")))
            files.append(durability.database(f"embedded relay, with {one.name}", path, one.asked, ("event",)))
    p50, p99 = durability.probe(folder)
    kind = durability.filesystem(folder)
    return {
        "promise": durability.PROMISE, "files": files, "filesystem": kind, "fsync_p50_ms": p50, "fsync_p99_ms": p99,
    }  # fmt: skip


async def _report(responders: list[Responder], folder: Path, seconds: float) -> dict[str, Any]:
    rows = [_row(one, customers) for relay in RELAYS for customers in JOBS for one in responders if one.relay == relay]
    ratios = [found for relay in RELAYS for customers in JOBS if (found := _ratio(rows, relay, customers))]
    faults = [
        f"{one.name} on the {one.relay} relay, {customers} customers: {count} × {fault}"
        for one in responders
        for customers, loads in one.loads.items()
        for load in loads
        for fault, count in load.faults.items()
    ]
    return {
        "raw": rows, "ratios": ratios, "targets": [one for ratio in ratios for one in ratio["targets"]],
        "jobs": sum(row["jobs"] * row["rounds"] for row in rows), "lost": sum(row["lost"] for row in rows),
        "wrong": sum(row["wrong"] for row in rows), "faults": faults, "seconds": round(seconds, 1),
        "durability": await _kept(responders, folder),
    }  # fmt: skip


async def run(names: list[str], rounds: int, folder: Path, say: Any) -> dict[str, Any]:
    """The whole bench.

    Raises:
        ChildFailed: a process did not start, or ended.
    """
    begun, busy = time.monotonic(), os.getloadavg()[0]
    async with Children(folder) as children:
        responders = []
        for relay in RELAYS:
            for name in names:
                say(f"starting {name} on the {relay} relay")
                responders.append(await _start(children, folder, relay, name))
        await _measure_all(responders, rounds, say)
        report = await _report(responders, folder, time.monotonic() - begun)
        return report | {"load_before": round(busy, 2), "cpus": os.cpu_count()}


def section(report: dict[str, Any]) -> Section:
    """The promises alone, for the sum at the end; `table` prints the numbers."""
    found = Section("market")
    for one in report["ratios"]:
        if one["customers"] > 1:
            name = f"jobs answered / the floor's ({one['relay']} relay, {one['customers']} customers)"
            found.targets.append(Target(name, MIN_THROUGHPUT, one["throughput"]))
        else:
            found.targets.append(
                Target(f"p50 / the floor's ({one['relay']} relay)", MAX_P50, one["p50"], at_least=False)
            )
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="bench.market", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--strict", action="store_true", help="exit 2 if a target is missed")
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--only", choices=["floors", "node"], help="measure only one side; no ratios then")
    parser.add_argument("--dir", type=Path, help="where homes and databases go for the time of the run")
    asked = parser.parse_args()
    names = {"floors": [FLOOR, BEST], "node": [NODE]}.get(asked.only or "", [FLOOR, BEST, NODE])
    folder = Path(tempfile.mkdtemp(prefix="vendo-bench-", dir=asked.dir))
    try:
        report = asyncio.run(run(names, asked.rounds, folder, lambda text: print(text, file=sys.stderr, flush=True)))
    except ChildFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        print(json.dumps(report))
    else:
        table.show(report)
    if report["lost"] or report["wrong"]:
        return 1
    return 2 if asked.strict and not all(one["pass"] for one in report["targets"]) else 0


if __name__ == "__main__":
    sys.exit(main())
