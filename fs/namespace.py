"""What one agent can reach: services mounted at paths, with an access level each. Fixed once it is built.

The longest mount that is the path itself, or its prefix up to a `/`, answers. A bind gives a tree a second name;
the right to use it is still that of the mount it leads to, so no bind can lend a right (DESIGN §5). A union is a bind
to several trees: the first that has a name answers for it, a listing shows all, and what is new goes into the first
that the caller may write to.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from core.unit import Write
from fs.batch import Later
from fs.error import AccessDenied, BadPath, IsDirectory, NoSuchFile, NotDirectory, Unsupported
from fs.path import join, parts
from fs.protocol import Content, FileService, Path, Record, Stat
from fs.session import Role, Session, Then
from fs.tree import README, json_bytes, short, whole

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
    """A service at a path.

    Attributes:
        path: where.
        service: what answers.
        access: what an agent may do.
        about: what it is, in a line.
        operations: the names that may be called under `Access.SIGN`.
        public: whether callers without a token may look; the service itself says at what, and what it shows them.
    """

    path: str
    service: FileService
    access: Access
    about: str = ""
    operations: frozenset[str] = frozenset()
    public: bool = False


def allowed(mount: Mount, verb: Verb, rest: Path, role: Role) -> bool:
    """Whether a role may do this below a mount. Judged on the canonical path, after binds."""
    if mount.access is Access.DISABLED:
        return False
    if role < Role.AGENT:
        return mount.public and verb is Verb.LOOK
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


@dataclass(slots=True, unsafe_hash=True)  # one for each request: frozen, each field would cost a call
class _Found:
    mount: Mount
    rest: Path


Binds: TypeAlias = Mapping[str, str | Sequence[str]]
MAX_WHOLE = 16 << 20


class Namespace:
    """Mounts and binds as one tree.

    Args:
        mounts: what is mounted.
        binds: other names for what is mounted: alias → path, or for a union → paths, the first on top.
        changed: is asked what tells of a file that is written where its agent may look. Below a mount that is
            `Access.WRITE` calls change files too: `<file>/delete` that file, and every other call its own folder.

    Raises:
        BadPath: a path is not valid, or two mounts or binds have the same path.
    """

    def __init__(self, mounts: Sequence[Mount], binds: Binds | None = None, changed: Changed | None = None) -> None:
        self._changed = changed
        self._mounts = {parts(mount.path): mount for mount in mounts}
        self._binds = {
            parts(alias): tuple(parts(one) for one in ([target] if isinstance(target, str) else target))
            for alias, target in (binds or {}).items()
        }
        if len(self._mounts) != len(mounts) or self._mounts.keys() & self._binds.keys() or () in self._binds:
            raise BadPath("Two mounts have the same path.")
        for target in (one for targets in self._binds.values() for one in targets):
            if self._prefix(target, self._binds) is not None:
                raise BadPath("A bind leads to another bind.")

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is mounted, for the reference pages."""
        return tuple(self._mounts.values())

    @property
    def binds(self) -> dict[str, tuple[str, ...]]:
        """The other names: alias → paths."""
        return {join(alias): tuple(join(one) for one in targets) for alias, targets in self._binds.items()}

    # ---- where a path leads

    @staticmethod
    def _prefix(path: Path, table: Mapping[Path, object]) -> Path | None:
        for length in range(len(path), -1, -1):
            if path[:length] in table:
                return path[:length]
        return None

    def _canonical(self, path: Path) -> tuple[Path, ...]:
        """The paths that a path stands for: one, or for a union each of its trees, the first on top."""
        if not self._binds:
            return (path,)
        alias = self._prefix(path, self._binds)
        if alias is None or ((mounted := self._prefix(path, self._mounts)) and len(mounted) > len(alias)):
            return (path,)
        return tuple(target + path[len(alias) :] for target in self._binds[alias])

    def _found(self, path: Path) -> list[_Found]:
        found = []
        for one in self._canonical(path):
            prefix = self._prefix(one, self._mounts)
            if prefix is not None:
                found.append(_Found(self._mounts[prefix], one[len(prefix) :]))
        return found

    async def _open(self, path: Path, verb: Verb, session: Session, *, new: bool = False) -> _Found:
        """What answers for a path. With `new` it need not be there yet.

        Raises:
            NoSuchFile, IsDirectory, Unsupported: nothing that is mounted does.
            AccessDenied: the caller may not do this there.
        """
        found = self._found(path)
        if not found:
            if self._below(path) and verb is Verb.LOOK:
                raise IsDirectory
            if self._below(path) or self._own(path) is not None:
                raise Unsupported
            raise NoSuchFile
        one = found[0] if len(found) == 1 else await self._layer(found, verb, session, new=new)
        if not allowed(one.mount, verb, one.rest, session.role):
            raise AccessDenied(
                f"{one.mount.path} is mounted {one.mount.access.value}; this needs more.", mount=one.mount.path
            )
        return one

    @staticmethod
    async def _layer(found: Sequence[_Found], verb: Verb, session: Session, *, new: bool) -> _Found:
        """Which tree of a union answers. One that the caller must not look at does not exist for the caller."""
        open_to = [one for one in found if allowed(one.mount, Verb.LOOK, one.rest, session.role)]
        for one in open_to:
            try:
                await one.mount.service.stat(one.rest, session)
            except NoSuchFile:
                continue
            return one
        if new or verb is Verb.WRITE:
            for one in open_to:
                if allowed(one.mount, verb, one.rest, session.role):
                    return one
        return (open_to or found)[0]

    def _below(self, path: Path) -> dict[str, str]:
        """Names of mounts and binds one step below a path: name → about."""
        names: dict[str, str] = {}
        for one in self._canonical(path):
            for prefix in [*self._mounts, *self._binds]:
                if len(prefix) > len(one) and prefix[: len(one)] == one:
                    name = prefix[len(one)]
                    mount = self._mounts.get(prefix) if len(prefix) == len(one) + 1 else None
                    names[name] = names.get(name) or (mount.about if mount else "")
        return names

    def _own(self, path: Path) -> bytes | None:
        """Files of the namespace itself: /mounts, and a README where only mounts are."""
        if path == (MOUNTS,):
            return json_bytes(self.table())
        if path and path[-1] == README and not self._found(path) and (names := self._below(path[:-1])):
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
        rows += [
            {"path": join(alias), "bind": " ".join(join(one) for one in targets)}
            for alias, targets in self._binds.items()
        ]
        return sorted(rows, key=lambda row: row["path"])

    # ---- looking

    async def stat(self, path: str, session: Session) -> Stat:
        """What is at a path.

        Raises:
            BadPath, NoSuchFile, AccessDenied.
        """
        names = parts(path)
        if not self._found(names):
            _known(session)
            if not names or self._below(names):
                return Stat(names[-1] if names else "", True)
            if (own := self._own(names)) is not None:
                return Stat(names[-1], False, size=len(own), readable=True)
        found = await self._open(names, Verb.LOOK, session)
        stat = await found.mount.service.stat(found.rest, session)
        return replace(stat, name=names[-1] if names else "")

    async def _entry(self, above: Path, name: str, about: str, session: Session) -> Stat:
        found = self._found((*above, name))
        if not found or not any(allowed(one.mount, Verb.LOOK, one.rest, session.role) for one in found):
            return Stat(name, not found, about)
        one = await self._open((*above, name), Verb.LOOK, session)
        try:
            stat = await one.mount.service.stat(one.rest, session)
        except NoSuchFile:  # a bind to what is not there yet
            return Stat(name, False, about)
        return replace(stat, name=name, about=about or stat.about)

    async def entries(self, path: str, session: Session) -> AsyncIterator[Stat]:
        """What is in a directory, mounts below it included, in no certain order: a very long one fits, too.

        Raises:
            BadPath, NoSuchFile, NotDirectory, AccessDenied.
        """
        names = parts(path)
        below, found = self._below(names), self._found(names)
        shown = set(below)
        if not found:
            if self._own(names) is not None:
                raise NotDirectory
            if names and not below:
                raise NoSuchFile
            _known(session)
            yield Stat(README, False, "what is in this directory", readable=True)
            if not names:
                yield Stat(MOUNTS, False, "what is mounted where", readable=True)
        for name, about in below.items():
            yield await self._entry(names, name, about, session)
        async for stat in self._layered(names, found, session):
            if stat.name not in shown:
                yield stat

    async def _layered(self, names: Path, found: Sequence[_Found], session: Session) -> AsyncIterator[Stat]:
        """The entries of one service, or of all trees of a union that have this directory."""
        if len(found) < 2:
            for one in found:
                await self._open(names, Verb.LOOK, session)
                async for stat in one.mount.service.list(one.rest, session):
                    yield stat
            return
        first = await self._open(names, Verb.LOOK, session)
        shown: set[str] = set()
        for one in found[found.index(first) :]:
            if not allowed(one.mount, Verb.LOOK, one.rest, session.role):
                continue
            try:
                async for stat in one.mount.service.list(one.rest, session):
                    if stat.name not in shown:
                        shown.add(stat.name)
                        yield stat
            except (NoSuchFile, NotDirectory):
                if one == first:
                    raise

    async def list(self, path: str, session: Session) -> list[Stat]:
        """What is in a directory, mounts below it included, sorted by name.

        Raises:
            BadPath, NoSuchFile, NotDirectory, AccessDenied.
        """
        entries = {stat.name: stat async for stat in self.entries(path, session)}
        return [entries[name] for name in sorted(entries)]

    async def content(self, path: str, session: Session, *, plain: bool = False) -> Content:
        """The whole content of a file; in pieces if it may be long.

        Raises:
            BadPath, NoSuchFile, IsDirectory, Unsupported, AccessDenied; IsStream if it is one and `plain` is set.
        """
        names = parts(path)
        if (names == (MOUNTS,) or names[-1:] == (README,)) and not self._found(names):
            own = self._own(names)
            if own is not None:
                _known(session)
                return own
        found = await self._open(names, Verb.LOOK, session)
        return await found.mount.service.read(found.rest, session, plain=plain)

    async def read(self, path: str, session: Session) -> bytes:
        """The whole content of a file, at most 16 MiB.

        Raises:
            BadPath, NoSuchFile, IsDirectory, Unsupported, AccessDenied; BodyTooLarge if it is longer.
        """
        content = await self.content(path, session)
        return content if isinstance(content, bytes) else await whole(content, MAX_WHOLE)

    def watch(self, path: str, session: Session, after: int | None = None) -> AsyncIterator[Record]:
        """The records of a stream from a cursor on; the path is looked up when the first is asked for.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied: with the first record.
        """

        async def begin() -> AsyncIterator[Record]:
            found = await self._open(parts(path), Verb.LOOK, session)
            return found.mount.service.watch(found.rest, session, after)

        return Later(begin)

    # ---- changing

    async def check(self, path: str, verb: Verb, session: Session) -> None:
        """Whether the caller may do this at a path, which need not be there yet.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied.
        """
        await self._open(parts(path), verb, session, new=True)

    async def write(self, path: str, body: Content, session: Session) -> None:
        """Replace the content of a file.

        Raises:
            BadPath, NoSuchFile, IsDirectory, Unsupported, AccessDenied; InvalidInput for a body it does not take.
        """
        found = await self._open(parts(path), Verb.WRITE, session)
        if not isinstance(body, bytes):
            body = await short(body)
        size = len(body) if isinstance(body, bytes) else 0  # nobody knows yet
        await found.mount.service.write(found.rest, body, await self._telling(found, found.rest, size, session))

    async def _telling(self, found: _Found, changed: Path, size: int, session: Session) -> Session:
        """The same session; what tells of the change, where an agent may look, goes with what it writes."""
        if self._changed is None or not allowed(found.mount, Verb.LOOK, found.rest, Role.AGENT):
            return session
        where = join(parts(found.mount.path) + changed)
        return session.along(*await self._changed(where, size, session))

    async def call(self, path: str, body: bytes, session: Session) -> bytes:
        """Hand one record to a file and read its answer.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied; InvalidInput for a body it does not take; Refused.
        """
        found = await self._open(parts(path), Verb.CALL, session)
        if found.mount.access is Access.WRITE:
            session = await self._telling(found, found.rest[:-1], len(body), session)
        return await found.mount.service.call(found.rest, body, session)

    async def remove(self, path: str, session: Session) -> None:
        """Take a file away, or a directory with nothing in it.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied; DirectoryInUse.
        """
        found = await self._open(parts(path), Verb.WRITE, session)
        await found.mount.service.remove(found.rest, await self._telling(found, found.rest, 0, session))

    async def rename(self, path: str, to: str, session: Session) -> None:
        """Give a file another path, within one mount.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied; FileExists.
        """
        found = await self._open(parts(path), Verb.WRITE, session)
        target = await self._open(parts(to), Verb.WRITE, session, new=True)
        if target.mount is not found.mount:
            raise Unsupported("A file is renamed within one mount; copy it, and remove the old one.")
        await found.mount.service.rename(found.rest, target.rest, await self._telling(found, target.rest, 0, session))

    async def mkdir(self, path: str, session: Session) -> None:
        """Make a directory.

        Raises:
            BadPath, NoSuchFile, Unsupported, AccessDenied; FileExists.
        """
        found = await self._open(parts(path), Verb.WRITE, session, new=True)
        await found.mount.service.mkdir(found.rest, await self._telling(found, found.rest, 0, session))


def _known(session: Session) -> None:
    if session.role < Role.AGENT:
        raise AccessDenied("Nothing here is public.")
