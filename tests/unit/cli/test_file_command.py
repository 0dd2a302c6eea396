"""`vendo ls`, `tree`, `cat`, `write`, `rm`, `mkdir`, `mv` over a control plane whose files can be changed."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cli.client import Client
from cli.main import run
from cli.output import ExitCode
from tests.unit.cli.node_part import serving
from tests.unit.cli.shelf_part import Shelf


@asynccontextmanager
async def shelf(home: Path, **more: int) -> AsyncIterator[Shelf]:
    one = Shelf({("note",): b"plain\n"}, **more)
    async with serving(home, one.tree()):
        yield one


async def vendo(home: Path, *words: str) -> int:
    return await asyncio.to_thread(run, [*words, "--home", str(home)])


async def test_files_are_made_moved_and_removed(tmp_path, capsys):
    async with shelf(tmp_path) as one:
        assert await vendo(tmp_path, "mkdir", "/shelf/old", "--key", "k1", "--json") == 0
        assert await vendo(tmp_path, "mv", "/shelf/note", "/shelf/old/note", "--key", "k2", "--json") == 0
        assert one.files == {("old", "note"): b"plain\n"}
        assert await vendo(tmp_path, "rm", "shelf/old/note/", "--key", "k3", "--json") == 0
        assert await vendo(tmp_path, "rm", "/shelf/old", "--key", "k4", "--json") == 0
        assert (one.files, one.folders) == ({}, set())
    assert one.keys == ["k1", "k2", "k3", "k4"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"made": "/shelf/old"},
        {"from": "/shelf/note", "to": "/shelf/old/note"},
        {"removed": "/shelf/old/note"},
        {"removed": "/shelf/old"},
    ]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("rm", "/shelf/nothing"), ExitCode.DATA, "fs.not_found"),
        (("rm", "/shelf"), ExitCode.USAGE, "fs.unsupported"),
        (("mkdir", "/many/x"), ExitCode.USAGE, "fs.unsupported"),
        (("mkdir", "/shelf/note"), ExitCode.TEMPORARY, "fs.exists"),
        (("mv", "/shelf/nothing", "/shelf/x"), ExitCode.DATA, "fs.not_found"),
        (("mv", "/shelf/note", "/shelf/note"), ExitCode.TEMPORARY, "fs.exists"),
        (("write", "/shelf", "x"), ExitCode.USAGE, "fs.is_directory"),
        (("ls", "/shelf/note"), ExitCode.USAGE, "fs.not_directory"),
        (("cat", "/shelf/.."), ExitCode.USAGE, "fs.bad_path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_what_is_not_possible_changes_nothing_and_says_so(tmp_path, capsys, words, code, error):
    async with shelf(tmp_path) as one:
        assert await vendo(tmp_path, *words, "--json") == code
        assert one.files == {("note",): b"plain\n"}
        assert one.folders == set()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == error


class Slow(io.RawIOBase):
    """Standard input that comes in small pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


async def test_standard_input_of_any_length_is_written_and_read_in_pieces(tmp_path, capsys, monkeypatch):
    body = os.urandom(5 << 20)
    stdin = io.TextIOWrapper(
        io.BufferedReader(Slow(iter([body[at : at + 7_000] for at in range(0, len(body), 7_000)])))
    )
    monkeypatch.setattr("sys.stdin", stdin)
    async with shelf(tmp_path) as one:
        assert await vendo(tmp_path, "write", "/shelf/big", "-", "--json") == 0
        assert one.files[("big",)] == body
        assert one.longest < 1 << 20
        assert json.loads(capsys.readouterr().out) == {"written": len(body)}
        pieces = await asyncio.to_thread(lambda: list(Client.open(tmp_path).pieces("/agents/node/shelf/big")))
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= 65_536


async def test_a_body_that_ends_in_an_error_changes_nothing(tmp_path, capsys, monkeypatch):
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(Slow(broken()))))
    async with shelf(tmp_path) as one:
        assert await vendo(tmp_path, "write", "/shelf/note", "-") == ExitCode.USAGE
        await asyncio.sleep(0.1)
        assert one.files == {("note",): b"plain\n"}
    assert "standard input cannot be read" in capsys.readouterr().err


