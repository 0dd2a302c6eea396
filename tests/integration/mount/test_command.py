"""`vendo mount` itself: where it mounts, how it ends, what it says when it cannot."""

import errno
import json
import re
import signal
from pathlib import Path

import pytest

from cli.main import run
from cli.mount.refusal import _BY_CODE, _BY_STATUS
from tests.conftest import ROOT
from tests.integration.mount.mount_part import Ground


def is_mounted(place: Path) -> bool:
    return str(place) in Path("/proc/self/mounts").read_text()


def test_one_agents_files_stand_right_in_the_directory_and_a_signal_unmounts(ground: Ground) -> None:
    place = ground.scratch / "one"
    place.mkdir()
    with ground.mounted(place, "--agent", "a") as process:
        assert (place / "desk/note").read_text() == "first\n"
        assert ground.sh("echo '{\"kind\": 1}' > $S/one/desk/new").code == 0
        assert not (place / "agents").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not is_mounted(place)
    assert len(ground.desk.jobs) == 1


def test_nothing_in_it_is_a_program_or_open_to_others(ground: Ground) -> None:
    (line,) = [one for one in Path("/proc/self/mounts").read_text().splitlines() if str(ground.place) in one]
    assert re.match(rf"vendo {ground.place} fuse.vendo \S*nosuid,nodev,noexec", line)
    assert "allow_other" not in line


def test_what_cannot_be_mounted_is_said_in_one_error(
    ground: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    for home, place, options, code in (
        (ground.home, tmp_path / "none", (), "input.invalid"),
        (ground.home, tmp_path / "full", (), "input.invalid"),
        (tmp_path / "home", tmp_path / "empty", (), "cli.not_running"),
        (ground.home, tmp_path / "empty", ("--agent", "nobody"), "not_found"),
    ):
        assert run(["mount", str(place), "--home", str(home), "--json", *options]) != 0
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert not is_mounted(tmp_path / "empty")


def test_every_errno_that_the_node_can_cause_is_on_the_page() -> None:
    page = (ROOT / "docs/how-to/mount-the-tree.md").read_text()
    named = set(re.findall(r"`(E[A-Z]+)`", page))
    rare = {"ENOSPC", "ENOTSUP", "EOPNOTSUPP", "ETIMEDOUT"}
    caused = {errno.errorcode[one] for one in (*_BY_CODE.values(), *_BY_STATUS.values())}
    assert caused - rare | {"EHOSTDOWN", "EIO"} == named
