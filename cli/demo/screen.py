"""What the terminal shows: each message as it crosses the relay, and the tables at the end."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from relays.event import Event
from relays.kind import DELETION, GIFT_WRAP, HANDLER, JOB_FEEDBACK, is_request, is_result

_JOB_FACT = re.compile(r"job_(\d+)_(.*)")
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue")


class Screen:
    """A line per event, a spinner for what is awaited. Silent when a program reads the output."""

    def __init__(self, *, quiet: bool, record: bool = False) -> None:
        width = None if sys.stderr.isatty() and not record else 110
        self.console = Console(stderr=True, quiet=quiet, highlight=False, width=width, record=record)
        self._begun = time.monotonic()
        self._names: dict[str, str] = {}

    def name(self, pubkey: str, name: str) -> None:
        """From now on this key is shown by name."""
        self._names[pubkey] = name

    def _who(self, pubkey: str | None) -> str:
        name = self._names.get(pubkey or "")
        if name is None:
            return "someone"
        return f"[{_COLOURS[list(self._names).index(pubkey or '') % len(_COLOURS)]}]{name}[/]"

    def say(self, text: str) -> None:
        """One line with the time since the start."""
        self.console.print(f"[dim]{time.monotonic() - self._begun:6.2f}s[/]  {text}")

    def quote(self, who: str, text: str, most: int = 300) -> None:
        """What a person or an agent says, shortened."""
        short = " ".join(text.split())
        self.say(f"[bold]{who}:[/] {escape(short if len(short) <= most else short[:most] + '…')}")

    def waiting(self, text: str) -> AbstractContextManager[Status]:
        """A spinner until the block ends."""
        return self.console.status(text, spinner="dots")

    def event(self, event: Event) -> None:
        """Say in words what has just been stored by the relay."""
        who, to = self._who(event.pubkey), self._who(event.value("p"))
        if is_request(event.kind):
            bid = int(event.value("bid") or 0) / 1000
            self.say(f"{who} asks for a job of kind {event.kind}, at most {bid:g} sat")
        elif event.kind == JOB_FEEDBACK:
            self._feedback(event, who, to)
        elif is_result(event.kind):
            self.say(f"{who} delivers {len(event.content)} characters to {to}")
        elif event.kind == GIFT_WRAP:
            self.say(f"[dim]a sealed message for[/] {to}")
        elif event.kind == HANDLER:
            self.say(f"{who} announces what it sells (NIP-89)")
        elif event.kind == DELETION:
            self.say(f"{who} withdraws an event")

    def _feedback(self, event: Event, who: str, to: str) -> None:
        status = event.value("status")
        amount = int(event.value("amount") or 0) / 1000
        if status == "payment-required":
            self.say(f"{who} quotes [bold]{amount:g} sat[/] to {to}")
        elif status == "success" and event.all("receipt"):
            self.say(f"{who} has claimed the ecash and gives a receipt")
        elif status == "error":
            self.say(f"{who} declines: {escape(' '.join(event.all('status')[0][2:]))}")
        else:
            self.say(f"{who} is {status}")

    def report(self, report: Mapping[str, Any]) -> None:
        """The tables at the end, and each fact that was checked."""
        self.console.print()
        self.console.print(_jobs(report["jobs"]))
        self.console.print(_wallets(report["wallets"]))
        self.console.print(_facts(report["facts"]))
        self.console.print(
            f"\nDone in {report['seconds']:.1f} s: " + ("all true." if report["ok"] else "[bold red]NOT all true.")
        )


def _money(msat: int, uusd: int) -> str:
    return f"{msat:,} msat\n{uusd:,} µUSD"


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Jobs", box=box.SIMPLE_HEAVY, show_lines=True)
    for column in ("Job", "Quotes", "Chosen, and why"):
        table.add_column(column)
    for column in ("Reserved", "Paid", "Fees", "Released"):
        table.add_column(column, justify="right", no_wrap=True)
    for job in jobs:
        quotes = "\n".join(f"{one['seller']}: {one['amount_msat'] // 1000} sat" for one in job["quotes"]) or "none"
        cells = [_money(job[name + "_msat"], job[name + "_uusd"]) for name in ("reserved", "paid", "fees", "released")]
        table.add_row(job["title"], quotes, f"[bold]{job['chosen']}[/]\n{job['why']}", *cells)
    return table


def _wallets(wallets: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Wallets, restored from their seed words at the mint", box=box.SIMPLE_HEAVY)
    table.add_column("Wallet")
    for column in ("Before (sat)", "After (sat)", "Change (sat)"):
        table.add_column(column, justify="right")
    for one in wallets:
        table.add_row(
            one["name"], str(one["before_sat"]), str(one["after_sat"]), f"{one['after_sat'] - one['before_sat']:+d}"
        )
    return table


def _facts(facts: Mapping[str, bool]) -> Table:
    """A row per promise, a column per job; what is true of the whole market stands below."""
    table = Table(title="Checked from the relay's events and the mint's answers alone", box=box.SIMPLE_HEAVY)
    table.add_column("Fact")
    rows: dict[str, dict[str, bool]] = {}
    for name, good in facts.items():
        part = _JOB_FACT.fullmatch(name)
        rows.setdefault(part[2] if part else name, {})[part[1] if part else "all"] = good
    columns = sorted({column for cells in rows.values() for column in cells})
    for column in columns:
        table.add_column("Market" if column == "all" else f"Job {column}", justify="center")
    for name, cells in rows.items():
        table.add_row(name.replace("_", " "), *(_tick(cells.get(column)) for column in columns))
    return table


def _tick(good: bool | None) -> Text:
    if good is None:
        return Text("")
    return Text("✓", style="green") if good else Text("✗ false", style="bold red")
