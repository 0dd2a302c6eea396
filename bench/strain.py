"""Free jobs that take long, and free jobs over a line that is cut again and again: none may be lost.

64 customers ask a node whose work takes a second, so that 64 jobs a second is all there is to be had. Then as many ask
the usual node while its way to the relay is cut every three seconds, four times; the customers' own way is whole.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Load, measure
from bench.process import Child, Children
from bench.target import Section, Target
from node import home

CUSTOMERS, SLOW_JOBS, CUT_JOBS = 64, 640, 1_280
MIN_SLOW_PER_S = 60.0
CUTS, CUT_EVERY_S, JOB_LIMIT_S = 4, 3.0, 60.0
SELL = '\n[[sell]]\nkind = 5050\nprice_msat = 0\nprovider = "echo"\nmax_parallel = 256\n'
Say = Callable[[str], None]


@dataclass(slots=True)
class Line:
    """A way to a relay that can be cut."""

    url: str
    cuts: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Every connection that goes over it ends at once."""
        self.cuts += bool(self.open)
        for writer in self.open:
            writer.transport.abort()


@asynccontextmanager
async def line(to: str) -> AsyncIterator[Line]:
    """A way to that relay over this process."""
    host, port = to.removeprefix("ws://").rstrip("/").split(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65_536):
            writer.write(block)
            await writer.drain()

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        ends = {writer, far_writer}
        way.open |= ends
        try:
            both = asyncio.create_task(carry(reader, far_writer)), asyncio.create_task(carry(far_reader, writer))
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        finally:
            way.open -= ends
            for end in ends:
                end.close()

    server = await asyncio.start_server(through, "127.0.0.1", 0)
    way = Line(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        yield way
        way.cut()


async def _cutting(way: Line) -> None:
    while way.cuts < CUTS:
        await asyncio.sleep(CUT_EVERY_S)
        way.cut()


async def _node(children: Children, folder: Path, name: str, relay: str, *argv: str) -> tuple[Child, str]:
    path = folder / name
    home.create(path, relays=[relay], mints=[], port=0, name=name)
    with (path / "config.toml").open("a", encoding="utf-8") as config:
        config.write(SELL)
    child = await children.start(name, *(part.replace("HOME", str(path)) for part in argv))
    return child, str(home.open_keyring(path).node.pubkey)


def _row(name: str, load: Load) -> dict[str, Any]:
    return {
        "jobs": name, "done": load.done, "lost": load.lost, "wrong": load.wrong, "jobs/s": load.jobs_per_s,
        "p50 ms": round(load.p50_ms), "p99 ms": round(load.p99_ms),
    }  # fmt: skip


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Both, once each; `rounds` makes the first no truer."""
    section = Section("Free jobs under strain")
    async with Children(folder) as children:
        relay = str((await children.start("relay", "bench.bare_relay")).said["url"])
        _, seller = await _node(children, folder, "slow", relay, "bench.slow_node", "HOME")
        say("jobs that take a second")
        slow = await measure(relay, seller, CUSTOMERS, SLOW_JOBS, job_timeout=JOB_LIMIT_S)
        async with line(relay) as way:
            _, seller = await _node(children, folder, "cut", way.url, "cli.main", "up", "--home", "HOME")
            say("a line that is cut")
            cutting = asyncio.create_task(_cutting(way))
            try:
                cut = await measure(relay, seller, CUSTOMERS, CUT_JOBS, job_timeout=JOB_LIMIT_S)
            finally:
                cutting.cancel()
                await asyncio.gather(cutting, return_exceptions=True)
    section.rows = [_row("of a second", slow), _row("over a line that is cut", cut)]
    section.notes.append(f"the line was cut {way.cuts} times; {cut.faults or 'no faults'}")
    section.targets = [
        Target("jobs of a second, per second", MIN_SLOW_PER_S, slow.jobs_per_s, unit=""),
        Target("jobs of a second lost", 0, slow.lost + slow.wrong, at_least=False, unit=""),
        Target("jobs lost over a line that is cut", 0, cut.lost + cut.wrong, at_least=False, unit=""),
        Target("cuts", CUTS, way.cuts, unit=""),
    ]
    return [section]
