"""`vendo ledger verify`: walk the signed record of every effect. Needs no running node."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output
from core.error import NotFound

if TYPE_CHECKING:
    from node.gate.verify import Report

app = typer.Typer(no_args_is_help=True, help="The signed record of every effect.")


@app.callback()
def _group() -> None:
    """Keeps `verify` a command of its own while it is the only one."""


@app.command()
def verify(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Check each entry's signature and place, and that each effect begins and ends once; 65 if one does not."""
    from node.config import load
    from node.gate.verify import verify_rows
    from node.home import database_of, open_keyring
    from node.storage.archive import read_entries

    out = Output(json_mode=json_mode)
    keyring = open_keyring(home)
    database = database_of(home, load(home).storage)
    if isinstance(database, Path) and not database.exists():
        raise NotFound(f"There is no ledger in {home} yet.", remedy=f"It begins with: vendo up --home {home}")
    with out.waiting("Walking the ledger…"):
        report = verify_rows(read_entries(database), keyring.node.pubkey)
    out.answer({"ok": report.ok} | asdict(report), _text(report))
    return ExitCode.OK if report.ok else ExitCode.DATA


def _text(report: "Report") -> str:
    counted = f"{report.entries} entries, {report.effects} effects, {len(report.open)} open"
    if report.unknown:
        counted += f" ({len(report.unknown)} of them unknown: their outcome is still being looked up)"
    problem = report.problem
    if problem is None:
        return f"The ledger is whole: {counted}."
    where = f"run {problem.run}, entry {problem.seq} ({problem.id})"
    return f"The ledger is broken at {where}: {problem.reason}\nBefore it: {counted}."
