"""Requests that nobody with good intentions sends, byte by byte, and what each is answered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from node.storage.table import METADATA
from relays.event import Event
from tests.integration.http.access_part import AGENT, OPERATOR, STRANGER, Guarded
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN
from tests.unit.node.http.nip98_part import header

GOAL = b'{"description":"x"}'
X = "/agents/a/goals/x"
Header = tuple[bytes, bytes]
Made = Callable[[Guarded], str]


@dataclass(frozen=True)
class Case:
    """One request: a good one but for what is said, and the answer.

    Attributes:
        name: what is wrong with it.
        status: of the answer; 0: the connection is closed without one.
        code: of the problem; empty where the request is none that the parser of HTTP lets through.
        method, target, body: in place of `PUT /agents/a/goals/x` with a goal. `{host}` and `{port}` are the listener's.
        auth: the value of `Authorization`, or what makes it; None: there is none.
        host: the value of `Host`; None: there is none.
        more: further headers.
        length: what `Content-Length` says, if that is not so; empty: there is none.
        hang_up: whether the client is gone after its last byte.
    """

    name: str
    status: int
    code: str = ""
    method: str = "PUT"
    target: str | bytes = X
    body: bytes = GOAL
    auth: str | bytes | Made | None = f"Bearer {TOKEN}"
    host: str | None = "{host}"
    more: tuple[Header, ...] = ()
    length: str | None = None
    hang_up: bool = False


def written(case: Case, made: Guarded) -> bytes:
    """A case's bytes."""

    def filled(text: str | bytes) -> bytes:
        raw = text.encode("latin-1") if isinstance(text, str) else text
        return raw.replace(b"{host}", f"127.0.0.1:{made.port}".encode()).replace(b"{port}", str(made.port).encode())

    lines = [case.method.encode() + b" " + filled(case.target) + b" HTTP/1.1"]
    if case.host is not None:
        lines.append(b"Host: " + filled(case.host))
    auth = case.auth(made) if callable(case.auth) else case.auth
    if auth is not None:
        lines.append(b"Authorization: " + (auth.encode("latin-1") if isinstance(auth, str) else auth))
    length = str(len(case.body)) if case.length is None else case.length
    if length:
        lines.append(b"Content-Length: " + length.encode())
    lines += [name + b": " + filled(value) for name, value in case.more]
    return b"\r\n".join([*lines, b"Connection: close", b"", case.body])


async def answer(made: Guarded, raw: bytes, *, hang_up: bool) -> tuple[int, str]:
    """Send the bytes: the status, 0 if none came, and the code of the problem, if it is one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    try:
        writer.write(raw)
        if hang_up:
            writer.write_eof()
        async with asyncio.timeout(60):
            try:
                said = await reader.read()
            except ConnectionResetError:  # it had more to send than anybody wanted to read
                said = b""
    finally:
        writer.close()
    if not said:
        return 0, ""
    head, _, body = said.partition(b"\r\n\r\n")
    problem = orjson.loads(body) if b"application/problem+json" in head else {}
    assert all(problem.get(name) is not None for name in ("title", "detail", "unchanged", "remedy")) or not problem
    return int(head.split(b" ", 2)[1]), str(problem.get("code", ""))


async def snapshot(made: Guarded) -> dict[str, Any]:
    """Everything that a request could change."""
    tables = {name: await made.unit.select(name) for name in METADATA.tables}
    return {**tables, "called": list(made.keys), "woken": list(made.woken), "tokens": list(made.given_out.rows())}


# ---- signatures


def by(
    key: Any = OPERATOR,
    target: str = X,
    method: str = "PUT",
    body: bytes | None = GOAL,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: event,
    **more: Any,
) -> Made:
    """A signature that is good but for what is said; `at` is in seconds from now."""

    def make(made: Guarded) -> str:
        said = dict(more)
        if "url" in said:
            said["url"] = said["url"].replace("{host}", f"127.0.0.1:{made.port}")
        said["at"] = made.clock.now() + said.pop("at", 0)
        return header(change(made.sign(key, target, method, body, **said).to_dict()))

    return make


def with_pubkey(event: dict[str, Any]) -> dict[str, Any]:
    """A stranger's event under the operator's name."""
    return event | {"pubkey": OPERATOR.pubkey}


def resigned(event: dict[str, Any]) -> dict[str, Any]:
    """Another's signature under an event."""
    other = Event(**(event | {"tags": tuple(map(tuple, event["tags"]))}))
    return event | {"sig": STRANGER.sign_digest(bytes.fromhex(other.id)).hex()}


def flipped(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One hex digit of a field is another."""

    def change(event: dict[str, Any]) -> dict[str, Any]:
        text = event[name]
        return event | {name: text[:-1] + ("0" if text[-1] != "0" else "1")}

    return change


AGENTS = f"Bearer {AGENT_TOKEN}"
BY_AGENT = AGENT
