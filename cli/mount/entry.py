"""What stands at a path of the mount: what can be done with it, and how `ls -l` shows that. Pure."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass

BLOCK = 1 << 20
"""What programs are told to write at once, in bytes: so that cat, cp and stdio hand a record over in one write(2)."""
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory.

    Attributes:
        is_dir: it is listed.
        readable: it has a content.
        writable: its content can be replaced.
        callable: it takes records.
        stream: it is a log, which grows.
        watchable: it can be followed; one that cannot be read, too, is a log all the same.
        size: bytes, 0 where that is not known before it is read.
    """

    is_dir: bool = False
    readable: bool = False
    writable: bool = False
    callable: bool = False
    stream: bool = False
    watchable: bool = False
    size: int = 0

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Entry":
        """Out of the headers that HEAD answers with."""
        allow = {method.strip() for method in (headers.get("Allow") or "").split(",")}
        kind = headers.get("X-File-Type")
        length = headers.get("Content-Length") or "0"
        return cls(
            is_dir=kind == "directory",
            readable="GET" in allow,
            writable="PUT" in allow or (kind == "directory" and "DELETE" in allow),
            callable="POST" in allow and kind != "directory",
            stream=kind == "stream",
            watchable=headers.get("X-File-Watch") == "1",
            size=int(length) if length.isdigit() else 0,
        )

    @property
    def takes_records(self) -> bool:
        """Whether a write is a call."""
        return self.callable and not self.writable

    @property
    def mode(self) -> int:
        """Type and permission bits: the mounting user's alone."""
        if self.is_dir:
            return stat.S_IFDIR | 0o500 | (0o200 if self.writable else 0)
        read, write = self.readable, self.writable or self.callable
        return stat.S_IFREG | (0o400 if read else 0) | (0o200 if write else 0)

    def attributes(self, owner: tuple[int, int], time_ns: int, size: int | None = None) -> dict[str, int]:
        """As stat(2) has them. Every directory has one link, which tells `find` to look for itself."""
        size = self.size if size is None else size
        return {
            "st_mode": self.mode,
            "st_nlink": 1,
            "st_uid": owner[0],
            "st_gid": owner[1],
            "st_size": size,
            "st_blocks": -(-size // _SECTOR),
            "st_blksize": BLOCK,
            "st_atime": time_ns,
            "st_mtime": time_ns,
            "st_ctime": time_ns,
        }


DIRECTORY = Entry(is_dir=True, readable=True)
TEXT = Entry(readable=True)
NEW = Entry(readable=True, writable=True)
