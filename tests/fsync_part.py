"""Counts and breaks what SQLite asks of the disk, with nothing but Python.

A shim VFS is put in front of SQLite's own: files are opened by the real one, and then get a copy of its table of
methods in which `xSync`, `xWrite` and `xShmMap` pass through here. It is registered with the very library that the
`sqlite3` module has loaded. xSync is one fdatasync in SQLite's unix VFS; power loss itself cannot be tried.
"""

import contextlib
import ctypes
import functools
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAIN, WAL = "main", "wal"
_ROLES = {0x100: MAIN, 0x80000: WAL}  # SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_WAL
_IO_METHODS_BYTES = 8 + 18 * 8  # iVersion and the 18 methods of version 3
_X_WRITE, _X_SYNC, _X_SHM_MAP = 8 + 2 * 8, 8 + 4 * 8, 8 + 12 * 8

_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_SHM_MAP = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)
)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("app_data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 14),
    ]


def _library() -> ctypes.CDLL:
    """The SQLite that `sqlite3` itself uses, whether it is a library of its own or built into Python."""
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    likely = sorted(path for path in mapped if "sqlite" in path or "libpython" in path)
    for path in [*likely, sys.executable]:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            library.sqlite3_libversion.restype = ctypes.c_char_p
            library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
            if library.sqlite3_libversion().decode() == sqlite3.sqlite_version:
                return library
    raise RuntimeError("SQLite's own functions are hidden in this build of Python")


class Disk:
    """What was asked of the disk since it was made.

    `syncs` and `writes` count by role of the file. `checkpoints` counts the runs of writes to the database itself: one
    for each checkpoint that had something to do, also where a reader kept it from its end and so from a last sync.
    While `failing_sync`, `failing_write` or `failing_map` (of the shared memory beside a file) holds one of SQLite's
    error codes, that request is refused with it for files of the
    role `failing`, once `sparing` more of them went well. A write that fails is `short` if half of it is stored all the
    same, as a disk does that fills up in the middle of it. Every sync takes `slow_s` seconds longer.
    """

    def __init__(self) -> None:
        self.syncs: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.checkpoints = 0
        self._copying = False
        self.refused = 0
        self.failing = WAL
        self.failing_sync = self.failing_write = self.failing_map = self.sparing = 0
        self.short = False
        self.slow_s = 0.0
        self._library = _library()
        self._real = self._library.sqlite3_vfs_find(None)
        self._roles: dict[int, str] = {}
        self._tables: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._shim = _Vfs()
        ctypes.memmove(ctypes.byref(self._shim), self._real, ctypes.sizeof(_Vfs))
        self._name = ctypes.create_string_buffer(b"vendo-test")
        self._shim.name = ctypes.cast(self._name, ctypes.c_char_p)
        self._open = _OPEN(self._on_open)
        self._real_open = _OPEN(self._real.contents.open)
        self._shim.open = ctypes.cast(self._open, ctypes.c_void_p)
        self._shim.next = None

    def register(self) -> None:
        """Files opened from now on pass through here."""
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._shim), 1) == 0

    def unregister(self) -> None:
        """New files go to SQLite's own VFS again; open ones keep passing through here."""
        assert self._library.sqlite3_vfs_register(self._real, 1) == 0
        assert self._library.sqlite3_vfs_unregister(ctypes.byref(self._shim)) == 0

    def heal(self) -> None:
        """Nothing fails any more."""
        self.failing_sync = self.failing_write = self.failing_map = self.sparing = 0
        self.short = False

    def _fails(self, code: int, file: int) -> int:
        """The code with which a request is refused, 0 if it is not."""
        if not code or self._roles.get(file, "other") != self.failing:
            return 0
        if self.sparing:
            self.sparing -= 1
            return 0
        self.refused += 1
        return code

    def _on_open(self, vfs: int, name: int, file: int, flags: int, out: Any) -> int:
        code = self._real_open(vfs, name, file, flags, out)
        methods = ctypes.c_void_p.from_address(file)
        if code == 0 and methods.value:
            self._roles[file] = next((role for bit, role in _ROLES.items() if flags & bit), "other")
            methods.value = ctypes.addressof(self._table(methods.value))
        return int(code)

    def _table(self, real: int) -> Any:
        table = self._tables.get(real)
        if table is None:
            table = self._tables[real] = ctypes.create_string_buffer(ctypes.string_at(real, _IO_METHODS_BYTES))
            for offset, kind, on in (
                (_X_SYNC, _SYNC, self._on_sync),
                (_X_WRITE, _WRITE, self._on_write),
                (_X_SHM_MAP, _SHM_MAP, self._on_map),
            ):
                there = ctypes.c_void_p.from_address(real + offset).value
                if there:  # a file in memory has no xShmMap
                    ours = kind(functools.partial(on, kind(there)))
                    self._kept.append(ours)
                    address = ctypes.cast(ours, ctypes.c_void_p).value
                    ctypes.c_void_p.from_address(ctypes.addressof(table) + offset).value = address
        return table

    def _on_sync(self, real: Any, file: int, flags: int) -> int:
        refused = self._fails(self.failing_sync, file)
        if refused:
            return refused
        if self.slow_s:
            time.sleep(self.slow_s)
        code = int(real(file, flags))
        self.syncs[self._roles.get(file, "other")] += code == 0
        self._copying = False  # SQLite syncs the log before each checkpoint, and the database after a whole one
        return code

    def _on_write(self, real: Any, file: int, data: int, count: int, offset: int) -> int:
        refused = self._fails(self.failing_write, file)
        if refused:
            if self.short and count > 1:
                real(file, data, count // 2, offset)
            return refused
        role = self._roles.get(file, "other")
        self.writes[role] += 1
        if role == MAIN and not self._copying:
            self.checkpoints += 1
            self._copying = True
        return int(real(file, data, count, offset))

    def _on_map(self, real: Any, file: int, page: int, size: int, extend: int, out: Any) -> int:
        return self._fails(self.failing_map, file) or int(real(file, page, size, extend, out))


_ALL: list[Disk] = []  # connections may outlive a test, and then still call into these


@contextlib.contextmanager
def watched_disk() -> Iterator[Disk]:
    """Everything that SQLite opens inside passes through the disk that is given."""
    disk = Disk()
    _ALL.append(disk)
    disk.register()
    try:
        yield disk
    finally:
        disk.heal()
        disk.unregister()
