"""A listener that keeps what it is asked and answers as a test says: for what no real node would do."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.unit.cli.node_part import write_home


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    key: str | None


# What is sent back, head and all; nothing: the connection is closed without a word.
Answer = Callable[[Asked], bytes]


def answer(body: bytes, media: str = "application/json", *, length: int | None = None) -> bytes:
    """A whole answer; with a length that is not its own it looks cut off."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {size}\r\n\r\n".encode() + body


def events(body: bytes) -> bytes:
    """The beginning of a stream that breaks off."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + (
        f"{len(body):x}\r\n".encode() + body + b"\r\n"
    )


@contextmanager
def listening(home: Path, say: Answer) -> Iterator[list[Asked]]:
    """Everything that a command asks, in order."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            one = Asked(self.command, self.path, self.headers.get("Idempotency-Key"))
            asked.append(one)
            self.wfile.write(say(one))
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_MOVE = do_MKCOL = _any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    write_home(home, f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
