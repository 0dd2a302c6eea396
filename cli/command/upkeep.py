"""`vendo gc`: delete what is old now, instead of when the node does it by itself."""

from collections import Counter
from typing import Annotated

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import Output

_GC = "/agents/node/upkeep/gc"


def gc(
    home: HomeOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what is old; delete nothing.")] = False,
    json_mode: JsonOption = False,
) -> None:
    """Delete what is older than [retention] allows, in small steps, while the node works; never of open money."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    if dry_run:
        old = client.call(_GC, {"dry_run": True})["old"]
        out.rows({"old": old}, ("table", "old rows"), sorted(old.items()), "Nothing is old.")
        return
    removed: Counter[str] = Counter()
    with out.waiting("Deleting what is old…"):
        while True:
            answer = client.call(_GC, {"dry_run": False})
            removed.update(answer["removed"])
            if not answer["more"]:
                break
            if not json_mode:
                out.note(f"{removed.total()} rows so far")
    out.rows({"removed": dict(removed)}, ("table", "deleted rows"), sorted(removed.items()), "Nothing was old.")
