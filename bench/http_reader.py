"""Small reads from a process of its own: `python -m bench.http_reader PORT TOKEN PATH CONNECTIONS REQUESTS`.

Every connection asks again as soon as it has its answer. It prints `{"ready"}`, waits for a line, and prints one JSON
object. It knows no more of HTTP than where an answer ends, so that it takes little of the machine.
"""

import asyncio
import json
import re
import sys
import time

from bench.target import quantile

WARM = 200
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)


class Reader(asyncio.Protocol):
    """One connection."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._got = bytearray()
        self._whole = 0  # how long an answer is; they are all alike
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._whole:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._got, 0, end + 2)
            if found is None or not self._got.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(bytes(self._got[:200]))
            self._whole = end + 4 + int(found[1])
        if len(self._got) < self._whole:
            return
        if len(self._got) > self._whole or not self._got.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(bytes(self._got[:200]))
        self._got.clear()
        self._crowd.answered(self, time.perf_counter() - self._asked)

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost()


class Crowd:
    """All connections, and what is left to ask."""

    def __init__(self, request: bytes, requests: int) -> None:
        self.request, self._left, self._running = request, requests, 0
        self.took: list[float] = []
        self.done = asyncio.get_running_loop().create_future()

    def begin(self, readers: list[Reader], requests: int) -> None:
        self._left, self.took, self.done = requests, [], asyncio.get_running_loop().create_future()
        self._running = len(readers)
        for reader in readers:
            self._next(reader)

    def answered(self, reader: Reader, seconds: float) -> None:
        self.took.append(seconds)
        self._next(reader)

    def lost(self) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("a connection was closed"))

    def _next(self, reader: Reader) -> None:
        if self._left:
            self._left -= 1
            reader.ask()
            return
        self._running -= 1
        if not self._running and not self.done.done():
            self.done.set_result(None)


async def main(port: int, token: str, path: str, connections: int, requests: int) -> None:
    """Warm up, wait for the word, measure."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n"
    loop = asyncio.get_running_loop()
    crowd = Crowd(head.encode(), requests)
    readers = [(await loop.create_connection(lambda: Reader(crowd), "127.0.0.1", port))[1] for _ in range(connections)]
    crowd.begin(readers, WARM + connections)
    await crowd.done
    print(json.dumps({"ready": True}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    begun = time.perf_counter()
    crowd.begin(readers, requests)
    await crowd.done
    seconds = time.perf_counter() - begun
    took = crowd.took
    report = {"rate": requests / seconds, "p50_ms": 1e3 * quantile(took, 0.5), "p99_ms": 1e3 * quantile(took, 0.99)}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
