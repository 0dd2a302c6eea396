"""What one agent can reach: services mounted at paths, with an access level each. Fixed once it is built.

The longest mount that is the path itself, or its prefix up to a `/`, answers. A bind gives a tree a second name;
the right to use it is still that of the mount it leads to, so no bind can lend a right (DESIGN §5).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from core.unit import Write
from fs.error import AccessDenied, BadPath, IsDirectory, NoSuchFile, NotDirectory, Unsupported
from fs.path import join, parts
from fs.protocol import FileService, Path, Record, Stat
from fs.session import Role, Session, Then
from fs.tree import README, json_bytes

MOUNTS = "mounts"


class Access(StrEnum):
    """What a mount allows an agent. The operator may do everything but use what is disabled."""

    DISABLED = "disabled"  # nothing, not even looking
    READ = "read-only"  # read, list and watch
    WRITE = "read-write"  # everything
    SIGN = "sign-only"  # read, and call only the operations on the mount's list
    BUDGETED = "budgeted"  # read, and calls, which the gate charges; writes change policy and are the operator's
    ADMIN = "admin"  # the operator alone


class Verb(StrEnum):
    """What a caller wants with a path."""

    LOOK = "look"
    WRITE = "write"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Mount:
    """A service at a path. `operations` are the names that may be called under `Access.SIGN`."""

    path: str
    service: FileService
    access: Access
    about: str = ""
    operations: frozenset[str] = frozenset()


def allowed(mount: Mount, verb: Verb, rest: Path, role: Role) -> bool:
    """Whether a role may do this below a mount. Judged on the canonical path, after binds."""
    if mount.access is Access.DISABLED or role < Role.AGENT:
        return False
    if role >= Role.OPERATOR:
        return True
    match mount.access:
        case Access.READ:
            return verb is Verb.LOOK
        case Access.WRITE:
            return True
        case Access.SIGN:
            return verb is Verb.LOOK or (verb is Verb.CALL and bool(rest) and rest[0] in mount.operations)
        case Access.BUDGETED:
            return verb is not Verb.WRITE
        case _:
            return False


Changed: TypeAlias = Callable[[str, int, Session], Awaitable[tuple[Sequence[Write], Then]]]
"""What to commit together with a file that is written, and what to do then: path, length, who writes."""


@dataclass(frozen=True, slots=True)
class _Found:
    mount: Mount
    rest: Path


class Namespace:
    """Mounts and binds as one tree.

    Args:
        mounts: what is mounted.
        binds: other names for what is mounted, alias → path.
        changed: is asked what tells of a file that is written where its agent may look. Below a mount that is
            `Access.WRITE` calls change files too: `<file>/delete` that file, and every other call its own folder.

    Raises:
        BadPath: a path is not valid, or two mounts or binds have the same path.
    """

    def __init__(
        self, mounts: Sequence[Mount], binds: Mapping[str, str] | None = None, changed: Changed | None = None
    ) -> None:
        self._changed = changed
        self._mounts = {parts(mount.path): mount for mount in mounts}
        self._binds = {parts(alias): parts(target) for alias, target in (binds or {}).items()}
        if len(self._mounts) != len(mounts) or self._mounts.keys() & self._binds.keys() or () in self._binds:
            raise BadPath("Two mounts have the same path.")
        for target in self._binds.values():
            if self._prefix(target, self._binds) is not None:
                raise BadPath("A bind leads to another bind.")

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is mounted, for the reference pages."""
        return tuple(self._mounts.values())

    @staticmethod
    def _prefix(path: Path, table: Mapping[Path, object]) -> Path | None:
        for length in range(len(path), -1, -1):
            if path[:length] in table:
                return path[:length]
        return None

    def _canonical(self, path: Path) -> Path:
        alias = self._prefix(path, self._binds)
        if alias is None or ((mounted := self._prefix(path, self._mounts)) and len(mounted) > len(alias)):
            return path
        return self._binds[alias] + path[len(alias) :]

    def _find(self, path: Path) -> _Found | None:
        path = self._canonical(path)
        prefix = self._prefix(path, self._mounts)
        return None if prefix is None else _Found(self._mounts[prefix], path[len(prefix) :])

    def _open(self, path: Path, verb: Verb, session: Session) -> _Found:
        found = self._find(path)
        if found is None:
            if self._below(path) and verb is Verb.LOOK:
                raise IsDirectory
            if self._below(path) or self._own(path) is not None:
                raise Unsupported
            raise NoSuchFile
        if not allowed(found.mount, verb, found.rest, session.role):
            raise AccessDenied(
                f"{found.mount.path} is mounted {found.mount.access.value}; this needs more.", mount=found.mount.path
            )
        return found

    def _below(self, path: Path) -> dict[str, str]:
        """Names of mounts and binds one step below a path: name → about."""
        path = self._canonical(path)
        names: dict[str, str] = {}
        for prefix in [*self._mounts, *self._binds]:
            if len(prefix) > len(path) and prefix[: len(path)] == path:
                name = prefix[len(path)]
                mount = self._mounts.get(prefix) if len(prefix) == len(path) + 1 else None
                names[name] = names.get(name) or (mount.about if mount else "")
        return names

    def _own(self, path: Path) -> bytes | None:
        """Files of the namespace itself: /mounts, and a README where only mounts are."""
        if path == (MOUNTS,):
            return json_bytes(self.table())
        if path and path[-1] == README and self._find(path) is None and (names := self._below(path[:-1])):
            lines = [f"{name}/: {about}" for name, about in sorted(names.items())]
            if len(path) == 1:
                lines.append(f"{MOUNTS}: what is mounted where, and what it allows")
            return ("\n".join(["What can be reached from here.", "", *lines]) + "\n").encode()
        return None

    def table(self) -> list[dict[str, str]]:
        """The mount table as data."""
        rows = [
            {"path": mount.path, "access": mount.access.value, "about": mount.about} for mount in self._mounts.values()
        ]
        rows += [{"path": join(alias), "bind": join(target)} for alias, target in self._binds.items()]
        return sorted(rows, key=lambda row: row["path"])

    async def stat(self, path: str, session: Session) -> Stat:
        """What is at a path.

        Raises:
            BadPath, NoSuchFile, AccessDenied.
        """
        names = parts(path)
        if self._find(names) is None:
            _known(session)
            if not names or self._below(names):
                return Stat(names[-1] if names else "", True)
            if (own := self._own(names)) is not None:
                return Stat(names[-1], False, size=len(own), readable=True)
        found = self._open(names, Verb.LOOK, session)
        stat = await found.mount.service.stat(found.rest, session)
        return replace(stat, name=names[-1] if names else "")

    async def _entry(self, above: Path, name: str, about: str, session: Session) -> Stat:
        found = self._find((*above, name))
        if found is None or not allowed(found.mount, Verb.LOOK, found.rest, session.role):
            return Stat(name, found is None, about)
        stat = await found.mount.service.stat(found.rest, session)
        return replace(stat, name=name, about=about or stat.about)

    async def list(self, path: str, session: Session) -> list[Stat]:
        """What is in a directory, mounts below it included, sorted by name.

        Raises:
            BadPath, NoSuchFile, NotDirectory, AccessDenied.
        """
        names = parts(path)
        below = self._below(names)
        entries = {name: await self._entry(names, name, about, session) for name, about in below.items()}
        if self._find(names) is not None:
            found = self._open(names, Verb.LOOK, session)
            entries = {stat.name: stat for stat in await found.mount.service.list(found.rest, session)} | entries
        elif self._own(names) is not None:
            raise NotDirectory
        elif names and not below:
            raise NoSuchFile
        else:
            _known(session)
            entries[README] = Stat(README, False, "what is in this directory", readable=True)
            if not names:
                entries[MOUNTS] = Stat(MOUNTS, False, "what is mounted where", readable=True)
        return [entries[name] for name in sorted(entries)]

    async def read(self, path: str, session: Session) -> bytes:
        """The whole content of a file.

        Raises:
            BadPath, NoSuchFile, IsDirectory, Unsupported, AccessDenied.
        """
        names = parts(path)
        if self._find(names) is None and (own := self._own(names)) is not None:
            _known(session)
            return own
        found = self._open(names, Verb.LOOK, session)
        return await found.mount.service.read(found.rest, session)

    async def write(self, path: str, body: bytes, session: Session) -> None:
        """Replace the content of a file.

        Raises:
            BadPath, NoSuchFile, IsDirectory, Unsupported, AccessDenied; InvalidInput for a body it does not take.
        """
        found = self._open(parts(path), Verb.WRITE, session)
        if allowed(found.mount, Verb.LOOK, found.rest, Role.AGENT):
            session = await self._telling(found, found.rest, body, session)
        await found.mount.service.write(found.rest, body, session)

    async def _telling(self, found: _Found, changed: Path, body: bytes, session: Session) -> Session:
        """The same session; what tells of the change goes with what it writes."""
        if self._changed is None:
            return session
        where = join(parts(found.mount.path) + changed)
        return session.along(*await self._changed(where, len(body), session))

    async def call(self, path: str, body: bytes, session: Session) -> bytes:
        """Hand one record to a file and read its answer.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied; InvalidInput for a body it does not take; Refused.
        """
        found = self._open(parts(path), Verb.CALL, session)
        if found.mount.access is Access.WRITE:
            session = await self._telling(found, found.rest[:-1], body, session)
        return await found.mount.service.call(found.rest, body, session)

    async def watch(self, path: str, session: Session, after: int | None = None) -> AsyncIterator[Record]:
        """The records of a stream from a cursor on.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied.
        """
        found = self._open(parts(path), Verb.LOOK, session)
        async for record in found.mount.service.watch(found.rest, session, after):
            yield record


def _known(session: Session) -> None:
    if session.role < Role.AGENT:
        raise AccessDenied("Nothing here is public.")
