"""A namespace against a model of it: a plain dictionary of canonical paths, whatever is done in whatever order.

The model knows mounts, access levels, binds and unions by what DESIGN says of them, and nothing of how they are looked
up: it goes through all mounts for every question.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.error import VendoError
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Path
from fs.session import Role, Session
from tests.shelf_part import MOST, Keep

MOUNTS = {
    "/a": Access.WRITE,
    "/a/b": Access.READ,  # inside another
    "/ab": Access.WRITE,  # the same letters, another name
    "/low": Access.WRITE,
    "/deep/er": Access.BUDGETED,
    "/admin": Access.ADMIN,
    "/off": Access.DISABLED,
    "/sign": Access.SIGN,
    "/open": Access.READ,
}
BINDS: dict[str, str | tuple[str, ...]] = {
    "/alias": "/a",
    "/inner": "/a/x",
    "/lend": "/admin",
    "/both": ("/open", "/a", "/low"),
    "/high": ("/admin", "/low"),
}
NAMES = ["a", "b", "x", "y", "sign"]
PREFIXES = [*MOUNTS, *BINDS, "/deep", ""]
SESSIONS = {
    "agent": Session("agent:a", Role.AGENT),
    "operator": Session("operator", Role.OPERATOR),
    "public": Session("public", Role.PUBLIC),
}
LOOK, WRITE, CALL = "look", "write", "call"
paths = st.builds(
    lambda prefix, names: prefix + "".join("/" + name for name in names) or "/",
    st.sampled_from(PREFIXES),
    st.lists(st.sampled_from(NAMES), max_size=3),
)
who = st.sampled_from(sorted(SESSIONS))
bodies = st.one_of(st.binary(max_size=8), st.just(b"x" * (MOST + 1)))


def split(path: str) -> Path:
    return tuple(part for part in path.split("/") if part)


@dataclass(frozen=True)
class Place:
    """Where a path leads: a mount, and the rest below it."""

    mount: str
    rest: Path


class Model:
    """What every mount holds, and who may do what there."""

    def __init__(self) -> None:
        self.held: dict[str, dict[Path, bytes | None]] = {mount: {(): None} for mount in MOUNTS}

    def places(self, path: str) -> list[Place]:
        names, found = split(path), []
        for target in self._targets(names):
            fitting = [one for one in MOUNTS if split(one) == target[: len(split(one))]]
            if fitting:
                longest = max(fitting, key=lambda one: len(split(one)))
                found.append(Place(longest, target[len(split(longest)) :]))
        return found

    @staticmethod
    def _targets(names: Path) -> list[Path]:
        for alias, targets in BINDS.items():
            if names[: len(split(alias))] == split(alias):
                rest = names[len(split(alias)) :]
                return [split(one) + rest for one in ([targets] if isinstance(targets, str) else targets)]
        return [names]

    @staticmethod
    def may(place: Place, verb: str, role: Role) -> bool:
        access = MOUNTS[place.mount]
        if access is Access.DISABLED or role is Role.PUBLIC:
            return False
        if role is Role.OPERATOR or access is Access.WRITE:
            return True
        if verb == LOOK:
            return access is not Access.ADMIN
        if verb == CALL and access is Access.SIGN:
            return place.rest[:1] == ("sign",)
        return verb == CALL and access is Access.BUDGETED

    def one(self, path: str, verb: str, role: Role, *, new: bool = False) -> Place | str:
        """Which place answers, or why none does."""
        places = self.places(path)
        if not places:
            return "nowhere"
        place = places[0]
        if len(places) > 1:
            seen = [one for one in places if self.may(one, LOOK, role)]
            there = [one for one in seen if one.rest in self.held[one.mount]]
            writable = [one for one in seen if self.may(one, verb, role)]
            place = next(iter(there + (writable if new or verb == WRITE else []) + seen + places))
        return place if self.may(place, verb, role) else "denied"

    def names(self, path: str, role: Role) -> set[str] | None:
        """What a listing shows; None if it is refused."""
        names = split(path)
        below = {
            split(one)[len(target)]
            for target in self._targets(names)
            for one in (*MOUNTS, *BINDS)
            if len(split(one)) > len(target) and split(one)[: len(target)] == target
        }
        places = self.places(path)
        if not places:
            if role is Role.PUBLIC or (names and not below):
                return None
            return below | {"README"} | (set() if names else {"mounts"})
        first = self.one(path, LOOK, role)
        if isinstance(first, str):
            return None
        layers = places if len(places) == 1 else places[places.index(first) :]
        if self.held[first.mount].get(first.rest, b"") is not None:
            return None
        for one in layers:
            held = self.held[one.mount]
            if self.may(one, LOOK, role) and held.get(one.rest, b"") is None:
                below |= {path[-1] for path in held if path and path[:-1] == one.rest}
        return below


class NamespaceMachine(RuleBasedStateMachine):
    """Does the same to both and compares: what is answered, what is refused, and what is there afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = {mount: Keep() for mount in MOUNTS}
        mounts = [
            Mount(path, self.kept[path], access, operations=frozenset({"sign"})) for path, access in MOUNTS.items()
        ]
        self.space, self.model = Namespace(mounts, BINDS), Model()

    def do(self, made: Callable[[], Awaitable[Any]]) -> tuple[Any, str]:
        """What came of it: the answer, or the code of the error."""

        async def run() -> Any:
            return await made()

        try:
            return asyncio.run(run()), ""
        except VendoError as error:
            return None, error.code

    @rule(path=paths, body=bodies, who=who)
    def write(self, path: str, body: bytes, who: str) -> None:
        session = SESSIONS[who]
        _, code = self.do(lambda: self.space.write(path, body, session))
        place = self.model.one(path, WRITE, session.role)
        if isinstance(place, str):
            assert code
            return
        held = self.model.held[place.mount]
        fits = place.rest and held.get(place.rest, b"") is not None and held.get(place.rest[:-1], b"") is None
        assert (code == "") is bool(fits and len(body) <= MOST)
        if not code:
            held[place.rest] = body

    @rule(path=paths, who=who)
    def read(self, path: str, who: str) -> None:
        session = SESSIONS[who]
        answer, code = self.do(lambda: self.space.read(path, session))
        place = self.model.one(path, LOOK, session.role)
        held = None if isinstance(place, str) else self.model.held[place.mount].get(place.rest)
        assert answer == held
        assert (code == "fs.access_denied") is (place == "denied")

    @rule(path=paths, body=st.binary(max_size=4), who=who)
    def call(self, path: str, body: bytes, who: str) -> None:
        session = SESSIONS[who]
        answer, code = self.do(lambda: self.space.call(path, body, session))
        place = self.model.one(path, CALL, session.role)
        held = None if isinstance(place, str) else self.model.held[place.mount].get(place.rest)
        assert answer == (None if held is None else held + body)
        assert (code == "fs.access_denied") is (place == "denied")

    @rule(path=paths, who=who)
    def list(self, path: str, who: str) -> None:
        session = SESSIONS[who]
        answer, _ = self.do(lambda: self.space.list(path, session))
        expected = self.model.names(path, session.role)
        assert (None if answer is None else {stat.name for stat in answer}) == expected

    @rule(path=paths, who=who)
    def stat(self, path: str, who: str) -> None:
        session = SESSIONS[who]
        answer, _ = self.do(lambda: self.space.stat(path, session))
        place = self.model.one(path, LOOK, session.role)
        if isinstance(place, Place) and place.rest in self.model.held[place.mount]:
            assert answer is not None
            assert answer.is_dir is (self.model.held[place.mount][place.rest] is None)
        elif isinstance(place, Place) or place == "denied":
            assert answer is None

    @rule(path=paths, who=who)
    def remove(self, path: str, who: str) -> None:
        session = SESSIONS[who]
        _, code = self.do(lambda: self.space.remove(path, session))
        place = self.model.one(path, WRITE, session.role)
        held = {} if isinstance(place, str) else self.model.held[place.mount]
        rest = () if isinstance(place, str) else place.rest
        fits = bool(rest) and rest in held and not any(one[:-1] == rest for one in held if one)
        assert (code == "") is fits
        if fits:
            del held[rest]

    @rule(path=paths, who=who)
    def mkdir(self, path: str, who: str) -> None:
        session = SESSIONS[who]
        _, code = self.do(lambda: self.space.mkdir(path, session))
        place = self.model.one(path, WRITE, session.role, new=True)
        held = {} if isinstance(place, str) else self.model.held[place.mount]
        rest = () if isinstance(place, str) else place.rest
        fits = bool(rest) and rest not in held and held.get(rest[:-1], b"") is None
        assert (code == "") is fits
        if fits:
            held[rest] = None

    @rule(path=paths, to=paths, who=who)
    def rename(self, path: str, to: str, who: str) -> None:
        session = SESSIONS[who]
        _, code = self.do(lambda: self.space.rename(path, to, session))
        place = self.model.one(path, WRITE, session.role)
        target = self.model.one(to, WRITE, session.role, new=True)
        if isinstance(place, str) or isinstance(target, str) or place.mount != target.mount:
            assert code
            return
        held, old, new = self.model.held[place.mount], place.rest, target.rest
        fits = bool(old) and old in held and new[: len(old)] != old
        fits = fits and new not in held and held.get(new[:-1], b"") is None
        assert (code == "") is fits
        if fits:
            for one in [one for one in held if one[: len(old)] == old]:
                held[new + one[len(old) :]] = held.pop(one)

    @invariant()
    def nothing_else_has_changed(self) -> None:
        assert {mount: keep.files for mount, keep in self.kept.items()} == self.model.held


TORTURE = settings.default is not None and settings.default.max_examples > 1_000
TestNamespaceModel = NamespaceMachine.TestCase
TestNamespaceModel.settings = settings(max_examples=3_000 if TORTURE else 60, stateful_step_count=40, deadline=None)
