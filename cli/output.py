"""What a command says, where it says it, and with which exit code (docs/reference/contract.md).

Answers go to stdout; notes, progress and errors to stderr. With `--json` stdout holds JSON alone: one object, or one
line per record for what streams, and the error if there is one.
"""

import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, islice
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.error import VendoError
from core.money import MICRO, MSAT_PER_SAT

_PIPE_WIDTH = 240
_FIRST_ROWS = 200


class ExitCode(IntEnum):
    """Exit codes, as in sysexits.h."""

    OK = 0
    USAGE = 64
    DATA = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    TEMPORARY = 75
    REFUSED = 77
    CONFIG = 78
    INTERRUPTED = 130


# The longest prefix of an error's code decides; without one, its HTTP status.
_BY_CODE = {
    "agent.code_differs": ExitCode.REFUSED,
    "agent.mount_missing": ExitCode.UNAVAILABLE,
    "budget.": ExitCode.REFUSED,
    "cli.answer_lost": ExitCode.TEMPORARY,
    "cli.system": ExitCode.CONFIG,
    "compute.no_provider": ExitCode.UNAVAILABLE,
    "config.": ExitCode.CONFIG,
    "containers.no_provider": ExitCode.UNAVAILABLE,
    "dvm.job_failed": ExitCode.UNAVAILABLE,
    "fx.unpriced": ExitCode.UNAVAILABLE,
    "gate.": ExitCode.REFUSED,
    "gate.unpermitted": ExitCode.INTERNAL,
    "home.": ExitCode.CONFIG,
    "message.no_server": ExitCode.UNAVAILABLE,
    "node.paused": ExitCode.REFUSED,
    "node.running": ExitCode.TEMPORARY,
    "store.": ExitCode.TEMPORARY,
    "token.": ExitCode.DATA,
    "wallet.unknown": ExitCode.TEMPORARY,
}
_BY_STATUS = {
    400: ExitCode.USAGE,
    401: ExitCode.REFUSED,
    402: ExitCode.REFUSED,
    403: ExitCode.REFUSED,
    404: ExitCode.DATA,
    405: ExitCode.USAGE,
    408: ExitCode.TEMPORARY,
    409: ExitCode.TEMPORARY,
    410: ExitCode.DATA,
    411: ExitCode.USAGE,
    412: ExitCode.TEMPORARY,
    413: ExitCode.USAGE,
    414: ExitCode.USAGE,
    415: ExitCode.USAGE,
    421: ExitCode.UNAVAILABLE,
    422: ExitCode.DATA,
    423: ExitCode.TEMPORARY,
    429: ExitCode.TEMPORARY,
    431: ExitCode.USAGE,
    501: ExitCode.USAGE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.TEMPORARY,
    507: ExitCode.TEMPORARY,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is shown: what happened, what was left as it was, what to do."""

    code: str
    message: str
    unchanged: str = ""
    remedy: str = ""
    status: int = 500

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that belongs to it."""
        prefixes = [prefix for prefix in _BY_CODE if self.code.startswith(prefix)]
        if prefixes:
            return _BY_CODE[max(prefixes, key=len)]
        return _BY_STATUS.get(self.status, ExitCode.INTERNAL)

    def to_dict(self) -> dict[str, dict[str, str]]:
        """The error object of `--json`."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "unchanged": self.unchanged,
                "remedy": self.remedy,
            }
        }

    def line(self) -> str:
        """All of it on one line."""
        said = " ".join(part for part in (self.message, self.unchanged, self.remedy) if part)
        return " ".join(f"vendo: {said}".split()) + f" [{self.code}]"


class NodeRefusal(VendoError):
    """The running node answered with an error."""

    code = "cli.node_refusal"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def problem_of(error: VendoError) -> Problem:
    """What to show of an error, ours or the node's."""
    if isinstance(error, NodeRefusal):
        return error.problem
    return Problem(error.code, error.message, error.unchanged, error.advice, error.status)


def printable(text: str) -> str:
    """Foreign text for a terminal: it may not move the cursor or change colours."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else "\ufffd" for char in text)


def one_line(text: str) -> str:
    """Foreign text as one line for a terminal or a pipe."""
    return printable(text.replace("\r", "\\r").replace("\n", "\\n"))


def usd(micro: int) -> str:
    """µUSD as dollars."""
    sign = "-" if micro < 0 else ""
    whole, part = divmod(abs(micro), MICRO)
    return f"{sign}${whole}.{part:06d}"


def sat(msat: int) -> str:
    """An amount of msat in satoshi, with as many decimals as there are."""
    whole, part = divmod(abs(msat), MSAT_PER_SAT)
    return f"{'-' if msat < 0 else ''}{whole}" + (f".{part:03d}".rstrip("0") if part else "") + " sat"


class Output:
    """Where one command says things."""

    def __init__(self, *, json_mode: bool) -> None:
        self.json_mode = json_mode
        self._errors = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)

    def answer(self, value: Any, text: str | None = None) -> None:
        """The command's one answer: the object with `--json`, else the text (or `name: value` lines)."""
        if self.json_mode:
            self._write(json.dumps(value, ensure_ascii=False))
            return
        if text is None:
            text = "\n".join(f"{name}: {plain(part)}" for name, part in value.items())
        self._write(text)

    def record(self, value: Mapping[str, Any], text: str) -> None:
        """One of many: a line of JSON, or a line of text."""
        self._write(json.dumps(value, ensure_ascii=False) if self.json_mode else text)

    def rows(self, value: Any, names: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
        """An answer that is a list: the object with `--json`, else columns."""
        if self.json_mode:
            self._write(json.dumps(value, ensure_ascii=False))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(name, no_wrap=name != names[-1])
        for row in rows:
            table.add_row(*(Text(printable(plain(cell))) for cell in row))
        if not table.row_count:
            self.note(empty)
            return
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        console = Console(file=sys.stdout, highlight=False, markup=False, width=width)
        with console.capture() as shown:
            console.print(table)
        self._write("\n".join(line.rstrip() for line in shown.get().splitlines()), clean=True)

    def stream(self, names: Sequence[str], rows: Iterable[tuple[Mapping[str, Any], Sequence[Any]]], empty: str) -> None:
        """A list of any length, each row as it comes: one JSON list with `--json`, else columns.

        The first rows say how wide the columns are.
        """
        if self.json_mode:
            self._list(value for value, _ in rows)
            return
        lines = (tuple(one_line(plain(cell)) for cell in cells) for _, cells in rows)
        first = list(islice(lines, _FIRST_ROWS))
        if not first:
            self.note(empty)
            return
        head = [tuple(names), *first]
        widths = [max(cell_len(row[at]) for row in head) for at in range(len(names) - 1)]
        for row in chain(head, lines):
            cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
            sys.stdout.write("  ".join([*cells, row[-1]]).rstrip() + "\n")
        sys.stdout.flush()

    def _list(self, values: Iterator[Mapping[str, Any]]) -> None:
        mark = "["
        for value in values:
            sys.stdout.write(mark + json.dumps(value, ensure_ascii=False))
            mark = ",\n"
        sys.stdout.write("[]\n" if mark == "[" else "]\n")
        sys.stdout.flush()

    def key(self, given: str | None) -> str:
        """The key of what is asked next. One that nobody gave is told first: it is needed if the answer is lost."""
        if given is not None:
            return given
        fresh = uuid.uuid4().hex
        self.note(f"key: {fresh}")
        return fresh

    def note(self, text: str) -> None:
        """Something worth knowing that is not the answer."""
        self._errors.print(Text(printable(text)))

    def waiting(self, text: str) -> AbstractContextManager[Any]:
        """A sign of life while a block runs; nothing where stderr is no terminal."""
        if self.json_mode or not self._errors.is_terminal:
            return nullcontext()
        return self._errors.status(Text(printable(text)))

    def fail(self, problem: Problem) -> ExitCode:
        """Say what went wrong: one object on stdout with `--json`, else one line on stderr."""
        if self.json_mode:
            self._write(json.dumps(problem.to_dict(), ensure_ascii=False))
        else:
            self.note(problem.line())
        return problem.exit_code

    def _write(self, text: str, *, clean: bool = False) -> None:
        if not clean and not self.json_mode and sys.stdout.isatty():
            text = printable(text)
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()


def plain(value: Any) -> str:
    """A value for people: text as it is, nothing as a dash, everything else as JSON."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
