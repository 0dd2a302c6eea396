"""The command's side of the control plane: plain HTTP to the node that runs in a home directory.

A node that was killed leaves its `control.json` behind; its pid tells, so that the token is never sent to whoever
listens on that port now.
"""

import http.client
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cli.output import NodeRefusal, Problem
from core.error import Unavailable

# As node.home names them, and a test holds them equal: importing it would cost each command a second.
CONTROL = "control.json"
TOKEN = "token"  # noqa: S105 - the name of a file
_TIMEOUT_S = 90.0


class NotRunning(Unavailable):
    """No node runs in this home directory."""

    code = "cli.not_running"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One record of a stream: its cursor, its type, its data."""

    id: str
    type: str
    data: str


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
    """Talks to one running node as its operator."""

    def __init__(self, home: Path, url: str, token: str) -> None:
        self._home = home
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._token = token

    @classmethod
    def open(cls, home: Path) -> "Client":
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
        return cls(home, url, token)

    def get(self, path: str) -> Any:
        """Read a file that holds JSON (else its text), or list a directory."""
        return _parsed(self._ask("GET", path, accept="application/json"))

    def list(self, path: str) -> Any:
        """List a directory, also one that can be read as a file."""
        return _parsed(self._ask("GET", path.rstrip("/") + "/", accept="application/json"))

    def read(self, path: str) -> bytes:
        """Read a file as it is."""
        return self._ask("GET", path, accept="*/*")

    def put(self, path: str, body: bytes) -> None:
        """Replace a file."""
        self._ask("PUT", path, body=body, key=new_key())

    def call(self, path: str, body: Mapping[str, Any] | bytes = b"", *, key: str | None = None) -> Any:
        """Hand one record to a file and read its answer; without a key a fresh one is used."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return _parsed(self._ask("POST", path, body=raw, key=key or new_key(), accept="application/json"))

    def watch(self, path: str, after: int | None = None) -> Iterator[StreamRecord]:
        """Records of a stream (server-sent events) past a cursor, or from now on, until it ends."""
        with closing(self._connect(timeout=None)) as connection:
            target = f"{_encoded(path)}?watch=1" + ("" if after is None else f"&after={after}")
            response = self._send(connection, "GET", target, accept="text/event-stream")
            name, cursor, data = "message", "", []
            for raw in response:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                label, _, value = line.partition(":")
                value = value.removeprefix(" ")
                match label:
                    case "event":
                        name = value
                    case "id":
                        cursor = value
                    case "data":
                        data.append(value)
                if not line and data:
                    yield StreamRecord(cursor, name, "\n".join(data))
                    name, data = "message", []

    def _connect(self, timeout: float | None = _TIMEOUT_S) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def _ask(self, method: str, path: str, *, body: bytes | None = None, key: str = "", accept: str = "*/*") -> bytes:
        with closing(self._connect()) as connection:
            return self._send(connection, method, _encoded(path), body=body, key=key, accept=accept).read()

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        key: str = "",
        accept: str = "*/*",
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(
                f"The node in {self._home} does not answer ({type(error).__name__}).",
                remedy=f"Run: vendo doctor --home {self._home}",
            ) from error
        if response.status >= http.client.BAD_REQUEST:
            raise NodeRefusal(_problem(response.status, response.read()))
        return response


def _encoded(path: str) -> str:
    return quote(path, safe="/")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"null")
    except json.JSONDecodeError:
        return raw.decode("utf-8", "replace")


def _problem(status: int, raw: bytes) -> Problem:
    try:
        body = json.loads(raw)
    except json.JSONDecodeError:
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
