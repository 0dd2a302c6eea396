"""Where programs come from: built in, a Python entry point (group `vendo.agents`), or a file `HOME/agents/NAME.py`.

A program is loaded when the first agent needs it. One that cannot be loaded stops its own agents and nothing else. A
name that two sources claim is nobody's, but what is built in keeps its name.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from core.error import InvalidInput
from node.agent.error import NoProgram, ProgramTaken
from node.agent.load.source import check_file, load_entry, load_file, origin
from node.agent.program import AnyProgram

log = logging.getLogger(__name__)

GROUP = "vendo.agents"
FOLDER = "agents"
_BUILT_IN, _FILE = "built in", "file"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a program is. `kind` is `built in`, `entry point` or `file`; `where` says which, for people."""

    kind: str
    where: str
    load: Callable[[], AnyProgram]


class Loader(Mapping[str, AnyProgram]):
    """The programs of a node by name; one that is not loaded yet is loaded when it is asked for.

    Args:
        built_in: programs that are part of the node.
        folder: where files are, `HOME/agents`; it need not be there. None: there are none.
        entries: what is installed; looked at once.
    """

    def __init__(
        self,
        built_in: Iterable[AnyProgram] = (),
        folder: Path | None = None,
        entries: Callable[[], Iterable[EntryPoint]] = lambda: entry_points(group=GROUP),
    ) -> None:
        self._built_in = {program.name: program for program in built_in}
        self._folder, self._entries = folder, entries
        self._loaded: dict[str, AnyProgram] = dict(self._built_in)
        self._broken: dict[str, NoProgram] = {}

    # ---- as a mapping

    def __getitem__(self, name: str) -> AnyProgram:
        """A program.

        Raises:
            KeyError: there is none of this name.
            NoProgram: there is one, and it cannot be used: `ProgramTaken`, `ProgramUnsafe`, `ProgramBroken`.
        """
        program = self._loaded.get(name)
        if program is not None:
            return program
        if name in self._broken:
            raise self._broken[name].with_traceback(None)
        try:
            source = self._source(name)
            if source is None:
                raise KeyError(name)
            self._loaded[name] = program = source.load()
        except NoProgram as error:
            self._note(name, error)
            raise
        log.info("a program was loaded", extra={"action": "program_loaded", "program": name, "digest": program.digest})
        return program

    def get(self, name: str, default: Any = None) -> Any:
        """A program that can be used, or the default."""
        try:
            return self[name]
        except (KeyError, NoProgram):
            return default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._loaded or bool(self._found(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._built_in, *(entry.name for entry in self._installed), *self._files()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    # ---- sources

    @cached_property
    def _installed(self) -> tuple[EntryPoint, ...]:
        return tuple(entry for entry in self._entries() if _NAME.fullmatch(entry.name))

    def _files(self) -> dict[str, Path]:
        if self._folder is None or not self._folder.is_dir():
            return {}
        files = (path for path in sorted(self._folder.glob("*.py")) if _is_program(path.stem))
        return {path.stem: path for path in files}

    def _found(self, name: str) -> list[Source]:
        """Who claims a name. Nothing is loaded."""
        if name in self._built_in:
            return [Source(_BUILT_IN, "vendo", partial(self._built_in.__getitem__, name))]
        if not _is_program(name):
            return []
        found = [
            Source("entry point", origin(entry), partial(load_entry, entry))
            for entry in self._installed
            if entry.name == name
        ]
        if self._folder is not None and os.path.lexists(path := self._folder / f"{name}.py"):
            found.append(Source(_FILE, str(path), partial(load_file, path)))
        return found

    def _source(self, name: str) -> Source | None:
        found = self._found(name)
        if len(found) > 1:
            raise ProgramTaken(f"{' and '.join(one.where for one in found)} both claim the program {name!r}.")
        return found[0] if found else None

    def _note(self, name: str, error: NoProgram) -> None:
        self._broken[name] = error
        log.error(
            "a program cannot be used: %s", error.message,
            extra={"action": "program_refused", "program": name, "code": error.code},
        )  # fmt: skip

    # ---- for the operator

    def file_of(self, name: str) -> Path | None:
        """The file of a program, if it is one and the only one of this name."""
        found = self._found(name)
        return Path(found[0].where) if len(found) == 1 and found[0].kind == _FILE else None

    def reload(self, name: str) -> AnyProgram:
        """Take a changed file up, or one that was put right. What runs now ends with the code it began with.

        Raises:
            NoProgram: there is none, or it cannot be used; the one that was loaded stays.
            InvalidInput: it is no file, and is loaded already.
        """
        source = self._source(name)
        if source is None:
            raise NoProgram(f"This node has no program called {name!r}.")
        if source.kind != _FILE and name in self._loaded:
            raise InvalidInput(f"{name!r} is {source.kind}: only files are taken up while the node runs.")
        try:
            program = source.load()
        except NoProgram as error:
            if name not in self._loaded:
                self._note(name, error)
            raise
        self._broken.pop(name, None)
        self._loaded[name] = program
        log.info("a program was loaded again", extra={"action": "program_reloaded", "program": name})
        return program

    def check(self) -> dict[str, NoProgram]:
        """What is wrong with programs by their names, as far as can be said without running them."""
        found: dict[str, NoProgram] = {}
        for name in self:
            try:
                source = self._source(name)
                path = self._files().get(name)
                if path is not None and source is not None and source.kind == _BUILT_IN:
                    raise ProgramTaken(f"{path} is not used: the name is that of a program that is built in.")
                if path is not None:
                    check_file(path)
            except NoProgram as error:
                found[name] = error
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Every program: `name`, `source`, `where`, `digest` if it is loaded, and what is wrong with it."""
        return [self._row(name) for name in self]

    def _row(self, name: str) -> dict[str, Any]:
        found, program, broken = self._found(name), self._loaded.get(name), self._broken.get(name)
        problem = f"{broken.code}: {broken.message}" if broken is not None else ""
        if not problem and len(found) > 1:
            problem = f"{ProgramTaken.code}: {' and '.join(one.where for one in found)} both claim it."
        if name in self._built_in and self._folder is not None and os.path.lexists(self._folder / f"{name}.py"):
            problem = f"{ProgramTaken.code}: {name}.py is not used: the name is that of a program that is built in."
        return {
            "name": name,
            "source": " and ".join(dict.fromkeys(one.kind for one in found)),
            "where": " and ".join(one.where for one in found),
            "digest": program.digest if program is not None else "",
            "problem": problem,
        }


def _is_program(stem: str) -> bool:
    return _NAME.fullmatch(stem) is not None and not stem.startswith("test_") and stem != "conftest"
