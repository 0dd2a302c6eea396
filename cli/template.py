"""What `vendo agent new` makes: a whole, tested agent of one's own. The texts are in `cli/sample/`."""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from core.error import Conflict, InvalidInput
from node.error import HomeMissing

AGENTS = "agents"  # as node.agent.load.loader names it, and a test holds them equal: importing it would cost a second
KINDS = ("python", "webhook", "command")
_SAMPLES = Path(__file__).with_name("sample")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_TAKEN = ("buyer", "webhook", "command", "node", "operator", "list", "new", "conftest")
_PORT = 8900


class FileThere(Conflict):
    """There is a file of this name already."""

    code = "cli.file_there"
    remedy = "Choose another name, or move the file away."


@dataclass(frozen=True, slots=True)
class Made:
    """What was made. `next` are the commands that follow."""

    files: tuple[Path, ...]
    next: tuple[str, ...]


def render(text: str, name: str) -> str:
    """A text of `cli/sample/` for an agent of this name."""
    kind = "".join(word.capitalize() for word in name.split("-"))
    return text.replace("@VARIABLE@", _variable(name)).replace("@name@", name).replace("@Class@", kind)


def _variable(name: str) -> str:
    """Where a receiver finds its secret."""
    return name.replace("-", "_").upper() + "_SECRET"


def make(home: Path, name: str, kind: str) -> Made:
    """Write an agent and its test into a home directory.

    Args:
        home: it has a folder for agents afterwards.
        name: of the agent.
        kind: python, webhook or command.

    Raises:
        InvalidInput: the name or the kind is none.
        HomeMissing: there is no such home.
        FileThere: one of the files is there already; nothing was written.
    """
    if _NAME.fullmatch(name) is None or name in _TAKEN:
        raise InvalidInput(f"{name!r} is no name for an agent: a-z, 0-9 and -, and none that the node uses itself.")
    if not home.is_dir():
        raise HomeMissing(f"There is no {home}.")
    if kind not in KINDS:
        raise InvalidInput(f"There are these kinds: {', '.join(KINDS)}.")
    folder = home / AGENTS
    place = folder if kind == "python" else folder / name
    files = {place / f"{name}.py": _text(kind, ""), place / f"test_{name}.py": _text(kind, "_test")}
    for path in files:
        if path.exists() or path.is_symlink():
            raise FileThere(f"{path} is there already.")
    for one in dict.fromkeys((folder, place)):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, text in files.items():
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)
            file.write(render(text, name))
    return Made(tuple(files), _next(kind, name, place))


def _text(kind: str, part: str) -> str:
    base = "program" if kind == "python" else kind
    return (_SAMPLES / f"{base}{part}.txt").read_text(encoding="utf-8")


def _next(kind: str, name: str, place: Path) -> tuple[str, ...]:
    python = shlex.quote(sys.executable)
    file = shlex.quote(str(place / f"{name}.py"))
    test = f"{python} -m pytest {shlex.quote(str(place / f'test_{name}.py'))}"
    match kind:
        case "webhook":
            config = json.dumps({"url": f"http://127.0.0.1:{_PORT}/", "internal": True})
            return (
                test,
                f"vendo agent add {name} --program webhook --config {shlex.quote(config)}",
                f"{_variable(name)}=$(vendo agent secret {name}) {python} {file} {_PORT}",
            )
        case "command":
            config = json.dumps({"argv": [sys.executable, str(place / f"{name}.py")]})
            return test, f"vendo agent add {name} --program command --config {shlex.quote(config)}"
        case _:
            return test, f"vendo agent add {name} --program {name}"
