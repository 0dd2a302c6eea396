"""Commands under their warden: real processes, which are counted when they should be gone."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.agent.outside.child import MAX_LINES, Child, Ended, Said
from node.agent.outside.error import CommandFailed

PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
IGNORES = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.05; done"


@asynccontextmanager
async def child(argv: Sequence[str], folder: Path, grace: float = 0.2) -> AsyncIterator[Child]:
    made = await Child.start(argv, folder, PATH)
    try:
        yield made
    finally:
        await made.end(grace)


async def run(argv: Sequence[str], folder: Path, words: bytes = b"") -> tuple[Ended, list[str]]:
    """How it ended, and its lines."""
    lines: list[str] = []
    async with child(argv, folder) as made:
        ended = await made.talk(words, lines.append)
    ended.said.flush()
    return ended, lines


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def alive(mark: str) -> list[int]:
    """Processes with this word in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                raw = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in raw:
                found.append(int(folder.name))
    return found


async def gone(mark: str) -> None:
    async with asyncio.timeout(60):
        while alive(mark):
            await asyncio.sleep(0.02)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return f"vendo-test-{os.getpid()}-{time.monotonic_ns()}"


async def test_a_command_gets_its_words_and_says_its_own(tmp_path: Path) -> None:
    ended, lines = await run(sh("cat; echo; pwd; echo wrong >&2; exit 3"), tmp_path, b"hello")
    assert ended.code == 3
    assert lines == ["hello", str(tmp_path)]
    assert ended.last == str(tmp_path).encode()
    assert ended.complained == "wrong\n"


async def test_arguments_are_no_shell_words_and_the_environment_is_clean(tmp_path: Path) -> None:
    ended, lines = await run(["/usr/bin/env"], tmp_path)
    assert set(lines) == {f"{name}={value}" for name, value in PATH.items()}
    ended, lines = await run(["/bin/echo", "$(id)", "; exit 9"], tmp_path)
    assert (ended.code, lines) == (0, ["$(id) ; exit 9"])


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["/no/such/thing"], 127, "No such file"),
        (["/etc/passwd"], 126, "Permission denied"),
        (sh("kill -9 $$"), 137, ""),
    ],
)
async def test_what_cannot_start_or_is_killed_ends_as_a_shell_would_say(
    tmp_path: Path, argv: list[str], code: int, why: str
) -> None:
    ended, _ = await run(argv, tmp_path)
    assert ended.code == code
    assert why in ended.complained


async def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed):
        await run(sh("exit 0"), tmp_path / "missing")


async def test_what_it_has_started_dies_with_it_even_outside_of_its_group(tmp_path: Path, mark: str) -> None:
    script = f"setsid sh -c 'sleep 99; : {mark}' >/dev/null 2>&1 & sh -c 'sleep 98; : {mark}' & exit 0"
    ended, _ = await run(sh(script), tmp_path)
    assert ended.code == 0
    await gone(mark)


async def test_a_command_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, mark: str) -> None:
    made = await Child.start(sh(f": {mark}; (trap '' TERM; sleep 97; : {mark}) & {IGNORES}"), tmp_path, PATH)
    assert alive(mark)
    begun = time.monotonic()
    await made.end(0.3)
    assert time.monotonic() - begun < 8
    await gone(mark)


async def test_a_command_that_heeds_sigterm_ends_with_grace(tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; : > {tmp_path}/up; while :; do sleep 0.02; done"
    made = await Child.start(sh(script), tmp_path, PATH)
    talking = asyncio.create_task(made.talk(b"", print))
    async with asyncio.timeout(60):
        while not (tmp_path / "up").exists():
            await asyncio.sleep(0.01)
    talking.cancel()
    await asyncio.wait([talking])
    await made.end(30)
    assert (tmp_path / "bye").read_text() == "bye\n"


async def test_a_hundred_megabytes_are_not_taken(tmp_path: Path, mark: str) -> None:
    async with child(sh(f": {mark}; yes | head -c 100000000"), tmp_path) as made:
        with pytest.raises(CommandFailed, match="more than 8 MiB"):
            await made.talk(b"", print)
    async with child(sh(f": {mark}; yes | head -c 100000000 >&2"), tmp_path) as made:
        with pytest.raises(CommandFailed, match="8 MiB"):
            await made.talk(b"", print)
    await gone(mark)


async def test_a_line_without_an_end_is_not_taken(tmp_path: Path) -> None:
    async with child(sh("head -c 3000000 /dev/zero | tr '\\0' x"), tmp_path) as made:
        with pytest.raises(CommandFailed, match="a line"):
            await made.talk(b"", print)


@given(count=st.integers(0, 400), cuts=st.lists(st.integers(0, 3_000), max_size=20), end=st.sampled_from([b"", b"\n"]))
def test_lines_are_the_same_in_whatever_pieces_they_come(count: int, cuts: list[int], end: bytes) -> None:
    words = b"\n".join(b"line %d" % number for number in range(count)) + end
    heard: list[str] = []
    said, places = Said(heard.append), sorted({0, *(cut for cut in cuts if cut < len(words)), len(words)})
    for begin, stop in pairwise(places):
        said.feed(words[begin:stop])
    said.end()
    assert said.last == (b"line %d" % (count - 1) if count else b"")
    said.flush()
    more = [f"({count - MAX_LINES} more lines)"] if count > MAX_LINES else []
    assert heard == [f"line {number}" for number in range(min(count, MAX_LINES))] + more


async def test_of_many_lines_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    ended, lines = await run(sh("seq 1 5000"), tmp_path)
    assert (len(lines), ended.last) == (MAX_LINES + 1, b"5000")
    assert lines[:2] + lines[-2:] == ["1", "2", "100", "(4900 more lines)"]


async def test_one_that_reads_nothing_or_closes_its_pipes_or_ends_at_once_is_no_trouble(tmp_path: Path) -> None:
    words = b"x" * 1_000_000
    assert (await run(sh("exit 0"), tmp_path, words))[0].code == 0
    assert (await run(sh("exec <&-; echo done"), tmp_path, words))[1] == ["done"]
    ended, lines = await run(sh("echo one; exec >&- 2>&-; sleep 0.2; exit 4"), tmp_path, words)
    assert (ended.code, lines) == (4, ["one"])


async def test_a_node_that_is_killed_leaves_no_process_behind(tmp_path: Path, mark: str) -> None:
    script = f": {mark}; setsid sh -c 'sleep 96; : {mark}' & {IGNORES}"
    source = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from node.agent.outside.child import Child\n"
        "async def main():\n"
        f"    await Child.start(['/bin/sh', '-c', {script!r}], Path({str(tmp_path)!r}), {PATH!r})\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert node.stdout is not None
    async with asyncio.timeout(60):
        assert await node.stdout.readline() == b"up\n"
        while len(alive(mark)) < 3:  # the warden, the command, and what it put into a session of its own
            await asyncio.sleep(0.02)
    node.kill()
    await node.wait()
    await gone(mark)
