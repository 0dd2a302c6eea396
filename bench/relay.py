"""The embedded relay at work: latency, ingest, queries, fan-out. `python -m bench.relay [--events N]`.

The relay runs in a process of its own and syncs every group to the disk before its OKs (synchronous=FULL). The
client writes frames that were signed, masked and joined beforehand, so that it costs little of the machine they share.
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from relays.event import Draft, Event
from relays.key import Key

ROOT = Path(__file__).resolve().parent.parent
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(text: bytes) -> bytes:
    """A client's frame; a mask of zeros is a mask."""
    size = len(text)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


def signed(count: int, kind: int = 1) -> list[Event]:
    """Events of about 0.75 KB with three tags, by twenty authors."""
    keys = [Key.generate() for _ in range(20)]
    start = int(time.time()) - count
    return [
        keys[n % 20].sign(
            Draft(
                kind,
                f"{n} " + "x" * 250,
                (("t", f"topic {n % 50}"), ("p", keys[n * 7 % 20].pubkey), ("e", str(n % 10) * 64)),
                start + n,
            )
        )
        for n in range(count)
    ]


def offer(event: Event) -> bytes:
    return masked(f'["EVENT",{event.to_json()}]'.encode())


class Client(asyncio.Protocol):
    """Splits what arrives into messages and gives each to `heard`."""

    def __init__(self) -> None:
        self.heard: Callable[[bytes], None] = lambda _message: None
        self._left = b""
        self._upgraded = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        if not self._upgraded.is_set():
            data = data.partition(b"\r\n\r\n")[2]
            self._upgraded.set()
        at, end = 0, len(data)
        while end - at >= 2:
            size, head = data[at + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if end - at < head:
                    break
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if end - at < head + size:
                break
            self.heard(data[at + head : at + head + size])
            at += head + size
        self._left = data[at:]

    async def wait_for(self, start: bytes) -> float:
        """When the next message that begins so was read."""
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def heard(message: bytes) -> None:
            if not found.done() and message.startswith(start):
                found.set_result(time.perf_counter())

        self.heard = heard
        return await found

    @classmethod
    async def connect(cls, url: str) -> "Client":
        host, _, port = url.removeprefix("ws://").partition(":")
        _, client = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        await client._upgraded.wait()
        return client


async def latency(url: str, events: list[Event], floor: Callable[[], float]) -> dict[str, float]:
    """One event at a time, 100 a second: publish → OK and publish → receive, in ms, with the disk's part beside it."""
    publisher, listener = await Client.connect(url), await Client.connect(url)
    listener.transport.write(masked(b'["REQ","live",{"limit":0}]'))
    await listener.wait_for(b'["EOSE"')
    ok_ms, seen_ms, floor_ms = [], [], []
    for event in events:
        floor_ms.append(floor())
        acknowledged = asyncio.create_task(publisher.wait_for(b'["OK"'))
        received = asyncio.create_task(listener.wait_for(b'["EVENT"'))
        await asyncio.sleep(0.01)
        started = time.perf_counter()
        publisher.transport.write(offer(event))
        ok_ms.append(1e3 * (await acknowledged - started))
        seen_ms.append(1e3 * (await received - started))
    publisher.transport.close()
    listener.transport.close()
    timed = {"ok": ok_ms, "receive": seen_ms, "bare_commit": floor_ms}
    cuts = [(name, statistics.quantiles(values, n=100)) for name, values in timed.items()]
    return {f"{name}_{label}_ms": round(q[at], 2) for name, q in cuts for label, at in (("p50", 49), ("p99", 98))}


def bare_commit(home: Path) -> Callable[[], float]:
    """What the disk takes for one synced row, in ms: the part of a latency that is not the relay's."""
    db = sqlite3.connect(home / "floor.db", isolation_level=None)
    for setting in ("journal_mode=WAL", "synchronous=FULL"):
        db.execute(f"PRAGMA {setting}")
    db.execute("CREATE TABLE floor(text TEXT)")

    def once() -> float:
        started = time.perf_counter()
        db.execute("INSERT INTO floor VALUES(?)", ("x" * 750,))
        return 1e3 * (time.perf_counter() - started)

    return once


async def ingest(url: str, events: list[Event], in_flight: int = 256) -> float:
    """Events a second on one connection with so many unanswered."""
    client, frames = await Client.connect(url), [offer(event) for event in events]
    answered, done = 0, asyncio.Event()

    def heard(message: bytes) -> None:
        nonlocal answered
        assert b",true," in message, message
        answered += 1
        sent = answered + in_flight - 1
        if sent < len(frames):
            client.transport.write(frames[sent])
        if answered == len(frames):
            done.set()

    client.heard = heard
    started = time.perf_counter()
    client.transport.write(b"".join(frames[:in_flight]))
    await done.wait()
    client.transport.close()
    return len(frames) / (time.perf_counter() - started)


async def query(url: str, wanted: str, times: int = 100) -> float:
    """REQ → EOSE, p50 in ms."""
    client, spent = await Client.connect(url), []
    for _ in range(times):
        started = time.perf_counter()
        client.transport.write(masked(f'["REQ","q",{wanted}]'.encode()))
        await client.wait_for(b'["EOSE"')
        spent.append(1e3 * (time.perf_counter() - started))
    client.transport.close()
    return round(statistics.median(spent), 2)


async def fan_out(url: str, events: list[Event], listeners: int = 100) -> float:
    """Deliveries a second."""
    clients = [await Client.connect(url) for _ in range(listeners)]
    left, done = len(events) * listeners, asyncio.Event()
    for client in clients:
        client.transport.write(masked(b'["REQ","live",{"limit":0}]'))
        await client.wait_for(b'["EOSE"')

    def heard(_message: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    for client in clients:
        client.heard = heard
    total, started = left, time.perf_counter()
    publishing = asyncio.create_task(ingest(url, events))
    await done.wait()
    spent = time.perf_counter() - started
    await publishing
    for client in clients:
        client.transport.close()
    return total / spent


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, count: int, home: Path) -> dict[str, object]:
    report: dict[str, object] = {"durability": "fsync before OK", "events": count}
    report.update(await latency(url, signed(300, 7), bare_commit(home)))
    before = processor_s(pid)
    rates = [await ingest(url, signed(count)) for _ in range(3)]
    report["ingest_per_s"] = round(statistics.median(rates))
    report["relay_us_per_event"] = round(1e6 * (processor_s(pid) - before) / count / 3)
    shapes = (
        '{"limit":100}',
        '{"kinds":[1],"limit":100}',
        '{"#t":["topic 3"],"limit":100}',
        '{"#e":["' + "7" * 64 + '"]}',
    )
    report["query_p50_ms"] = {wanted[:20]: await query(url, wanted) for wanted in shapes}
    report["deliveries_per_s"] = round(await fan_out(url, signed(1_000, 9)))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vendo-bench-") as home:
        argv = [sys.executable, "-m", "cli.relay", "--home", home, "--port", "0"]
        child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            url = json.loads(child.stdout.readline())["url"]
            print(json.dumps(asyncio.run(measure(url, child.pid, given.events, Path(home))), indent=2))
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(10)


if __name__ == "__main__":
    main()
