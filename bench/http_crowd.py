"""A crowd that watches one stream, in a process of its own: `python -m bench.http_crowd PORT TOKEN PATH WATCHERS`.

It prints `{"ready"}` when all have their answer's head. Then it takes lines: `measure SECONDS` prints what came in that
time: records to watchers, how late, and whether one was missing or came twice; `stall SECONDS` does the same with one
reader more that takes nothing until then, and tells how that one ended. Every watcher's bytes are looked at; since all
are sent the same pieces, each piece is understood once.
"""

import asyncio
import json
import re
import resource
import socket
import sys
import time

BUCKETS = 20_000  # of 0.1 ms
_EVENT = re.compile(rb'"at": ?([0-9.]+), ?"number": ?(\d+)')
_AFTER_S = 45.0


class Tally:
    """What came in one window."""

    def __init__(self) -> None:
        self.late = [0] * BUCKETS
        self.records = self.wrong = self.pieces = 0

    def quantile(self, part: float) -> float:
        """Milliseconds."""
        left = part * sum(self.late)
        for at, count in enumerate(self.late):
            left -= count
            if left <= 0:
                return at / 10
        return BUCKETS / 10


class Watcher(asyncio.Protocol):
    """One reader."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd, self._rest, self._last, self._has_head = crowd, b"", 0, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        if not self._has_head:
            self._rest += data
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head:
                raise RuntimeError(head)
            self._has_head, self._rest, data = True, b"", rest
            self._crowd.open += 1
        if self._rest:
            data = self._rest + data
        end = data.rfind(b"\n\n") + 2
        self._rest = data[end:] if end > 1 else data
        if end > 1:
            self._take(data if end == len(data) else data[:end])

    def _take(self, data: bytes) -> None:
        tally, now = self._crowd.tally, time.monotonic()
        found = self._crowd.understood(data)
        for at, number in found:
            if self._last and number != self._last + 1:
                tally.wrong += 1
            self._last = number
            tally.late[min(BUCKETS - 1, int((now - at) * 10_000))] += 1
        tally.records += len(found)
        tally.pieces += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost += 1


class Crowd:
    """All readers."""

    def __init__(self, port: int, token: str, path: str) -> None:
        self._port = port
        self.request = (
            f"GET {path}?watch=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Accept: text/event-stream\r\n\r\n"
        ).encode()
        self.tally, self.open, self.lost = Tally(), 0, 0
        self._known: dict[bytes, list[tuple[float, int]]] = {}

    def understood(self, data: bytes) -> list[tuple[float, int]]:
        """When each record was made, and its number."""
        found = self._known.get(data)
        if found is None:
            if len(self._known) > 64:
                self._known.clear()
            found = self._known[data] = [(float(at), int(number)) for at, number in _EVENT.findall(data)]
        return found

    async def gather(self, watchers: int) -> None:
        """Connect them all."""
        loop = asyncio.get_running_loop()
        for number in range(watchers):
            await loop.create_connection(lambda: Watcher(self), "127.0.0.1", self._port)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        while self.open < watchers:
            await asyncio.sleep(0.02)

    async def measure(self, seconds: float) -> dict[str, float]:
        """One window."""
        self.tally = Tally()
        await asyncio.sleep(seconds)
        tally = self.tally
        return {
            "records": tally.records, "wrong": tally.wrong, "pieces": tally.pieces, "lost": self.lost,
            "p50_ms": tally.quantile(0.5), "p99_ms": tally.quantile(0.99),
        }  # fmt: skip

    async def stall(self, seconds: float) -> dict[str, float | str]:
        """The same, with one that takes nothing."""
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plug.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plug, ("127.0.0.1", self._port))
        await loop.sock_sendall(plug, self.request)
        report = await self.measure(seconds)
        data = b""
        try:
            async with asyncio.timeout(_AFTER_S):
                while piece := await loop.sock_recv(plug, 1 << 16):
                    data += piece
        except (TimeoutError, ConnectionError):
            pass
        plug.close()
        numbers = [int(number) for _, number in _EVENT.findall(data)]
        whole = numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False
        end = data.rpartition(b"event: end\ndata: ")[2].split(b"\n")[0].decode("utf-8", "replace")[:80]
        return {**report, "end": end, "had": len(numbers), "whole": whole}


async def main(port: int, token: str, path: str, watchers: int) -> None:
    """Connect, then do as told."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    crowd = Crowd(port, token, path)
    await crowd.gather(watchers)
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, _, seconds = line.strip().partition(" ")
        report = await (crowd.stall if word == "stall" else crowd.measure)(float(seconds))
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
