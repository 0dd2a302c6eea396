"""The control plane: small reads beside a bare handler, a thousand that watch one stream, a very long directory.

The node is the real one with an agent; who asks is another process. The floor of a read is a bare aiohttp handler with
the same bytes behind the same check of the token (`bench/http_floor.py`). What a stream costs is the processor time
of the whole node while it writes the records durably too, and beside it that of writing them alone.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.http_node import AGENT, MANY
from bench.process import Child, ChildFailed, Children
from bench.target import Section, Target, ratio
from node import home as homes

FILES = (f"/agents/{AGENT}/identity/npub", f"/agents/{AGENT}/goals/g")
CONNECTIONS = {1: 3_000, 64: 6_000}  # and how many requests
NODE, FLOOR = "node", "bare handler"
WATCHERS, HZ, WINDOW_S, STALL_S, ALONE_S = 1_000, 100, 8.0, 25.0, 5.0
CRAMMED_S = 60.0
Say = Callable[[str], None]


class Ground:
    """A node with one agent and one goal, and how to ask it."""

    def __init__(self, folder: Path, children: Children, node: Child, token: str) -> None:
        self.folder, self.children, self.node, self.token = folder, children, node, token
        self.url = str(node.said["control"])
        self.port = int(self.url.rsplit(":", 1)[1])

    def http(self) -> aiohttp.ClientSession:
        """A client with the operator's token."""
        return aiohttp.ClientSession(self.url, headers={"Authorization": f"Bearer {self.token}"})

    async def tell(self, child: Child, line: str) -> None:
        """A line to a child."""
        assert child.process.stdin is not None
        child.process.stdin.write(line.encode() + b"\n")
        await child.process.stdin.drain()


async def _answer(child: Child, within: float) -> dict[str, Any]:
    assert child.process.stdout is not None
    try:
        line = await asyncio.wait_for(child.process.stdout.readline(), within)
        return dict(json.loads(line))
    except (TimeoutError, json.JSONDecodeError) as error:
        raise ChildFailed(f"{child.name} said nothing: {child.tail()}") from error


@asynccontextmanager
async def _ground(folder: Path, most: int) -> AsyncIterator[Ground]:
    home = folder / "home"
    homes.create(home, relays=["ws://127.0.0.1:9"], mints=[], port=0, name="bench")
    async with Children(folder, most) as children:
        node = await children.start("node", "bench.http_node", str(home))
        ground = Ground(folder, children, node, homes.read_token(home))
        async with ground.http() as http:
            made = await http.post("/agents/node/agents/new", json={"name": AGENT})
            goal = await http.put(FILES[1], json={"description": "answer quickly", "priority": 3})
            if made.status >= 300 or goal.status >= 300:
                raise ChildFailed(f"no agent ({made.status}) or goal ({goal.status}): {await goal.text()}")
        yield ground


# ---- small reads


async def _read(ground: Ground, server: Child, path: str, connections: int) -> dict[str, Any]:
    requests = CONNECTIONS[connections]
    port = server.said.get("port", ground.port)
    reader = await ground.children.start(
        f"reader-{time.monotonic_ns()}", "bench.http_reader", str(port), ground.token, path, str(connections),
        str(requests),
    )  # fmt: skip
    begun = server.cpu_s()
    await ground.tell(reader, "go")
    report = await _answer(reader, CRAMMED_S)
    report["cpu_us"] = 1e6 * (server.cpu_s() - begun) / requests
    await reader.process.wait()
    return report


