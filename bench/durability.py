"""What a run left on the disk, read from outside while the processes still run, and what one fsync costs here."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from bench.load import percentile

PROMISE = "node.db and the relay's event file are SQLite in WAL mode with synchronous=FULL: fsync before every OK."


def database(what: str, path: Path, jobs: int, tables: tuple[str, ...]) -> dict[str, Any]:
    """How many rows a database holds after so many jobs."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        journal = db.execute("PRAGMA journal_mode").fetchone()[0]
        rows = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    return {"what": what, "file": path.name, "journal": journal, "jobs": jobs, "rows": rows}


async def stats(control: str, token: str) -> dict[str, int]:
    """What a node's storage counted: groups are commits with an fsync, units are what callers asked for."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    async with aiohttp.ClientSession() as http, http.get(f"{control}/agents/node/status", headers=headers) as answer:
        answer.raise_for_status()
        counted = (await answer.json()).get("storage", {})
    return {name: value for name, value in counted.items() if isinstance(value, int)}


def filesystem(path: Path) -> str:
    """The type of the file system that holds a path; an fsync on tmpfs would be worth nothing."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind, *_ = line.split()
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def probe(folder: Path, times: int = 60) -> tuple[float, float]:
    """p50 and p99 of one 4 KiB append with fsync, in milliseconds."""
    took = []
    handle = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            begun = time.perf_counter()
            os.write(handle, b"\0" * 4096)
            os.fsync(handle)
            took.append((time.perf_counter() - begun) * 1e3)
    finally:
        os.close(handle)
    return percentile(took, 0.5), percentile(took, 0.99)
