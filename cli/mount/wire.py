"""HTTP to the running node, from many threads: connections are kept, and a node that restarted is found again.

What has an effect carries an idempotency key. Where a connection breaks after it was sent, the same request goes out
once more under the same key; after that nobody knows, and the error is EIO, never a second effect.
"""

import errno
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from cli.client import CONTROL, TOKEN, Client, NotRunning, new_key
from cli.mount.refusal import Refusal, failed
from cli.wire import StreamRecord, records

TIMEOUT_S = 90.0  # for one step of a request: a call may look something up outside
STREAM_IDLE_S = 60.0  # a stream is kept alive every 15 s
_KEPT = 16
_PIECE = 1 << 18
_MOST_ERROR = 1 << 16
_WAITS = 3
_LONGEST_WAIT_S = 2.0
_LOOKS = ("GET", "HEAD")
_REPEATED = (*_LOOKS, "PUT", "POST")  # a second DELETE or MOVE would find nothing, and be refused

Body = bytes | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `target` is encoded."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Body = field(default=None, repr=False)

    @classmethod
    def of(
        cls, method: str, path: str, body: Body = None, query: str = "", headers: Mapping[str, str] | None = None
    ) -> "Ask":
        """A request for a path; one with an effect gets a fresh key.

        Raises:
            OSError: ENOENT, the path is no text, so that nothing can have this name.
        """
        said = dict(headers or {})
        if method not in _LOOKS:
            said["Idempotency-Key"] = new_key()
        try:
            return cls(method, quote(path, safe="/") + query, said, body)
        except UnicodeEncodeError as error:
            raise failed(errno.ENOENT) from error


