"""The archive's own format, and everything that a hostile one can be."""

import gzip
import io
import tarfile
import tracemalloc

import pytest

from node.backup.archive import BLOCK, MAX_PARTS, Pack, Source, fits, is_plain
from node.backup.error import BackupDamaged, BackupMoved, BackupRoom, BackupUnsafe

ROOM = 1 << 20


def packed(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    pack = Pack(out)
    for name, body in parts.items():
        pack.add(name, len(body), (body,))
    pack.close()
    return out.getvalue()


def read(raw: bytes, room: int = ROOM) -> dict[str, bytes]:
    return {part.name: b"".join(part.pieces()) for part in Source(io.BytesIO(raw), room).parts()}


def member(name: str = "a", body: bytes = b"", **columns) -> bytes:
    """One member with whatever its header says."""
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for column, value in columns.items():
        setattr(info, column, value)
    form = columns.get("form", tarfile.USTAR_FORMAT)
    return info.tobuf(form, "utf-8", "surrogateescape") + body + bytes(-len(body) % BLOCK)


def archive(*members: bytes, end: bytes = bytes(2 * BLOCK), after: bytes = b"") -> bytes:
    return gzip.compress(b"".join(members) + end + after)


def test_what_was_packed_comes_out_again():
    parts = {"a": b"", "b/c": b"x" * 511, "b/d": b"y" * 512, "e": bytes(range(256)) * 9, "ünïcode/ŋame": b"1"}
    assert read(packed(parts)) == parts


def test_any_tar_reads_it():
    with tarfile.open(fileobj=io.BytesIO(packed({"b/c": b"12"})), mode="r:gz") as tar:
        assert tar.getnames() == ["b/c"]
        assert tar.getmember("b/c").mode == 0o600


def test_a_name_of_250_bytes_fits_and_a_longer_one_does_not():
    good = "/".join(["x" * 49] * 5)
    assert len(good) == 249
    assert fits(good, 1)
    assert read(packed({good: b"1"})) == {good: b"1"}
    assert not fits(good + "xx", 1)
    assert not fits("a", 1 << 33)
    assert not fits("x" * 200, 1), "this form keeps at most 100 bytes behind the last slash"


def test_a_part_that_changes_while_it_is_written_is_noticed():
    for pieces in ([b"12"], [b"12", b"34"]):
        with pytest.raises(BackupMoved):
            Pack(io.BytesIO()).add("a", 3, pieces)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "a/../../b",
        "a/..",
        "..",
        ".",
        "./a",
        "a//b",
        "a/",
        "",
        "a\\b",
        "a\nb",
        "a\0b",
        "\x7f",
        "a/./b",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name):
    assert not is_plain(name)
    with pytest.raises(BackupUnsafe):
        read(archive(member(name.replace("\0", "\1"))))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
        tarfile.CONTTYPE, tarfile.AREGTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE, tarfile.XGLTYPE, b"Z",
    ],
)  # fmt: skip
def test_anything_but_a_regular_file_is_refused(kind):
    with pytest.raises(BackupUnsafe):
        read(archive(member("a", b"x", type=kind, linkname="b")))
    with pytest.raises(BackupUnsafe):
        read(archive(member("a", b"x", type=kind)))


def test_a_regular_file_that_names_a_link_is_refused():
    with pytest.raises(BackupUnsafe):
        read(archive(member("a", b"x", linkname="/etc/passwd")))


def test_other_forms_of_tar_are_refused():
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=form) as tar:
            info = tarfile.TarInfo("x" * 300)
            tar.addfile(info)
        with pytest.raises(BackupUnsafe):
            read(out.getvalue())


def test_a_part_that_is_there_twice_is_refused():
    with pytest.raises(BackupUnsafe, match="twice"):
        read(archive(member("a", b"1"), member("a", b"2")))


def test_a_header_that_was_changed_is_refused():
    header = bytearray(member("a", b"x" * 10))
    header[3] ^= 1
    with pytest.raises(BackupDamaged):
        read(archive(bytes(header)))


def test_a_size_that_is_negative_or_huge_is_refused():
    for size in (-1, 1 << 62, (1 << 33)):
        info = tarfile.TarInfo("a")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")  # its base-256 numbers
        fixed = bytearray(header)
        fixed[257:265] = b"ustar\x0000"
        fixed[148:156] = b"        "
        fixed[148:156] = b"%06o\0 " % sum(fixed)
        with pytest.raises(BackupUnsafe):
            read(archive(bytes(fixed)))


def test_a_size_beyond_the_end_is_refused():
    info = tarfile.TarInfo("a")
    info.size = 5_000
    with pytest.raises(BackupDamaged, match="cut off"):
        read(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"x" * 100))


def test_a_cut_off_archive_is_refused_wherever_it_was_cut():
    raw = packed({"a": b"1" * 700, "b": b"2" * 300})
    for length in range(len(raw)):
        with pytest.raises(BackupDamaged):
            read(raw[:length])


def test_changed_bytes_are_refused_wherever_they_are():
    raw = packed({"a": bytes(range(256)) * 3, "b": b"2" * 300})
    whole, noticed = read(raw), 0
    for place in range(10, len(raw)):  # before it are gzip's own notes: time, system
        changed = bytearray(raw)
        changed[place] ^= 0x10
        try:  # a bit of gzip's that says nothing may change nothing
            assert read(bytes(changed)) == whole, place
        except (BackupDamaged, BackupUnsafe):
            noticed += 1
    assert noticed > 0.95 * (len(raw) - 10)


def test_something_behind_the_end_is_refused():
    body = member("a", b"1")
    for raw in (
        archive(body, after=b"more" + bytes(508)),
        archive(body, after=member("b", b"2")),
        archive(body) + b"garbage",
        archive(body) + gzip.compress(b"more"),
        archive(body, end=bytes(BLOCK) + b"\1" + bytes(BLOCK - 1)),
    ):
        with pytest.raises((BackupDamaged, BackupUnsafe)):
            read(raw)


def test_something_behind_a_part_is_refused():
    info = tarfile.TarInfo("a")
    info.size = 1
    with pytest.raises(BackupUnsafe, match="belongs to nothing"):
        read(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"x" * BLOCK + bytes(2 * BLOCK)))


def test_a_bomb_ends_where_the_room_does_and_takes_no_memory():
    out = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, out) as bomb:
        info = tarfile.TarInfo("a")
        info.size = (1 << 33) - 1
        bomb.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(256):
            bomb.write(bytes(1 << 20))
    raw = out.getvalue()
    assert len(raw) < 1 << 19
    tracemalloc.start()
    with pytest.raises(BackupRoom):
        [part.skip() for part in Source(io.BytesIO(raw), 100 << 20).parts()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_part_is_read_whole_only_if_it_is_small_enough():
    for part in Source(io.BytesIO(packed({"a": b"x" * 100})), ROOM).parts():
        with pytest.raises(BackupUnsafe):
            part.read(99)


def test_too_many_parts_are_refused(monkeypatch):
    monkeypatch.setattr("node.backup.archive.MAX_PARTS", 3)
    assert MAX_PARTS > 3
    read(packed(dict.fromkeys("abc", b"")))
    with pytest.raises(BackupUnsafe):
        read(packed(dict.fromkeys("abcd", b"")))


@pytest.mark.parametrize(
    "raw",
    [b"", b"not gzip", gzip.compress(b"", mtime=0), gzip.compress(b"x" * 600, mtime=0), b"\x1f\x8b", b"PK\3\4" * 99],
)
def test_what_is_no_archive_is_refused(raw):
    with pytest.raises((BackupDamaged, BackupUnsafe)):
        read(raw)
