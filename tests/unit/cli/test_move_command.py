"""`vendo agent export`: whether an agent is let go on after a failure depends on whether its archive is there."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from cli.client import Client
from cli.command import move

NAME = "ab" * 16


class Node:
    """Answers as a node does that has written the archive, and remembers what it was asked."""

    def __init__(self, before: str = "active") -> None:
        self.calls: list[str] = []
        self._before = before

    def call(self, path: str, body: Any = None, *, key: str | None = None) -> dict[str, Any]:
        self.calls.append(path.rsplit("/", 1)[1])
        return {
            "transfer": NAME, "frozen": True, "before": self._before, "rows": {}, "left_out": [], "open_jobs": 0,
        }  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / move.TRANSFER).mkdir()
    (tmp_path / move.TRANSFER / NAME).write_bytes(b"the archive")
    return tmp_path


def _disk_fails_at(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if kind(os.fstat(handle).st_mode):
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def _export(monkeypatch: pytest.MonkeyPatch, home: Path, node: Node) -> None:
    monkeypatch.setattr(Client, "open", lambda home: node)
    move.export("tea", home / "tea.vendo", home, json_mode=True)


def test_an_export_that_fails_before_its_file_has_its_name_lets_the_agent_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node()
    _disk_fails_at(monkeypatch, stat.S_ISREG)
    with pytest.raises(OSError, match="Input/output"):
        _export(monkeypatch, home, node)
    assert node.calls == ["export", "thaw"]
    assert not (home / "tea.vendo").exists()


def test_an_export_that_fails_when_its_file_has_its_name_leaves_the_agent_frozen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could go on here and wherever the file is taken."""
    node = Node()
    _disk_fails_at(monkeypatch, stat.S_ISDIR)
    with pytest.raises(OSError, match="Input/output"):
        _export(monkeypatch, home, node)
    assert node.calls == ["export"]
    assert (home / "tea.vendo").read_bytes() == b"the archive"


def test_a_file_that_was_there_before_is_not_taken_for_the_archive(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "tea.vendo").write_bytes(b"of last week")
    node = Node()
    _disk_fails_at(monkeypatch, stat.S_ISREG)
    with pytest.raises(OSError, match="Input/output"):
        _export(monkeypatch, home, node)
    assert node.calls == ["export", "thaw"]


def test_one_that_was_frozen_before_stays_so_whatever_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node("frozen")
    _disk_fails_at(monkeypatch, stat.S_ISREG)
    with pytest.raises(OSError, match="Input/output"):
        _export(monkeypatch, home, node)
    assert node.calls == ["export"]
