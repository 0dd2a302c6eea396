"""What the bench prints: ratios first, the raw numbers beside them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Report = Mapping[str, Any]


def show(report: Report) -> None:
    """The tables, to standard output."""
    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)
    console.print(_raw(report["raw"]))
    console.print(_ratios(report["ratios"]))
    for line in _durability(report["durability"]):
        console.print(line)
    if report["load_before"] > report["cpus"] / 2:
        busy = f"load {report['load_before']:g} on {report['cpus']} processors"
        console.print(f"[yellow]The machine was busy before this began ({busy}): an idle one gives other ratios.[/]")
    for fault in report["faults"]:
        console.print(f"[bold red]✗[/] {fault}")
    kept = sum(one["pass"] for one in report["targets"])
    console.print(
        f"{report['jobs']} jobs in {report['seconds']:.0f} s: {report['lost']} lost, {report['wrong']} wrong. "
        f"Targets kept: {kept} of {len(report['targets'])}."
    )


def _raw(rows: Sequence[Report]) -> Table:
    table = Table(title="Free echo jobs (kind 5050), medians of the rounds", box=box.SIMPLE_HEAVY)
    for name in ("Relay", "Responder"):
        table.add_column(name)
    for name in ("Customers", "Jobs", "Jobs/s", "p50 ms", "p99 ms", "First 7000 ms", "CPU ms/job", "MiB"):
        table.add_column(name, justify="right")
    last = ""
    for row in rows:
        if last and row["relay"] + str(row["customers"]) != last:
            table.add_section()
        last = row["relay"] + str(row["customers"])
        table.add_row(
            row["relay"], row["responder"], str(row["customers"]), f"{row['rounds']}×{row['jobs']}",
            f"{row['jobs_per_s']:.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['first_p50_ms']:.2f}",
            f"{row['cpu_ms_per_job']:.2f}", f"{row['rss_mb']:.0f}",
        )  # fmt: skip
    return table


def _ratios(rows: Sequence[Report]) -> Table:
    table = Table(title="The node as a ratio to the floor in the same run", box=box.SIMPLE_HEAVY)
    table.add_column("Relay")
    for name in ("Customers", "Throughput", "p50", "p99"):
        table.add_column(name, justify="right")
    table.add_column("Targets")
    for name in ("Best floor: throughput", "p50"):
        table.add_column(name, justify="right", style="dim")
    for row in rows:
        marks = "  ".join(
            f"{'[green]✓' if one['pass'] else '[bold red]✗'}[/] {one['name']} {one['bound']}" for one in row["targets"]
        )
        table.add_row(
            row["relay"], str(row["customers"]), f"{row['throughput']:.2f}", f"{row['p50']:.2f}×", f"{row['p99']:.2f}×",
            marks, f"{row['best_throughput']:.2f}", f"{row['best_p50']:.2f}×",
        )  # fmt: skip
    return table


def _durability(facts: Report) -> list[str]:
    lines = [f"Durability: {facts['promise']}"]
    lines += [
        f"  {one['what']}: journal {one['journal']}; on disk after {one['jobs']} jobs: "
        + ", ".join(f"{count} in {table}" for table, count in one["rows"].items())
        + "".join(f"; {count} {name}" for name, count in one.get("stats", {}).items())
        for one in facts["files"]
    ]
    p50, p99 = facts["fsync_p50_ms"], facts["fsync_p99_ms"]
    lines.append(f"  one fsync here ({facts['filesystem']}): p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return lines
