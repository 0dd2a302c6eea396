"""Entries of new folders are safe on the disk before anything says that they are there."""

import os
from collections.abc import Iterable
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """The entries of one folder.

    Raises:
        OSError: the disk did not take them.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """The entries of a folder and of all folders in it.

    Raises:
        OSError: the disk did not take them.
    """
    for folder, _, _ in os.walk(root, topdown=False):
        sync_folder(Path(folder))


def sync_above(paths: Iterable[Path], top: Path) -> None:
    """The entries that lead to these paths, up to the folder `top`, in which they are.

    Raises:
        OSError: the disk did not take them.
    """
    above = {folder for path in paths for folder in path.parents if folder == top or top in folder.parents}
    for folder in sorted(above, key=lambda one: len(one.parts), reverse=True):
        sync_folder(folder)
