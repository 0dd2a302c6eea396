"""Writes the reference pages that are made from the code: settings, errors, paths, state machines.

With `--check` it only compares.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.error import VendoError
from dvm import buyer, custody, deposit, seller
from dvm.job import State
from fs.namespace import Namespace
from fs.tree import File, Folder
from node.config import TEMPLATE, Config
from node.http.openapi.document import as_bytes, document
from node.http.openapi.place import root_of
from node.mount import Parts, agent_namespace, operator_namespace
from node.share import tenure
from wallet import lightning, payment

FOLDERS = ("core", "relays", "wallet", "dvm", "fs", "node", "cli")
PAGES = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by scripts/reference.py from the code. `make reference` makes it anew. -->\n\n"


class _Anything:
    """Stands for parts that a tree is built over but that nobody asks here."""

    def __getattr__(self, name: str) -> "_Anything":
        return _Anything()

    def __call__(self, *args: object, **more: object) -> "_Anything":
        return _Anything()


def _load() -> None:
    for folder in FOLDERS:
        package = importlib.import_module(folder)
        for module in pkgutil.walk_packages(package.__path__, folder + "."):
            if "migrations.versions" not in module.name and not module.name.endswith(("__main__", "migrations.env")):
                importlib.import_module(module.name)


def error_classes() -> list[type[VendoError]]:
    """Every error with a code, sorted by code."""
    _load()
    found: list[type[VendoError]] = []
    stack: list[type[VendoError]] = [VendoError]
    while stack:
        one = stack.pop()
        stack += one.__subclasses__()
        if one.__module__.split(".")[0] in FOLDERS:
            found.append(one)
    return sorted(set(found), key=lambda one: (one.code, one.__name__))


def errors() -> str:
    """The page of error codes."""
    lines = [
        "# Errors\n",
        "HTTP answers are problem JSON (RFC 9457) with `code`, `detail`, `unchanged` and `remedy`; the command prints one",
        "line, or with `--json` one object. Codes are stable: a code that was published is never used for something else.\n",
        "| code | status | what happened | what to do |",
        "|---|---|---|---|",
    ]
    for one in error_classes():
        text = " ".join((one.__doc__ or "").split("\n\n")[0].split())
        lines.append(f"| `{one.code}` | {one.status} | {text} | {one.remedy.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def _comments() -> dict[str, str]:
    """`section.setting` → the words beside it in the file that `vendo init` writes."""
    found: dict[str, str] = {}
    section = ""
    for line in TEMPLATE.splitlines():
        line = line.removeprefix("# ") if re.match(r"# (\[\[|\w+ = )", line) else line
        if head := re.match(r"\[\[?(\w+)\]\]?", line):
            section = head[1]
        elif setting := re.match(r"(\w+) = [^#]*(?:#\s*(.*))?$", line):
            found[f"{section}.{setting[1]}"] = setting[2] or ""
    return found


def settings() -> str:
    """The page of settings."""
    words = _comments()
    lines = [
        "# Settings\n",
        "`config.toml` in the home directory, checked whole at start. `vendo init` writes it with these comments.\n",
    ]
    for name, field in Config.model_fields.items():
        model: Any = field.annotation
        while not hasattr(model, "model_fields"):
            model = model.__args__[0]
        lines += [
            f"## [{name}]\n",
            f"{(model.__doc__ or '').strip()}\n",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for setting, about in model.model_fields.items():
            value = about.get_default(call_default_factory=True)
            default = "required" if about.is_required() else f"`{value!r}`"
            meaning = (
                words.get(f"{name}.{setting}", "").replace("{{", "{").replace("}}", "}")
            )  # a template's own braces
            lines.append(f"| `{setting}` | {default} | {meaning} |")
        lines.append("")
    return MADE + "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _walk(path: str, node: File | Folder) -> Iterator[str]:
    if isinstance(node, Folder):
        can: dict[str, object] = {
            "read": node.read,
            "call": node.call,
            "remove": node.remove,
            "mkdir": node.make,
            "rename": node.rename,
        }
        verbs = ["list", *(verb for verb, may in can.items() if may)]
        yield f"| `{path}/` | {', '.join(verbs)} | {_cell(node.about)} |"
        for name, one in node.files.items():
            yield from _walk(f"{path}/{name}", one)
        if node.sample is not None:
            yield from _walk(f"{path}/{node.pattern.rstrip('/')}", node.sample())
        elif node.pattern:
            yield f"| `{path}/{node.pattern}` | | {node.pattern_about} |"
        return
    can = {
        "read": node.read or node.pieces,
        "write": node.write or node.store,
        "call": node.call,
        "watch": node.watch,
        "remove": node.remove,
    }
    verbs = [verb for verb, may in can.items() if may]
    yield f"| `{path}` | {', '.join(verbs)} | {_cell(node.about)} |"


def namespaces() -> dict[str, Namespace]:
    """The operator's files, and an agent's, over nothing."""
    parts = Parts(**{field.name: _Anything() for field in fields(Parts)})  # names are enough here
    nobody: Any = _Anything()
    return {"node": operator_namespace(parts, nobody, nobody), "agent": agent_namespace(parts, "agent", nobody)}


def described() -> str:
    """`/openapi.json` as a node of this version serves it."""
    return as_bytes(document(namespaces(), version("vendo"))).decode()


def paths() -> str:
    """The page of files that agents and the operator can reach."""
    trees = namespaces()
    tables = {
        "The operator's tree, `/agents/node/…`": trees["node"],
        "An agent's tree, `/agents/<name>/…`": trees["agent"],
    }
    lines = [
        "# Paths\n",
        "Over HTTP: `GET` reads or lists, `HEAD` tells what a file is, `PUT` writes (replaces), `POST` calls, `DELETE` removes,",
        "`MOVE` renames, `MKCOL` makes a directory; `?watch=1` streams server-sent events with ids, as a plain `GET` of a stream file",
        "does, and `?watch=0` reads what is there. Besides files there are `/healthz`, `/readyz`, `/metrics`, `/agents` and `/openapi.json`,",
        "which says all of this to programs ([as it is served](openapi.json)). Every call with an effect",
        "takes an `Idempotency-Key`. Every directory has a `README`.\n",
    ]
    for title, namespace in tables.items():
        lines += [f"## {title}\n", "| path | can | what |", "|---|---|---|"]
        for mount in sorted(namespace.mounts, key=lambda mount: mount.path):
            lines.append(f"| **{mount.path}** | *{mount.access.value}* | {mount.about} |")
            lines += _walk(mount.path, root_of(mount))
        lines.append("")
    return MADE + "\n".join(lines)


def _edges(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    lines = [f"## {title}\n", "```mermaid", "stateDiagram-v2"]
    return [*lines, *dict.fromkeys(f"    {start} --> {end}: {word}" for start, word, end in rows), "```\n"]


def _rules(table: Any) -> list[tuple[str, str, str]]:
    return [(place.value, event.__name__, rule.to.value) for (place, event), rules in table.items() for rule in rules]


def machines() -> str:
    """The page of state machines, drawn from their tables."""
    job, funds = [], []
    for (place, event), rules in buyer.TRANSITIONS.items():
        rows = [(place.value, event.__name__, rule.to.value) for rule in rules]
        (job if isinstance(place, State) else funds).extend(rows)
    sale = [
        (place.value, event.__name__, rule.to.value)
        for (place, event), rules in seller.TRANSITIONS.items()
        for rule in rules
    ]
    saga = [
        (place.value, row.event.__name__, row.to.value)
        for row in payment.TRANSITIONS
        for place in sorted(row.states, key=lambda one: one.value)
    ]
    rail = [
        (place.value, row.event.__name__, row.to.value)
        for row in lightning.TRANSITIONS
        for place in sorted(row.stages, key=lambda one: one.value)
    ]
    places = [
        *((state.value, "Granted as steward" if steward else "Granted", rule.to.value)
          for (state, steward), rule in tenure.GRANTS.items()),
        *((state.value, "Looked, too late", rule.to.value) for state, rule in tenure.LATE.items()),
        *((state.value, "PutOut", rule.to.value) for state, rule in tenure.PUT_OUT.items()),
        *((state.value, "Left", rule.to.value) for state, rule in tenure.LEFT.items()),
    ]  # fmt: skip
    lines = [
        "# State machines\n",
        "Each diagram is drawn from the table that the code runs. An event that has no arrow changes nothing.\n",
        *_edges("A job that we buy", job),
        *_edges("The money of that job", funds),
        *_edges("A job that we sell", sale),
        *_edges("A deposit of ours", _rules(deposit.TRANSITIONS)),
        *_edges("A deposit of a customer", _rules(custody.TRANSITIONS)),
        *_edges("A wallet operation", saga),
        *_edges("A Lightning payment or invoice", rail),
        *_edges("A process among others on one database", places),
    ]
    return MADE + "\n".join(lines)


def pages() -> dict[str, str]:
    """File name → what it should hold."""
    made = {"errors.md": MADE + errors(), "settings.md": settings(), "paths.md": paths(), "machines.md": machines()}
    return {**made, "openapi.json": described()}


def main() -> int:
    """0 if all pages are as they should be, or were written."""
    stale = [
        name for name, text in pages().items() if not (PAGES / name).exists() or (PAGES / name).read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        print("stale: " + ", ".join(stale) if stale else "the reference is up to date")
        return 1 if stale else 0
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
