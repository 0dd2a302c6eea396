"""What is said to be there is there after a power cut: not only files, also the entries that lead to them."""

import os
from pathlib import Path

import pytest

from node.backup.durable import sync_above, sync_tree


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of which the disk was asked, in that order."""
    found: list[Path] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        found.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_every_folder_of_a_tree_is_synced_the_inner_ones_first(tmp_path: Path, synced: list[Path]) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "d").mkdir()
    sync_tree(tmp_path / "a")
    assert set(synced) == {tmp_path / "a", *(tmp_path / "a" / name for name in ("b", "b/c", "d"))}
    assert synced.index(tmp_path / "a" / "b" / "c") < synced.index(tmp_path / "a" / "b") < synced.index(tmp_path / "a")


def test_all_folders_that_lead_to_a_path_are_synced_and_none_above_the_top(tmp_path: Path, synced: list[Path]) -> None:
    home = tmp_path / "home"
    (home / "files" / "in" / "tea").mkdir(parents=True)
    sync_above([home / "files" / "in" / "tea" / "x", home / "agents.py"], home)
    assert synced == [home / "files" / "in" / "tea", home / "files" / "in", home / "files", home]
