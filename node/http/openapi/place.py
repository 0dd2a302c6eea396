"""Every file of a namespace as a template of its path: `/compute/jobs/{job_id}/status`. Pure.

What is found by name is described by its folder's sample. A directory in which directories can be made is described one
level deep: those in it are alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fs.namespace import MOUNTS, Access, Mount, Namespace
from fs.path import join, parts
from fs.protocol import Path
from fs.session import Session
from fs.tree import README, File, Folder, Node, Tree

_WORD = re.compile(r"[^a-z0-9]+")
_DEEPEST = 4  # a folder that is found by name in folders that are


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of a path that is not fixed: its name, and what stands for it in the README."""

    name: str
    about: str


@dataclass(frozen=True, slots=True)
class Place:
    """One file or directory.

    Attributes:
        template: its path, with `{names}` for what is not fixed; empty for the root.
        node: what it can do, and what it takes and gives.
        mount: where it is mounted; None for what is the namespace's own.
        parameters: those in the template, in order.
    """

    template: str
    node: Node
    mount: Mount | None = None
    parameters: tuple[Parameter, ...] = ()


def places(namespace: Namespace) -> list[Place]:
    """All of them, each template once; mounts that are disabled are not there."""
    found: dict[str, Place] = {}
    for place in _all(namespace):
        found.setdefault(place.template, place)
    return list(found.values())


def _all(namespace: Namespace) -> Iterator[Place]:
    yield Place("", Folder("Everything there is, by mount."))
    yield Place(f"/{README}", _own("what is in this directory"))
    rows = {"type": "array", "items": {"type": "object", "required": ["path"]}}
    yield Place(f"/{MOUNTS}", File("what is mounted where", read=_nothing, gives=rows))
    mounts = [mount for mount in namespace.mounts if mount.access is not Access.DISABLED]
    for mount in sorted(mounts, key=lambda one: one.path):
        yield from _above(mount)
        yield from _walk(Place(mount.path, root_of(mount), mount))
    for alias, targets in sorted(namespace.binds.items()):
        for target in targets:
            place = _at(namespace, parts(target))
            if place is not None:
                yield from _walk(Place(alias, place.node, place.mount, place.parameters))


def root_of(mount: Mount) -> Node:
    """The table of a mount's service; a bare directory for a service that has none."""
    return mount.service.root if isinstance(mount.service, Tree) else Folder(mount.about)


def _above(mount: Mount) -> Iterator[Place]:
    """Directories that are there because something is mounted below them."""
    names = parts(mount.path)
    for length in range(1, len(names)):
        yield Place(join(names[:length]), Folder("What is mounted below."))
        yield Place(join((*names[:length], README)), _own("what is in this directory"))


def _walk(place: Place) -> Iterator[Place]:
    yield place
    node = place.node
    if isinstance(node, File):
        return
    if README not in node.files:
        yield Place(f"{place.template}/{README}", _own("what is in this directory"), place.mount, place.parameters)
    for name, child in node.files.items():
        yield from _walk(Place(f"{place.template}/{name}", child, place.mount, place.parameters))
    if node.find is not None and len(place.parameters) < _DEEPEST:
        parameter = _parameter(node, place.parameters)
        template = f"{place.template}/{{{parameter.name}}}"
        yield from _walk(Place(template, _sample(node), place.mount, (*place.parameters, parameter)))


def _parameter(folder: Folder, taken: tuple[Parameter, ...]) -> Parameter:
    """`<job id>/` is `job_id`; a name that stands further up already gets a number."""
    name = _WORD.sub("_", folder.pattern.lower()).strip("_") or "name"
    used = {one.name for one in taken} | {"agent"}
    number = next(n for n in range(1, len(used) + 2) if (name if n == 1 else f"{name}_{n}") not in used)
    return Parameter(name if number == 1 else f"{name}_{number}", folder.pattern_about)


def _sample(folder: Folder) -> Node:
    if folder.sample is not None:
        return folder.sample()
    return Folder(folder.pattern_about) if folder.found_are_folders else File(folder.pattern_about, read=_nothing)


def _at(namespace: Namespace, path: Path) -> Place | None:
    """What stands at a path without parameters."""
    for mount in sorted(namespace.mounts, key=lambda one: -len(one.path)):
        names = parts(mount.path)
        if path[: len(names)] != names:
            continue
        node: Node | None = root_of(mount)
        for name in path[len(names) :]:
            node = node.files.get(name) if isinstance(node, Folder) else None
        return None if node is None else Place(join(path), node, mount)
    return None


def _own(about: str) -> File:
    return File(about, read=_nothing, gives={"type": "string"})


async def _nothing(session: Session) -> bytes:
    """Stands for reading where only a description is wanted."""
    return b""
