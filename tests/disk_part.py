"""A small file system of its own, for tests of full disks: root may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


@cache
def may_mount() -> bool:
    """Whether a file system can be mounted here."""
    if os.geteuid() != 0:
        return False
    with TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1):
                return True
        except subprocess.CalledProcessError:
            return False


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A folder with so much room and no more."""
    folder.mkdir(exist_ok=True)
    options = f"size={megabytes}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