async def _files(ground: Ground) -> Path:
    """What the floor is to answer: the node's own bytes."""
    found = {}
    async with ground.http() as http:
        for path in FILES:
            async with http.get(path) as answer:
                found[path] = {"type": answer.content_type, "body": await answer.text()}
    place = ground.folder / "files.json"
    place.write_text(json.dumps(found), encoding="utf-8")
    return place


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Node and floor in turn, for each file and number of connections."""
    runs: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    async with _ground(folder, 2 + rounds * len(FILES) * len(CONNECTIONS) * 2) as ground:
        place = await _files(ground)
        floor = await ground.children.start("floor", "bench.http_floor", ground.token, str(place))
        for turn in range(rounds):
            for path in FILES:
                for connections in CONNECTIONS:
                    say(f"{path} over {connections}, round {turn + 1}")
                    order = ((NODE, ground.node), (FLOOR, floor))
                    for name, server in order if turn % 2 else order[::-1]:
                        report = await _read(ground, server, path, connections)
                        runs.setdefault((path, connections, name), []).append(report)
    return [_section(runs)]


def _section(runs: dict[tuple[str, int, str], list[dict[str, Any]]]) -> Section:
    section = Section("Small reads over HTTP, medians of the rounds")
    for (path, connections, name), ones in runs.items():
        middle = {what: statistics.median(one[what] for one in ones) for what in ("rate", "p50_ms", "p99_ms", "cpu_us")}
        section.rows.append(
            {
                "file": path, "connections": connections, "server": name, "requests/s": middle["rate"],
                "p50 ms": middle["p50_ms"], "p99 ms": middle["p99_ms"], "CPU µs/request": middle["cpu_us"],
            }
        )  # fmt: skip

    def over(path: str, connections: int, what: str) -> float | None:
        pairs = zip(runs[path, connections, NODE], runs[path, connections, FLOOR], strict=True)
        return ratio(statistics.median(node[what] / floor[what] for node, floor in pairs), 1.0)

    for path in FILES:
        for connections in CONNECTIONS:
            where = f"{path}, {connections} connection{'s' if connections > 1 else ''}"
            rate, slow = over(path, connections, "rate"), over(path, connections, "p99_ms")
            section.targets.append(Target(f"requests/s / bare handler: {where}", 0.6, rate))
            section.targets.append(Target(f"p99 / bare handler's: {where}", 3, slow, at_least=False))
    return section


# ---- a stream with many watchers


async def _window(ground: Ground, crowd: Child, line: str, seconds: float) -> dict[str, Any]:
    begun, cpu = time.monotonic(), ground.node.cpu_s()
    await ground.tell(crowd, line)
    await asyncio.sleep(seconds)
    used = (ground.node.cpu_s() - cpu) / (time.monotonic() - begun)
    return {**await _answer(crowd, CRAMMED_S), "core": used, "seconds": seconds}


async def run_sse(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Records alone, then with a thousand watchers, then with one of them stalled."""
    path = f"/agents/{AGENT}/logs/trace"
    async with _ground(folder, 3) as ground:
        await ground.tell(ground.node, f"say {HZ}")
        await asyncio.sleep(1.0)
        begun, cpu = time.monotonic(), ground.node.cpu_s()
        await asyncio.sleep(ALONE_S)
        alone = (ground.node.cpu_s() - cpu) / (time.monotonic() - begun)
        async with ground.http() as http, http.get(path, params={"watch": "0"}) as answer:
            await answer.read()
        before = ground.node.rss_mb()
        say(f"{WATCHERS:,} watchers")
        crowd = await ground.children.start(
            "crowd", "bench.http_crowd", str(ground.port), ground.token, path, str(WATCHERS), start_s=CRAMMED_S
        )
        await asyncio.sleep(2.0)
        windows = []
        for turn in range(rounds):
            say(f"{WINDOW_S:.0f} s, round {turn + 1}")
            windows.append(await _window(ground, crowd, f"measure {WINDOW_S}", WINDOW_S))
        each = (ground.node.rss_mb() - before) * 1024 / WATCHERS
        say(f"{STALL_S:.0f} s beside a reader that takes nothing")
        stalled = await _window(ground, crowd, f"stall {STALL_S}", STALL_S)
        after = ground.node.rss_mb()
        await ground.tell(ground.node, "quiet")
    return [_streams(windows, stalled, alone, each, (before, after))]


