"""Handles: what is written takes effect once and whole, what is read stays as it was, a call takes one record."""

import os
from collections.abc import AsyncIterator

import pytest

from core.error import InvalidInput, VendoError
from fs.error import AccessDenied, BadPath, BodyTooLarge, HandleClosed, IsDirectory, NoSuchFile, Unsupported
from fs.handle import Open, Seen, open_file
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record
from fs.session import Role, Session
from fs.tree import File, Folder, Tree
from tests.shelf_part import MOST, Keep

AGENT = Session("agent:a", Role.AGENT)
READ, WRITE, CALL = Open.READ, Open.WRITE, Open.CALL


class Desk:
    """A service whose calls and streams can be counted."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.left = 0

    async def call(self, body: bytes, session: Session) -> bytes:
        self.calls.append(body)
        if body == b"bad":
            raise InvalidInput("no")
        return b"<" + body + b">"

    async def watch(self, session: Session, after: int | None) -> AsyncIterator[Record]:
        try:
            for number in range((after or 0) + 1, 4):
                yield Record(number, str(number).encode(), "n")
        finally:
            self.left += 1

    def tree(self) -> Tree:
        return Tree(Folder("d", {"new": File("c", call=self.call, max_bytes=8), "log": File("l", watch=self.watch)}))


def space(keep: Keep | None = None, desk: Desk | None = None, access: Access = Access.WRITE) -> Namespace:
    return Namespace(
        [Mount("/keep", keep or Keep(), access), Mount("/desk", (desk or Desk()).tree(), Access.WRITE, "", frozenset())]
    )


async def test_what_is_written_takes_effect_at_close_and_once() -> None:
    keep = Keep()
    async with await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE | Open.CREATE) as handle:
        assert await handle.write(b"ab") == 2
        await handle.write(b"cd")
        assert ("f",) not in keep.files
    assert keep.files["f",] == b"abcd"
    await handle.close()
    with pytest.raises(HandleClosed):
        await handle.write(b"more")


async def test_a_handle_that_is_left_by_an_error_or_aborted_changes_nothing() -> None:
    keep = Keep()
    with pytest.raises(ZeroDivisionError):
        await _half(space(keep))
    other = await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE | Open.CREATE)
    await other.write(b"x")
    await other.abort()
    await other.close()
    assert ("f",) not in keep.files


async def _half(files: Namespace) -> None:
    async with await open_file(Seen(files, AGENT), "/keep/f", WRITE | Open.CREATE) as handle:
        await handle.write(b"half of")
        raise ZeroDivisionError


async def test_opening_to_write_or_truncate_alone_changes_nothing() -> None:
    keep = Keep()
    keep.files["f",] = b"old"
    for flags in (WRITE, WRITE | Open.TRUNCATE, READ | WRITE):
        async with await open_file(Seen(space(keep), AGENT), "/keep/f", flags):
            pass
    assert keep.files["f",] == b"old"


async def test_a_flush_makes_it_so_and_a_second_one_without_a_write_does_nothing() -> None:
    keep = Keep()
    handle = await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE | Open.CREATE)
    await handle.write(b"one")
    await handle.flush()
    assert keep.files["f",] == b"one"
    keep.files["f",] = b"somebody else's"
    await handle.flush()
    await handle.close()
    assert keep.files["f",] == b"somebody else's"


async def test_without_truncate_the_rest_stays_and_append_goes_to_the_end() -> None:
    keep = Keep()
    keep.files["f",] = b"0123456789"
    async with await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE) as handle:
        handle.seek(2)
        await handle.write(b"xx")
    assert keep.files["f",] == b"01xx456789"
    async with await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE | Open.APPEND) as handle:
        handle.seek(0)
        await handle.write(b"!")
    assert keep.files["f",] == b"01xx456789!"
    async with await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE | Open.TRUNCATE) as handle:
        handle.seek(2)
        await handle.write(b"z")
    assert keep.files["f",] == b"\0\0z"


async def test_a_reader_keeps_what_it_saw_when_it_was_opened() -> None:
    keep = Keep()
    keep.files["f",] = b"hello world"
    async with await open_file(Seen(space(keep), AGENT), "/keep/f", READ) as handle:
        assert await handle.read(5) == b"hello"
        keep.files["f",] = b"changed"
        assert handle.tell() == 5
        assert await handle.read() == b" world"
        assert await handle.read() == b""
        assert handle.seek(-5, os.SEEK_END) == 6
        assert handle.seek(1, os.SEEK_CUR) == 7
        assert await handle.read(2) == b"or"
        for offset, whence in ((-1, os.SEEK_SET), (-99, os.SEEK_CUR), (0, 7)):
            with pytest.raises(BadPath):
                handle.seek(offset, whence)
        with pytest.raises(HandleClosed):
            await handle.write(b"x")


async def test_a_call_is_made_once_by_the_first_read_or_flush_and_its_answer_can_be_read_again() -> None:
    desk = Desk()
    async with await open_file(Seen(space(desk=desk), AGENT), "/desk/new", READ | WRITE) as handle:
        await handle.write(b"a")
        await handle.write(b"b")
        with pytest.raises(Unsupported):
            handle.seek(0)
        assert desk.calls == []
        assert await handle.read(2) == b"<a"
        assert await handle.read() == b"b>"
        await handle.flush()
        handle.seek(0)
        assert await handle.read() == b"<ab>"
        with pytest.raises(HandleClosed):
            await handle.write(b"again")
    assert desk.calls == [b"ab"]


async def test_a_call_opened_for_writing_alone_is_made_at_close_and_an_empty_one_only_if_it_is_read() -> None:
    desk = Desk()
    async with await open_file(Seen(space(desk=desk), AGENT), "/desk/new", WRITE) as handle:
        await handle.write(b"x")
    async with await open_file(Seen(space(desk=desk), AGENT), "/desk/new", WRITE):
        pass
    assert desk.calls == [b"x"]
    async with await open_file(Seen(space(desk=desk), AGENT), "/desk/new", CALL) as handle:
        assert await handle.read() == b"<>"
    assert desk.calls == [b"x", b""]


async def test_a_refused_call_or_write_is_told_where_it_is_flushed_and_not_tried_again() -> None:
    desk = Desk()
    handle = await open_file(Seen(space(desk=desk), AGENT), "/desk/new", WRITE)
    await handle.write(b"bad")
    with pytest.raises(InvalidInput):
        await handle.flush()
    await handle.close()
    assert desk.calls == [b"bad"]
    with pytest.raises(BodyTooLarge):
        async with await open_file(Seen(space(desk=desk), AGENT), "/desk/new", WRITE) as other:
            await other.write(b"123456789")
    assert desk.calls == [b"bad"]
    keep = Keep()
    keep.files["f",] = b""
    with pytest.raises(BodyTooLarge):
        async with await open_file(Seen(space(keep), AGENT), "/keep/f", WRITE) as other:
            await other.write(b"x" * (MOST + 1))
    assert keep.files["f",] == b""


async def test_a_stream_is_read_record_by_record_and_let_go_at_close() -> None:
    desk = Desk()
    async with await open_file(Seen(space(desk=desk), AGENT), "/desk/log", READ) as handle:
        assert await handle.read() == b"1\n"
        assert await handle.read(1) == b"2"
        assert await handle.read(9) == b"\n"
        with pytest.raises(Unsupported):
            handle.seek(0)
        assert await handle.read() == b"3\n"
        assert await handle.read() == b""
    early = await open_file(Seen(space(desk=desk), AGENT), "/desk/log", READ)
    assert await early.read() == b"1\n"
    await early.close()
    assert desk.left == 2


@pytest.mark.parametrize(
    ("path", "flags", "error"),
    [
        ("/keep/none", READ, NoSuchFile),
        ("/keep/none", WRITE, NoSuchFile),
        ("/keep/none", READ | Open.CREATE, NoSuchFile),
        ("/keep", READ, IsDirectory),
        ("/keep/d", WRITE, IsDirectory),
        ("/keep/d", CALL, IsDirectory),
        ("/desk/new", READ, Unsupported),
        ("/desk/log", WRITE, Unsupported),
        ("/desk/log", CALL, Unsupported),
        ("/keep/../keep/f", READ, BadPath),
        ("/keep/f", Open(0), HandleClosed),
        ("/keep/f", Open.APPEND, HandleClosed),
    ],
)
async def test_what_a_file_cannot_do_is_refused_when_it_is_opened(
    path: str, flags: Open, error: type[VendoError]
) -> None:
    keep = Keep()
    keep.files |= {("f",): b"", ("d",): None}
    with pytest.raises(error):
        await open_file(Seen(space(keep), AGENT), path, flags)


async def test_the_mount_judges_when_a_file_is_opened_and_not_only_when_it_is_closed() -> None:
    keep = Keep()
    keep.files["f",] = b"x"
    files = space(keep, access=Access.READ)
    assert await (await open_file(Seen(files, AGENT), "/keep/f", READ)).read() == b"x"
    for flags, path in ((WRITE, "/keep/f"), (WRITE | Open.CREATE, "/keep/g"), (CALL, "/keep/f")):
        with pytest.raises(AccessDenied):
            await open_file(Seen(files, AGENT), path, flags)
