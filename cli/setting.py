"""Where each setting of a node comes from, what is wrong with `config.toml` and in which line, and what may be shown.

`tomllib` says nothing of lines, so the text is looked through once more for where its tables and keys begin.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from node.config import Config
from node.storage.address import shown

DEFAULT = "default"
HIDDEN = "…"

Place = tuple[str | int, ...]

_PARTS = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|\n|[\[\]{}]|[^"\'#\n\[\]{}]+|.',
    re.S,
)
_PART = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_LINE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")
_HIDDEN_WORD = r"(?:key|token|secret|password|passwd|passphrase|credential|credentials|auth|sig|signature)"
_SECRET_NAME = re.compile(rf"(?:^|[-_.]){_HIDDEN_WORD}$", re.I)
_SECRETS = (
    (re.compile(r"(://[^/\s:@]*):[^/\s]*@"), rf"\1:{HIDDEN}@"),
    (re.compile(rf"([?&;](?:[\w.-]*[-_.])?{_HIDDEN_WORD}=)[^&#\s]*", re.I), rf"\1{HIDDEN}"),
    (re.compile(rf"^(--?(?:[\w.-]*[-_.])?{_HIDDEN_WORD}=).*", re.I | re.S), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:nsec1|ncryptsec1|cashu[AB])[A-Za-z0-9_=-]+"), HIDDEN),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name (`section.key`), its value as it may be shown, and where that comes from."""

    name: str
    value: Any
    origin: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: the line of config.toml (None: no one line), the setting, the problem in words."""

    line: int | None
    setting: str
    problem: str

    def __str__(self) -> str:
        where = "config.toml" if self.line is None else f"config.toml line {self.line}"
        return f"{where}: {self.setting + ': ' if self.setting else ''}{self.problem}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


# -- lines


def places(text: str) -> dict[Place, int]:
    """Where each table and key of a TOML text begins: its path → line, from 1."""
    found: dict[Place, int] = {}
    arrays: dict[Place, int] = {}
    table: Place = ()
    for line, statement in _statements(text):
        if statement.startswith("["):
            names = _names(statement)
            if not names:
                continue
            table = (*_resolved(names[:-1], arrays), names[-1])
            if statement.startswith("[["):
                arrays[table] = arrays.get(table, 0) + 1
            table = _resolved(names, arrays)
            found.setdefault(table, line)
        elif (key := _KEY.match(statement)) is not None:
            path = table
            for name in _names(f"{key[1]} = 0"):
                path = (*path, name)
                found.setdefault(path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header or assignment, with the line in which it begins; without comments."""
    line, depth, start, said = 1, 0, 0, ""
    for part in _PARTS.findall(text.replace("\r\n", "\n")):
        if part == "\n" and not depth:
            if said.strip():
                yield start, said.strip()
            said = ""
        elif not part.startswith("#"):
            if not said.strip() and part.strip():
                start, said = line, ""
            depth = max(0, depth + (part in "[{") - (part in "]}"))
            said += part
        line += part.count("\n")
    if said.strip():
        yield start, said.strip()


def _names(statement: str) -> tuple[str, ...]:
    """The names that a header or a key is made of; none if it is not TOML."""
    try:
        value: Any = tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return ()
    names: list[str] = []
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        names.append(name)
        value = value[0] if isinstance(value, list) and value else value
    return tuple(names)


def _resolved(names: tuple[str, ...], arrays: Mapping[Place, int]) -> Place:
    """The path of a table below the last tables of arrays (`[[agent]]`)."""
    path: Place = ()
    for name in names:
        path = (*path, name)
        if path in arrays:
            path = (*path, arrays[path] - 1)
    return path


def line_of(path: Place, found: Mapping[Place, int]) -> int | None:
    """The line of a setting, or of the nearest thing around it that has one."""
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return None


# -- what is wrong


def faults(text: str) -> list[Fault]:
    """All that is wrong with the text of a configuration, by line; empty if nothing is."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = _LINE.search(str(error))
        line = int(where[1]) if where is not None and where[1] else text.count("\n") + 1
        return [Fault(line, "", f"this is not TOML: {_LINE.sub('', str(error))}")]
    try:
        Config.model_validate(value)
    except ValidationError as error:
        lines = places(text)
        found = [_fault(one["loc"], one["type"], one["msg"], lines) for one in error.errors(include_url=False)]
        return sorted(found, key=lambda one: (one.line is None, one.line or 0))
    return []


def _fault(path: Place, kind: str, message: str, lines: Mapping[Place, int]) -> Fault:
    name = ".".join(map(str, path))
    if kind == "extra_forbidden":
        message = "there is no such setting" + _suggestion(path)
    elif kind == "missing":
        message = "it is missing"
    return Fault(line_of(path, lines), name, str(safe(message.removeprefix("Value error, "))))


def _suggestion(path: Place) -> str:
    model: Any = Config
    for name in path[:-1]:
        if isinstance(name, str):
            model = _section(model, name)
    known = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(str(path[-1]), known, 1)
    return f"; is {near[0]} meant?" if near else ""


def _section(model: Any, name: str) -> Any:
    """The model of a table, also of one of an array."""
    field = getattr(model, "model_fields", {}).get(name)
    kind: Any = field.annotation if field is not None else None
    while kind is not None and not hasattr(kind, "model_fields"):
        kind = next(iter(getattr(kind, "__args__", ())), None)
    return kind


# -- what holds


def settings(config: Config, text: str) -> Iterator[Setting]:
    """Every setting of a configuration, in the order of its models, with where it stands.

    Args:
        config: the configuration.
        text: what it was read from.
    """
    lines = places(text)
    for name in type(config).model_fields:
        yield from _of(getattr(config, name), (name,), lines)


def _of(value: Any, path: Place, lines: Mapping[Place, int]) -> Iterator[Setting]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _of(getattr(value, name), (*path, name), lines)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for number, one in enumerate(value):
            yield from _of(one, (*path, number), lines)
    else:
        line = lines.get(path)
        origin = DEFAULT if line is None else f"config.toml line {line}"
        yield Setting(".".join(map(str, path)), _told(str(path[-1]), path, value), origin, line)


def _told(name: str, path: Place, value: Any) -> Any:
    if name.endswith("_usd") and name != "btc_usd" and isinstance(value, int):
        whole, part = divmod(value, 1_000_000)  # µUSD, as config.toml writes dollars
        return f"{whole}.{part:06d}"
    return shown(value) if path == ("storage", "url") and "://" in value else safe(value)


def safe(value: Any) -> Any:
    """A value without what nobody is to see: passwords in addresses, tokens, seeds, and what is called a secret."""
    if isinstance(value, str):
        for pattern, instead in _SECRETS:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, Mapping):
        return {name: HIDDEN if _SECRET_NAME.search(str(name)) and part else safe(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        before = ["", *value]
        return [
            HIDDEN if isinstance(last, str) and _SECRET_NAME.search(last) and last.startswith("-") else safe(one)
            for last, one in zip(before, value, strict=False)
        ]
    return value
