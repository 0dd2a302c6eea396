"""The command's side of the control plane: plain HTTP to the node that runs in a home directory.

A node that was killed leaves its `control.json` behind; its pid tells, so that the token is never sent to whoever
listens on that port now.
"""

import http.client
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cli.alert import alert
from cli.output import NodeRefusal, Problem
from cli.wire import StreamRecord, objects, records
from core.error import Unavailable

# As node.home names them, and a test holds them equal: importing it would cost each command a second.
CONTROL = "control.json"
TOKEN = "token"  # noqa: S105 - the name of a file
_TIMEOUT_S = 90.0
_PIECE = 65_536
_LISTING = "application/x-ndjson, application/json;q=0.9"
_SAFE = ("GET", "HEAD")

Body = bytes | Iterable[bytes]


class NotRunning(Unavailable):
    """No node runs in this home directory."""

    code = "cli.not_running"


class AnswerLost(Unavailable):
    """The node's answer was lost: what was asked may have been done."""

    code = "cli.answer_lost"
    unchanged = ""
    remedy = "Ask again with the same --key: nothing is done twice."


def _read_control(home: Path) -> str:
    remedy = f"Start it: vendo up --home {home}"
    if not home.is_dir():
        raise NotRunning(f"There is no node in {home}.", remedy=f"Make one: vendo init --home {home}")
    try:
        body = json.loads((home / CONTROL).read_text(encoding="utf-8"))
        url, pid = str(body["url"]), int(body["pid"])
        os.kill(pid, 0)
    except FileNotFoundError as error:
        raise NotRunning(f"The node in {home} is not running.", remedy=remedy) from error
    except ProcessLookupError as error:
        raise NotRunning(f"The node in {home} is not running (it ended without a goodbye).", remedy=remedy) from error
    except PermissionError as error:
        raise NotRunning(f"The node in {home} is another user's.", remedy="Run this command as that user.") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise NotRunning(
            f"{home / CONTROL} is damaged.", remedy=f"Start the node again: vendo up --home {home}"
        ) from error
    return url


