"""Loading one program: from a file that only the node's user can have written, or from an installed package.

This runs the program's code, with the node's rights. The bytes of a file that were looked at are those that run.
"""

import contextlib
import hashlib
import inspect
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from pydantic import BaseModel

from core.guard import caught
from node.agent.error import NoProgram, ProgramBroken, ProgramUnsafe
from node.agent.program import AnyProgram, Program

MAX_SOURCE = 1 << 20
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def safe_source(path: Path) -> bytes:
    """The source of a file that only its user can have written.

    Raises:
        ProgramUnsafe: it is a link or no file, somebody else's, or others may write it or its folder.
        ProgramBroken: it cannot be read, or is too long.
    """
    for folder in (path.parent, path.parent.parent):
        _check(folder.stat(), folder)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise ProgramUnsafe(f"{path} is a link, and not a file.") from error
        raise ProgramBroken(f"{path} cannot be read: {error.strerror}.") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ProgramUnsafe(f"{path} is not a file.")
        _check(found, path)
        with os.fdopen(handle, "rb", closefd=False) as file:
            source = file.read(MAX_SOURCE + 1)
    finally:
        os.close(handle)
    if len(source) > MAX_SOURCE:
        raise ProgramBroken(f"{path} is longer than {MAX_SOURCE >> 20} MiB.")
    return source


def _check(found: os.stat_result, path: Path) -> None:
    if found.st_uid != os.geteuid():
        raise ProgramUnsafe(f"{path} belongs to another user.")
    if found.st_mode & _OTHERS_WRITE:
        raise ProgramUnsafe(f"{path} can be written by others.")


def check_file(path: Path) -> None:
    """Whether a file can be loaded, as far as can be said without running it.

    Raises:
        ProgramUnsafe: as `safe_source`.
        ProgramBroken: it is no Python.
    """
    _guarded(partial(_compiled, safe_source(path), path), str(path))


def load_file(path: Path) -> AnyProgram:
    """The program in a file: its one `Program` subclass, or what it calls `program`. Runs the file's code.

    Raises:
        ProgramUnsafe: as `safe_source`.
        ProgramBroken: its code fails, or there is no such program in it.
    """
    return load_source(safe_source(path), path, path.stem)


def load_source(source: bytes, path: Path, name: str) -> AnyProgram:
    """The same for source that somebody else has read. `name` is the program's; `path` says where it was.

    Raises:
        ProgramBroken: its code fails, or there is no such program in it.
    """
    module = ModuleType(f"vendo_agent_{name}")
    module.__file__ = str(path)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # types find their own module by its name
    try:
        program = _guarded(lambda: _of_module(module, source, path), str(path))
        return _sound(program, name, hashlib.sha256(source).hexdigest(), str(path))
    except ProgramBroken:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise


def _compiled(source: bytes, path: Path) -> CodeType:
    return compile(source, path, "exec", dont_inherit=True)


def _of_module(module: ModuleType, source: bytes, path: Path) -> Any:
    exec(_compiled(source, path), module.__dict__)  # noqa: S102 - the operator's own code
    if "program" in vars(module):
        return module.program
    kinds = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, Program)]
    own = [one for one in kinds if one.__module__ == module.__name__ and not inspect.isabstract(one)]
    if len(own) != 1:
        raise ProgramBroken(f"{path} has {len(own)} Program classes and no `program`; it should have one.")
    return own[0]()


def origin(entry: EntryPoint) -> str:
    """Where an entry point leads, and who has installed it."""
    made_by = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    return f"{entry.value}{made_by}"


def load_entry(entry: EntryPoint) -> AnyProgram:
    """The program to which an entry point leads: a `Program`, or a class that makes one. Runs its package's code.

    Raises:
        ProgramBroken: its code fails, or it is no program.
    """

    def load() -> Any:
        found = entry.load()
        return found() if inspect.isclass(found) else found

    program = _guarded(load, origin(entry))
    file = getattr(sys.modules.get(entry.module), "__file__", None)
    try:
        source = Path(file).read_bytes() if file else b""
    except OSError as error:
        raise ProgramBroken(f"{file} cannot be read: {error.strerror}.") from error
    made_by = f"\0{entry.dist.name}\0{entry.dist.version}" if entry.dist is not None else ""
    return _sound(program, entry.name, hashlib.sha256(source + made_by.encode()).hexdigest(), origin(entry))


def _guarded(load: Callable[[], Any], where: str) -> Any:
    """Run code of an agent's author: whatever it raises is its own failure. What it prints goes to the log's place."""
    with contextlib.redirect_stdout(sys.stderr):
        found, error = caught(load)
    if error is None:
        return found
    if isinstance(error, NoProgram | KeyboardInterrupt):
        raise error
    raise ProgramBroken(f"{where} raised {type(error).__name__}{_words(error)}"[:500]) from error


def _words(error: BaseException) -> str:
    """What an exception says, of the few kinds that are sure to be able to say it."""
    return f": {error}" if isinstance(error, SyntaxError | ImportError | NameError | AttributeError) else ""


def _sound(program: Any, name: str, digest: str, where: str) -> AnyProgram:
    """A program that can be used, with its name and digest.

    Raises:
        ProgramBroken: it is none, or its types are not such.
    """
    if not isinstance(program, Program):
        raise ProgramBroken(f"{where} gives a {type(program).__name__}, and no Program.")
    program.name = program.name or name
    if program.name != name:
        raise ProgramBroken(f"{where} calls its program {program.name!r}, and is itself called {name!r}.")
    for kind in ("state_type", "config_type"):
        found = getattr(program, kind, None)
        if not (inspect.isclass(found) and issubclass(found, BaseModel)):
            raise ProgramBroken(f"{where} has no `{kind}` that is a pydantic model.")
    if type(program.version) is not int or program.version < 1:
        raise ProgramBroken(f"{where} has a `version` that is no whole number from 1.")
    _guarded(program.state_type, where)
    program.digest = digest
    return program
