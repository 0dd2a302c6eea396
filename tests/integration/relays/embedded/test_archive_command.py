"""`vendo relay export` and `vendo relay import`, as a person runs them."""

import json
import subprocess
import sys

import aiohttp
import pytest

from tests.integration.relays.embedded.relay_part import ROOT, Child, Wire
from tests.unit.relays.embedded.event_part import NOW, note

OK, USAGE, DATA, UNAVAILABLE, TEMPORARY = 0, 64, 65, 69, 75


def vendo(*argv, given=None):
    command = [sys.executable, "-m", "cli.main", "relay", *argv]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def events():
    return [note(content=f"n {number}", at=NOW + number) for number in range(25)]


async def fill(url, events):
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        wire = Wire(ws)
        assert (await wire.hear())[0] == "AUTH"  # the challenge that every connection gets
        for event in events:
            assert (await wire.publish(event))[0]


async def test_a_running_relay_is_exported_and_the_file_fills_another(tmp_path, events):
    home, copy, file = tmp_path / "home", tmp_path / "copy", tmp_path / "events.jsonl"
    child = Child(home)
    try:
        await fill(child.url, events)
        said = vendo("export", str(file), "--home", str(home), "--json")
        assert (said.returncode, json.loads(said.stdout)) == (OK, {"events": 25, "file": str(file)})
        busy = vendo("import", str(file), "--home", str(home), "--json")
        assert busy.returncode == TEMPORARY, busy
        assert json.loads(busy.stdout)["error"]["code"] == "relay.in_use"
    finally:
        assert child.end() == 0
    assert file.stat().st_mode & 0o077 == 0, "private messages are in it"
    assert file.read_text().splitlines() == [event.to_json() for event in events]
    said = vendo("import", str(file), "--home", str(copy), "--json")
    assert (said.returncode, json.loads(said.stdout)["stored"]) == (OK, 25)
    again = vendo("import", "-", "--home", str(copy), given=file.read_text())
    assert (again.returncode, again.stdout) == (OK, "25 lines: 0 stored, 25 known already, 0 refused\n")
    whole = vendo("export", "-", "--home", str(copy))
    assert whole.stdout == file.read_text()


def test_lines_that_are_no_events_are_named_and_the_others_stored(tmp_path, events):
    given = "\n".join(["junk", events[0].to_json(), events[1].to_json().replace("n 1", "n 2")])
    said = vendo("import", "-", "--home", str(tmp_path), given=given)
    assert said.returncode == DATA
    assert said.stdout.startswith("3 lines: 1 stored, 0 known already, 2 refused")
    assert "line 1: invalid: The line is not JSON." in said.stderr
    assert "line 3: " in said.stderr


def test_an_export_of_nothing_is_an_error_and_leaves_no_file(tmp_path):
    file = tmp_path / "events.jsonl"
    said = vendo("export", str(file), "--home", str(tmp_path / "none"))
    assert said.returncode == UNAVAILABLE
    assert "relay.file" in said.stderr
    assert not file.exists()
