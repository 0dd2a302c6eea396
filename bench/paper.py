"""How sections of the bench are printed: numbers as they were measured, then each promise with a tick or a cross."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.target import Section, Target

WIDTH = 132


def show(sections: Sequence[Section]) -> None:
    """To standard output."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for section in sections:
        _show(console, section)
    targets = [one for section in sections for one in section.targets]
    kept = sum(one.kept for one in targets)
    console.print(f"Targets kept: {kept} of {len(targets)}.")
    for one in targets:
        if not one.kept:
            console.print(f"  [bold red]✗[/] {_line(one)}")


def _show(console: Console, section: Section) -> None:
    if section.rows:
        table = Table(title=section.title, box=box.SIMPLE_HEAVY)
        for at, name in enumerate(section.rows[0]):
            table.add_column(name, justify="right" if at else "left")
        for row in section.rows:
            table.add_row(*map(_cell, row.values()))
        console.print(table)
    for note in section.notes:
        console.print(f"  {note}", style="dim")
    for one in section.targets:
        console.print(f"  {'[green]✓[/]' if one.kept else '[bold red]✗[/]'} {_line(one)}")
    console.print()


def _line(one: Target) -> str:
    sign = "≥" if one.at_least else "≤"
    measured = "not measured" if one.value is None else f"{one.value:g}{one.unit}"
    return f"{one.name}: {measured} ({sign} {one.bound:g}{one.unit})"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
