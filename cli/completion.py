"""What a shell is told when somebody presses Tab: typer's own machinery, and names that the running node knows.

Nothing of it may hold a shell up or write on its terminal: a node that does not answer at once has no names.
"""

import contextlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
import typer
from typer.completion import get_completion_inspect_parameters, shell_complete

from cli.client import Client
from core.error import VendoError

PROGRAM = "vendo"
VARIABLE = "_VENDO_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_WAIT_S = 0.5
_MOST = 200
# what every shell takes as it is: a name with anything else in it is typed by hand
_SAFE = re.compile(r"[A-Za-z0-9._@/+-]+")


def script(command: Any, shell: str) -> str:
    """The lines that a shell is to run once, so that it completes words of `vendo`.

    Args:
        command: the root command, as typer made it.
        shell: one of `SHELLS`.
    """
    get_completion_inspect_parameters()  # tells typer's machinery which shells there are
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        shell_complete(command, {}, PROGRAM, VARIABLE, f"source_{shell}")
    return said.getvalue()


def asked() -> bool:
    """Whether a shell asks for words in place of a command."""
    return bool(os.environ.get(VARIABLE))


def answer(command: Any) -> int:
    """Tell the shell the words that fit; whatever is wrong, nothing is said. The exit code."""
    get_completion_inspect_parameters()
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return shell_complete(command, {}, PROGRAM, VARIABLE, os.environ[VARIABLE])
        except (VendoError, typer.TyperException, typer.Exit, typer.Abort, OSError, LookupError, ValueError):
            return 1


def agent_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Agents of the running node."""
    return _found(ctx, lambda client: _names(client.objects("/agents"), incomplete))


def tree_owners(ctx: typer.Context, incomplete: str) -> list[str]:
    """Whose trees there are: the operator's and the agents'."""
    return [name for name in ("node",) if name.startswith(incomplete)] + agent_names(ctx, incomplete)


def tree_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Paths of a tree, one directory at a time."""
    folder, slash, _ = incomplete.rpartition("/")
    agent = ctx.params.get("agent") or "node"
    if not isinstance(agent, str) or "/" in agent:
        return []

    def look(client: Client) -> Iterator[str]:
        for row in client.entries(f"/agents/{agent}/{folder.strip('/')}"):
            yield f"{folder}{slash}{row['name']}" + ("/" if row.get("is_dir") else "")

    return _found(ctx, look, incomplete)


def _names(rows: Iterator[dict[str, Any]], incomplete: str) -> Iterator[str]:
    return (str(row["name"]) for row in rows if str(row.get("name", "")).startswith(incomplete))


def _found(ctx: typer.Context, look: Callable[[Client], Iterator[str]], incomplete: str = "") -> list[str]:
    """What the running node answers within a moment, or nothing."""
    until, found = time.monotonic() + _WAIT_S, list[str]()
    try:
        for name in look(Client.open(_home(ctx), _WAIT_S)):
            if name.startswith(incomplete) and _SAFE.fullmatch(name):
                found.append(name)
            if len(found) >= _MOST or time.monotonic() > until:
                break
    except (VendoError, OSError, LookupError, TypeError, ValueError):
        return []
    return found


def _home(ctx: typer.Context) -> Path:
    given = ctx.params.get("home") or os.environ.get("VENDO_HOME")
    return Path(given) if given else Path(platformdirs.user_data_dir("vendo"))