def _streams(
    windows: list[dict[str, Any]], stalled: dict[str, Any], alone: float, each: float, rss: tuple[float, float]
) -> Section:
    section = Section(f"{WATCHERS:,} watchers (server-sent events) of one agent's trace at {HZ} records/s")
    for name, one in [*((f"round {at + 1}", one) for at, one in enumerate(windows)), ("one more, stalled", stalled)]:
        section.rows.append(
            {
                "window": name, "records to watchers": one["records"], "a second": one["records"] / one["seconds"],
                "writes a second": one["pieces"] / one["seconds"], "missing or twice": one["wrong"],
                "p50 ms": one["p50_ms"], "p99 ms": one["p99_ms"], "% of a core": 100 * one["core"],
            }
        )  # fmt: skip
    p99 = statistics.median(one["p99_ms"] for one in windows)
    wrong = sum(one["wrong"] + one["lost"] for one in windows) + stalled["wrong"]
    core = round(100 * statistics.median(one["core"] for one in windows), 1)
    delivered = min(one["records"] / one["seconds"] / WATCHERS / HZ for one in windows)
    is_cut = '"too_slow"' in stalled["end"] and stalled["whole"]
    section.targets = [
        Target("records that came late by their number, or twice", 0, wrong, at_least=False, unit=""),
        Target("records to each watcher a second / those written", 0.97, round(delivered, 3)),
        Target("made → read, p99", 250, round(p99, 1), at_least=False, unit=" ms"),
        Target("the node's processor time, writing included", 40, core, at_least=False, unit=" % of a core"),
        Target("resident memory for each watcher", 24, round(each, 1), at_least=False, unit=" KiB"),
        Target("the stalled reader is cut off with a marker, whole up to there", 1, float(is_cut), unit=""),
        Target("p99 beside it", 250, round(stalled["p99_ms"], 1), at_least=False, unit=" ms"),
    ]
    section.notes.append(f"writing the records alone takes {100 * alone:.1f} % of a core")
    section.notes.append(f"MiB: {rss[0]:.1f} before, {rss[1]:.1f} at the end; the stalled one had {stalled['had']}")
    return section


# ---- a long directory


async def _listed(ground: Ground, count: int, accept: str) -> tuple[int, float, float]:
    """Entries, seconds, and by how many MiB the node grew meanwhile."""
    before, most, entries, begun = ground.node.rss_mb(), 0.0, 0, time.perf_counter()
    seen = 0
    mark = b"entry-"
    async with ground.http() as http, http.get(f"/agents/node/many-{count}/", headers={"Accept": accept}) as answer:
        if answer.status != 200:
            raise ChildFailed(f"the listing answered {answer.status}: {await answer.text()}")
        rest = b""
        async for piece in answer.content.iter_chunked(1 << 16):
            data = rest + piece
            entries += data.count(mark)
            rest = data[-(len(mark) - 1) :]
            seen += 1
            if seen % 8 == 0:
                most = max(most, ground.node.rss_mb())
    most = max(most, ground.node.rss_mb())
    return entries, time.perf_counter() - begun, most - before


async def run_listing(rounds: int, folder: Path, say: Say) -> list[Section]:
    """A directory of a hundred thousand entries, as JSON, JSON Lines and text."""
    section = Section(f"A listing of {MANY:,} entries")
    grew: list[float] = []
    short = 0
    async with _ground(folder, 1) as ground:
        for accept in ("application/json", "application/x-ndjson", "text/plain"):
            await _listed(ground, 100, accept)
            runs = []
            for turn in range(rounds):
                say(f"{accept}, round {turn + 1}")
                runs.append(await _listed(ground, MANY, accept))
            short += sum(entries != MANY for entries, _, _ in runs)
            grew.append(max(mb for _, _, mb in runs))
            section.rows.append(
                {
                    "form": accept, "entries": runs[0][0], "seconds": statistics.median(one[1] for one in runs),
                    "MiB more, the worst": grew[-1],
                }
            )  # fmt: skip
    section.targets = [
        Target("the node grows while it is listed", 8, round(max(grew), 2), at_least=False, unit=" MiB"),
        Target("listings that were not whole", 0, short, at_least=False, unit=""),
    ]
    return [section]