class Client:
    """Talks to one running node as its operator.

    Every method raises `NotRunning` if the node does not answer, `NodeRefusal` if it answers with an error, and those
    with an effect `AnswerLost` if nobody knows whether it was done.

    Args:
        home: for the words of errors.
        url: where the node listens.
        token: the operator's.
        timeout_s: how long one step of a request may take.
    """

    def __init__(self, home: Path, url: str, token: str, timeout_s: float = _TIMEOUT_S) -> None:
        self._home = home
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._token, self._timeout_s = token, timeout_s

    @classmethod
    def open(cls, home: Path, timeout_s: float = _TIMEOUT_S) -> "Client":
        """The client for the node that runs in a home directory.

        Raises:
            NotRunning: none does, or its token cannot be read.
        """
        url = _read_control(home)
        try:
            token = (home / TOKEN).read_text(encoding="utf-8").strip()
        except OSError as error:
            remedy = f"Run: vendo doctor --home {home}"
            raise NotRunning(f"{home / TOKEN} cannot be read: {error.strerror}.", remedy=remedy) from error
        return cls(home, url, token, timeout_s)

    # -- looking

    def get(self, path: str) -> Any:
        """Read a file that holds JSON (else its text), or list a directory."""
        return _parsed(b"".join(self.pieces(path, "application/json")))

    def list(self, path: str) -> list[dict[str, Any]]:
        """List a directory, also one that can be read as a file."""
        return list(self.entries(path))

    def entries(self, path: str) -> Iterator[dict[str, Any]]:
        """List a directory an entry at a time, as they come: it may have any number of them."""
        return self.objects(path.rstrip("/") + "/")

    def objects(self, path: str) -> Iterator[dict[str, Any]]:
        """The objects of a list that is read, one at a time."""
        try:
            yield from objects(self.pieces(path, _LISTING))
        except ValueError as error:
            raise self._silent("its answer broke off") from error

    def read(self, path: str) -> bytes:
        """Read a file as it is."""
        return b"".join(self.pieces(path))

    def pieces(self, path: str, accept: str = "*/*") -> Iterator[bytes]:
        """Read a file as it is, a piece at a time; of a stream what is there."""
        with closing(self._connect(self._timeout_s)) as connection, alert():
            response = self._send(connection, "GET", f"{_encoded(path)}?watch=0", {"Accept": accept})
            try:
                while piece := response.read(_PIECE):
                    yield piece
            except (OSError, http.client.HTTPException) as error:
                raise self._silent(type(error).__name__) from error
            if response.length:  # a whole number of bytes was promised
                raise self._silent("its answer broke off")

    def watch(self, path: str, after: int | str | None = None, idle_s: float | None = None) -> Iterator[StreamRecord]:
        """Records of a stream (server-sent events) past a cursor, or from now on, until it ends.

        Args:
            path: the stream.
            after: the cursor.
            idle_s: so long may nothing come, not even a keep-alive; None: for ever.

        Raises:
            NotRunning: also when the connection breaks.
        """
        with ExitStack() as stack:
            connection = stack.enter_context(closing(self._connect(idle_s)))
            target = f"{_encoded(path)}?watch=1" + ("" if after is None else f"&after={after}")
            response = self._send(connection, "GET", target, {"Accept": "text/event-stream"})
            return self._followed(response, stack.pop_all())

    def _followed(self, response: http.client.HTTPResponse, stack: ExitStack) -> Iterator[StreamRecord]:
        with stack:
            try:
                yield from records(response)
            except (OSError, http.client.HTTPException) as error:
                raise self._silent(type(error).__name__) from error

    # -- changing

    def put(self, path: str, body: Body, *, key: str | None = None) -> None:
        """Replace a file. What comes in pieces is sent as it comes, and takes effect when all of it is there."""
        self._ask("PUT", path, {"Idempotency-Key": key or new_key()}, body)

    def call(self, path: str, body: Mapping[str, Any] | bytes = b"", *, key: str | None = None) -> Any:
        """Hand one record to a file and read its answer; without a key a fresh one is used."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Idempotency-Key": key or new_key(), "Accept": "application/json"}
        return _parsed(self._ask("POST", path, headers, raw))

    def remove(self, path: str, *, key: str) -> None:
        """Remove a file or a directory."""
        self._ask("DELETE", path, {"Idempotency-Key": key})

    def mkdir(self, path: str, *, key: str) -> None:
        """Make a directory (RFC 4918 §9.3)."""
        self._ask("MKCOL", path, {"Idempotency-Key": key})

    def rename(self, path: str, to: str, *, key: str) -> None:
        """Give a file or directory another path (RFC 4918 §9.9)."""
        self._ask("MOVE", path, {"Idempotency-Key": key, "Destination": _encoded(to)})

    # -- the wire

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: Body | None = None) -> bytes:
        with closing(self._connect(self._timeout_s)) as connection, alert():
            response = self._send(connection, method, _encoded(path), headers, body)
            try:
                return response.read()
            except (OSError, http.client.HTTPException) as error:
                raise _lost(error, headers) from error

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body | None = None,
    ) -> http.client.HTTPResponse:
        said = {"Authorization": f"Bearer {self._token}", **headers}
        if body is not None:
            said["Content-Type"] = "application/json" if isinstance(body, bytes) else "application/octet-stream"
        try:
            connection.connect()
        except OSError as error:
            raise self._silent(type(error).__name__) from error
        try:
            response = _exchanged(connection, method, target, said, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(type(error).__name__) if method in _SAFE else _lost(error, headers) from error
        if response.status >= http.client.BAD_REQUEST:
            try:
                raw = response.read()
            except (OSError, http.client.HTTPException):
                raw = b""  # its status says enough
            raise NodeRefusal(_problem(response.status, raw))
        return response

    def _silent(self, why: str) -> NotRunning:
        remedy = f"Run: vendo doctor --home {self._home}"
        return NotRunning(f"The node in {self._home} does not answer ({why}).", remedy=remedy)


def _exchanged(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: Body | None
) -> http.client.HTTPResponse:
    with suppress(BrokenPipeError, ConnectionResetError):  # it refused before it had all of it: its answer says why
        connection.request(method, target, body=body, headers=dict(headers))
    return connection.getresponse()


def _lost(error: Exception, headers: Mapping[str, str]) -> AnswerLost:
    key = headers.get("Idempotency-Key", "")
    return AnswerLost(
        f"The node's answer was lost ({type(error).__name__}): it may have been done.",
        remedy=f"Ask again with --key {key}: nothing is done twice.",
    )


def _encoded(path: str) -> str:
    return quote(path, safe="/")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"null")
    except ValueError:  # not JSON, or not even text
        return raw.decode("utf-8", "replace")


def _problem(status: int, raw: bytes) -> Problem:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Problem("http.error", f"The node answered {status}.", status=status)
    return Problem(
        code=str(body.get("code", "http.error")),
        message=str(body.get("detail") or body.get("title") or f"The node answered {status}."),
        unchanged=str(body.get("unchanged", "")),
        remedy=str(body.get("remedy", "")),
        status=status,
    )


def new_key() -> str:
    """A fresh idempotency key."""
    return uuid.uuid4().hex
