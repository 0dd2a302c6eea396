"""Streams: cat and grep come to an end, tail -f does not, and nobody is followed whom nobody reads."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.mount.mount_part import Ground, Hill

TRACE = "logs/trace"


class Tail:
    """A running `tail -f`, and what it has shown."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process, self.lines = process, list[str]()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def words(self) -> list[str]:
        return [json.loads(line)["data"] for line in self.lines]


@contextmanager
def tail(ground: Ground, *options: str, path: str = TRACE) -> Iterator[Tail]:
    argv = ["tail", "-s", "0.1", *(options or ("-f",)), str(ground.agent / path)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Tail(process)
    finally:
        process.kill()
        process.wait()


def open_streams(ground: Ground) -> int:
    """How many streams the plane serves; that a reader has gone is noticed by what is written to it."""
    ground.log("tick")
    return ground.plane.control._files._hub.watchers


def test_cat_shows_what_is_there_and_ends(ground: Ground) -> None:
    ground.log("one")
    ground.log("two")
    lines = ground.run("cat", str(ground.agent / TRACE)).out.splitlines()
    assert [json.loads(line)["data"] for line in lines][-2:] == ["one", "two"]
    assert json.loads(ground.run("tail", "-n", "1", str(ground.agent / TRACE)).out)["data"] == "two"
    assert ground.run("grep", "-rc", '"two"', str(ground.agent / TRACE)).code == 0


def test_tail_shows_new_records_as_they_come(ground: Ground) -> None:
    ground.log("old")
    with tail(ground, "-n", "1", "-f") as one:
        ground.until(lambda: one.words() == ["old"], "the past")
        for word in ("new", "newer"):
            ground.log(word)
            ground.until(lambda word=word: one.words()[-1] == word, "the new record")
        assert one.words() == ["old", "new", "newer"]


def test_tail_shows_what_comes_without_the_past(ground: Ground) -> None:
    ground.log("old")
    with tail(ground, "-n", "0", "-f") as one:

        def comes() -> bool:
            ground.log("new")  # again and again: the first ones may come before it has opened the file
            return len(one.lines) > 5

        ground.until(comes, "new records")
        assert set(one.words()) == {"new"}


def test_two_tails_see_the_same_and_a_cat_beside_them_ends(ground: Ground) -> None:
    ground.log("begin")
    with tail(ground, "-n", "1", "-f") as one, tail(ground, "-n", "1", "-F") as two:
        ground.until(lambda: one.lines and two.lines, "the past")
        for number in range(200):
            ground.log(f"word {number}")
        last = "word 199"
        ground.until(lambda: one.words()[-1:] == [last] and two.words()[-1:] == [last], "all of it")
        assert one.words() == two.words() == ["begin", *(f"word {number}" for number in range(200))]
        assert last in ground.run("cat", str(ground.agent / TRACE)).out


def test_the_node_is_followed_only_while_somebody_reads(ground: Ground) -> None:
    ground.run("cat", str(ground.agent / TRACE))
    ground.until(lambda: open_streams(ground) == 0, "cat follows nothing")
    with tail(ground) as one, tail(ground) as two:
        ground.log("both")
        ground.until(lambda: "both" in one.words() and "both" in two.words(), "both see it")
        assert open_streams(ground) == 1
    ground.until(lambda: open_streams(ground) == 0, "nobody reads")


def test_a_tail_goes_on_after_the_node_was_away(ground: Ground) -> None:
    ground.log("before")
    with tail(ground, "-n", "1", "-f") as one:
        ground.until(lambda: one.words() == ["before"], "the past")
        ground.log("with it")
        ground.until(lambda: one.words()[-1] == "with it", "it follows")
        plane = ground.plane
        ground.down()
        ground.log("meanwhile")
        fresh = Hill(unit=plane.unit, feed=plane.feed)
        fresh.desk = plane.desk
        ground.up(fresh)
        ground.log("after")
        ground.until(lambda: one.words()[-1] == "after", "it goes on")
        assert one.words() == ["before", "with it", "meanwhile", "after"]


def test_a_stream_that_can_only_be_watched_is_read_to_its_end(ground: Ground) -> None:
    ground.desk.ticks = ["one", "two"]
    assert ground.sh("cat $D/ticker; grep -c . $D/ticker").out == "one\ntwo\n2\n"
    assert ground.sh("cat $M/agents/a/odd/short").out == "".join(f"line {n}\nof two\n" for n in (1, 2, 3))
    ground.desk.ticks = []
    assert ground.sh("cat $D/ticker").out == ""
