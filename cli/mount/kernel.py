"""The kernel's side: what must be there for a mount, and the loop that serves it (FUSE, by libfuse 3 and mfusepy)."""

import errno
import importlib
import os
import shutil
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path
from types import ModuleType

from cli.mount.driver import Driver
from cli.mount.error import MountImpossible
from cli.mount.refusal import Refusals
from cli.mount.tree import Tree
from cli.mount.wire import Wire
from core.error import InvalidInput

DEVICE = Path("/dev/fuse")
_LIBRARY = "FUSE_LIBRARY_PATH"  # mfusepy takes an older libfuse, if both are there and this names none
_NAMES_S = 1
_THREADS = 32  # so many programs are served at once; some of them wait for the outside


def check(directory: Path) -> None:
    """Whether something can be mounted there.

    Raises:
        InvalidInput: it is no directory, or not an empty one.
        MountImpossible: an older mount that lost its process is still there, or this machine has no FUSE.
    """
    try:
        if not directory.is_dir():
            raise InvalidInput(f"{directory} is not a directory.", remedy="Make an empty one, and mount there.")
        if any(directory.iterdir()):
            raise InvalidInput(f"{directory} is not empty.", remedy="Make an empty one, and mount there.")
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountImpossible(
                f"In {directory} there is a mount whose process has gone.",
                remedy=f"Take it away: fusermount3 -u {directory}",
            ) from error
        raise InvalidInput(f"{directory} cannot be read: {error.strerror}.") from error
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise MountImpossible(f"{DEVICE} is not there, or not for this user.")
    if os.geteuid() and shutil.which("fusermount3") is None:
        raise MountImpossible("fusermount3 is not installed.")


def library() -> ModuleType:
    """mfusepy, over libfuse 3.

    Raises:
        MountImpossible: one of them is not installed.
    """
    found = os.environ.get(_LIBRARY) or find_library("fuse3")
    if not found:
        raise MountImpossible("libfuse 3 is not installed.")
    os.environ[_LIBRARY] = found
    try:
        return importlib.import_module("mfusepy")
    except ImportError as error:
        raise MountImpossible("mfusepy is not installed.") from error
    except (OSError, AttributeError) as error:  # its words for a library that it cannot use
        raise MountImpossible(f"libfuse cannot be used: {error}.") from error


def serve(
    home: Path, directory: Path, agent: str | None, ready: Callable[[], None], note: Callable[[str], None]
) -> None:
    """Mount, and serve until it is unmounted or a signal ends it.

    Raises:
        InvalidInput, MountImpossible: it cannot be mounted.
    """
    check(directory)
    fuse = library()
    wire, refusals = Wire(home), Refusals()
    place, tree = os.path.realpath(directory), Tree(wire, agent, refusals)
    driver = Driver(place, tree, wire, refusals, ready, note, lambda: int(fuse.fuse_get_context()[2]))
    options = {
        "fsname": "vendo",
        "subtype": "vendo",
        "attr_timeout": 0,
        "entry_timeout": _NAMES_S,
        "negative_timeout": 0,
        "hard_remove": True,
        "max_idle_threads": _THREADS // 2,
        **({"max_threads": _THREADS} if (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12) else {}),
        "nosuid": True,
        "nodev": True,
        "noexec": True,
    }
    try:
        fuse.FUSE(driver, str(directory), raw_fi=True, foreground=True, **options)
    except RuntimeError as error:  # how it says that mounting failed, and also that a signal came
        if not driver.was_ready:
            raise MountImpossible(f"{directory} could not be mounted; the line above says why.") from error