class Wire:
    """The way to the node of one home.

    Every method raises OSError: EHOSTDOWN if no node runs, EIO if an answer is lost, and `Refusal` if the node says no.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._idle: list[http.client.HTTPConnection] = []
        self._guard = threading.Lock()
        self._token = ""

    # -- requests

    def head(self, path: str) -> Mapping[str, str]:
        """The headers that tell what a file is."""
        with self._answer(Ask.of("HEAD", path)) as response:
            response.read()
            return dict(response.headers)

    def read(self, path: str, query: str = "") -> bytes:
        """A file, whole."""
        with self._answer(Ask.of("GET", path, query=query)) as response:
            return response.read()

    def copy(self, path: str, sink: IO[bytes]) -> int:
        """A file, into another one as it comes; how many bytes."""
        with self._answer(Ask.of("GET", path, query="?watch=0")) as response:
            size = 0
            while piece := response.read(_PIECE):
                size += sink.write(piece)
            if response.length:
                raise failed(errno.EIO)  # it broke off
            return size

    def lines(self, path: str, accept: str) -> Iterator[bytes]:
        """A listing, line by line as it comes."""
        with self._answer(Ask.of("GET", path, headers={"Accept": accept})) as response:
            for line in response:
                yield line.rstrip(b"\r\n")
            response.read()

    def put(self, path: str, body: IO[bytes], size: int) -> None:
        """Replace a file."""
        media = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._answer(Ask.of("PUT", path, body, headers=media)) as response:
            response.read()

    def call(self, path: str, record: bytes) -> bytes:
        """Hand over one record; what is answered."""
        with self._answer(Ask.of("POST", path, record, headers={"Content-Type": "application/json"})) as response:
            return response.read()

    def change(self, method: str, path: str, to: str | None = None) -> None:
        """DELETE, MKCOL, or MOVE (RFC 4918) to another path."""
        more = {} if to is None else {"Destination": quote(to, safe="/")}
        with self._answer(Ask.of(method, path, headers=more)) as response:
            response.read()

    def events(self, path: str, after: int | str | None, idle_s: float = STREAM_IDLE_S) -> "Events":
        """The records of a stream past a cursor, or from now on."""
        query = "?watch=1" + ("" if after is None else f"&after={after}")
        ask = Ask.of("GET", path, query=query, headers={"Accept": "text/event-stream"})
        connection = self._connect()
        held = connection.sock
        try:
            response = _sent(connection, self._with_token(ask))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise failed(errno.EIO) from error
        if response.status >= http.client.BAD_REQUEST:
            body = _rest(response)
            connection.close()
            raise Refusal.read(response.status, body)
        held.settimeout(idle_s)
        return Events(connection, held, response)

    def close(self) -> None:
        """Give up what is kept."""
        with self._guard:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- connections

    @contextmanager
    def _answer(self, ask: Ask) -> Iterator[http.client.HTTPResponse]:
        """An answer that is no error; the connection is kept if all of it was read."""
        connection, response = self._welcome(ask)
        try:
            yield response
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise failed(errno.EIO) from error
        finally:
            if response.isclosed() and not response.will_close:
                self._keep(connection)
            else:
                connection.close()

    def _welcome(self, ask: Ask) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer that is no error; whoever only looks waits a moment if that was too often."""
        for turn in range(_WAITS + 1):
            connection, response = self._exchange(ask)
            if response.status < http.client.BAD_REQUEST:
                return connection, response
            wait = response.headers.get("Retry-After", "1")
            body = _rest(response)
            self._keep(connection) if response.isclosed() and not response.will_close else connection.close()
            if response.status != http.client.TOO_MANY_REQUESTS or ask.method not in _LOOKS or turn == _WAITS:
                break
            time.sleep(min(float(wait) if wait.isdigit() else 1.0, _LONGEST_WAIT_S))
        raise Refusal.read(response.status, body)

    def _exchange(self, ask: Ask) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        lost = False
        for _ in range(2):
            try:
                connection = self._take(fresh=lost or ask.method not in _REPEATED)
            except OSError:
                if lost and ask.method not in _LOOKS:
                    break  # it was sent once, and there is nobody any more who could say what became of it
                raise
            try:
                return connection, _sent(connection, self._with_token(ask))
            except TimeoutError:
                connection.close()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                lost = True
            if ask.method not in _REPEATED:
                break
        raise failed(errno.EIO)

    def _with_token(self, ask: Ask) -> Ask:
        return Ask(ask.method, ask.target, {**ask.headers, "Authorization": f"Bearer {self._token}"}, ask.body)

    def _take(self, *, fresh: bool) -> http.client.HTTPConnection:
        while not fresh:
            with self._guard:
                if not self._idle:
                    break
                connection = self._idle.pop()
            if _is_open(connection):
                return connection
            connection.close()
        return self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        """A new connection to where the node listens now.

        Its pid is looked at first, as for any command: who listens on the port of a dead node does not get the token.
        """
        try:
            Client.open(self._home)
            url = str(json.loads((self._home / CONTROL).read_text(encoding="utf-8"))["url"])
            self._token = (self._home / TOKEN).read_text(encoding="utf-8").strip()
            parts = urlsplit(url)
            connection = http.client.HTTPConnection(
                parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT_S, blocksize=_PIECE
            )
            connection.connect()
        except (NotRunning, OSError, ValueError, KeyError, TypeError) as error:
            raise failed(errno.EHOSTDOWN) from error
        return connection

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._guard:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()


class Events:
    """Records of a stream as they come. `close` may be called by another thread, and ends it."""

    def __init__(
        self, connection: http.client.HTTPConnection, held: socket.socket, response: http.client.HTTPResponse
    ) -> None:
        self._connection, self._socket, self._response = connection, held, response

    def __iter__(self) -> Iterator[StreamRecord]:
        """Until it ends.

        Raises:
            TimeoutError: nothing came for too long.
            OSError: EIO, the connection broke.
        """
        try:
            yield from records(self._response)
        except (http.client.HTTPException, ValueError, AttributeError) as error:  # closed while it was read
            raise failed(errno.EIO) from error

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _sent(connection: http.client.HTTPConnection, ask: Ask) -> http.client.HTTPResponse:
    if ask.body is not None and not isinstance(ask.body, bytes):
        ask.body.seek(0)
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was taken: the answer says why
        connection.request(ask.method, ask.target, body=ask.body, headers=dict(ask.headers))
    return connection.getresponse()


def _rest(response: http.client.HTTPResponse) -> bytes:
    """What an error says."""
    try:
        return response.read(_MOST_ERROR)
    except (OSError, http.client.HTTPException):
        return b""  # the status says enough


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Whether the node has not closed a connection that was kept; it says nothing unasked."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)