async def test_a_file_is_written_from_a_file_and_one_that_is_not_there_is_named(tmp_path, capsys):
    (tmp_path / "body").write_bytes(b"from a file")
    async with shelf(tmp_path) as one:
        assert await vendo(tmp_path, "write", "/shelf/note", f"@{tmp_path / 'body'}") == 0
        assert one.files[("note",)] == b"from a file"
        capsys.readouterr()
        assert await vendo(tmp_path, "write", "/shelf/note", "@/no/such/file") == ExitCode.USAGE
    assert "key:" not in capsys.readouterr().err


async def test_a_listing_of_any_length_comes_as_it_is_made(tmp_path, capsys):
    async with shelf(tmp_path, entries=20_000):
        rows = Client.open(tmp_path).entries("/agents/node/many")
        assert (await asyncio.to_thread(next, rows))["name"] == "README"
        await asyncio.to_thread(rows.close)
        assert await vendo(tmp_path, "ls", "/many", "--json") == 0
        assert len(json.loads(capsys.readouterr().out)) == 20_001
        assert await vendo(tmp_path, "ls", "/many") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["mode", "name", "about"]
    assert lines[-1].split() == ["-r----", "entry-019999"]
    assert len(lines) == 20_002


async def test_a_tree_is_shown_to_a_depth_and_long_directories_are_cut(tmp_path, capsys):
    async with shelf(tmp_path, entries=50) as one:
        one.folders = {("old",), ("old", "older")}
        one.files[("old", "older", "note")] = b"x"
        assert await vendo(tmp_path, "tree", "/", "--limit", "9", "--json") == 0
        found = {row["path"]: row for row in json.loads(capsys.readouterr().out)}
        assert {"/README", "/shelf", "/shelf/README", "/shelf/note", "/shelf/old", "/shelf/old/older"} <= set(found)
        assert "/shelf/old/older/note" not in found, "that is the fourth level"
        assert found["/many/…"]["more"] is True
        assert sum(path.startswith("/many/entry") for path in found) == 8
        assert await vendo(tmp_path, "tree", "/shelf", "--depth", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["-r----", "/shelf/README"], ["-rw--x", "/shelf/note"], ["d----x", "/shelf/old/"],
    ]  # fmt: skip


_MEASURED = """
import sys
from cli.main import run
code = run(sys.argv[1:])
(most,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(code, most, file=sys.stderr)
"""


def memory(*words: str, body: bytes | None = None) -> int:
    """The most that a command had in memory, in KiB."""
    argv = [sys.executable, "-c", _MEASURED, *words]
    ran = subprocess.run(argv, input=body, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, check=True)
    code, most = ran.stderr.decode().splitlines()[-1].split()
    assert code == "0", ran.stderr
    return int(most)


async def test_what_a_command_carries_is_never_in_memory_at_once(tmp_path):
    async with shelf(tmp_path) as one:
        where = ("--home", str(tmp_path))
        usual = await asyncio.to_thread(memory, "ls", "/many", *where)
        one.entries = 30_000
        one.files[("big",)] = bytes(16 << 20)
        assert await asyncio.to_thread(memory, "ls", "/many", "--json", *where) < usual + 8_192
        assert await asyncio.to_thread(memory, "cat", "/shelf/big", *where) < usual + 8_192
        written = asyncio.to_thread(memory, "write", "/shelf/copy", "-", *where, body=one.files[("big",)])
        assert await written < usual + 8_192
        assert one.files[("copy",)] == one.files[("big",)]


def leave_early(home: Path, *words: str) -> tuple[int, bytes]:
    """Read one line of what a command prints, and go."""
    where = ["--home", str(home)] if words[0] != "--help" else []
    argv = [sys.executable, "-m", "cli.main", *words, *where]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        return process.wait(30), process.stderr.read()


@pytest.mark.parametrize(
    "words", [("ls", "/many"), ("ls", "/many", "--json"), ("cat", "/shelf/big"), ("--help",)], ids=" ".join
)
async def test_whoever_reads_the_output_may_leave(tmp_path, words):
    async with shelf(tmp_path, entries=20_000) as one:
        one.files[("big",)] = b"line\n" * 400_000
        assert await asyncio.to_thread(leave_early, tmp_path, *words) == (0, b"")


def test_a_list_of_a_terminal_s_worth_of_foreign_names_moves_no_cursor(tmp_path, capsys):
    from cli.output import Output

    Output(json_mode=False).stream(("name", "about"), [({}, ("a\x1b[2J", "one\ntwo"))], "")
    assert capsys.readouterr().out == "name   about\na\ufffd[2J  one\\ntwo\n"
