"""The control plane: GET reads or lists, HEAD tells what a file is, PUT replaces, POST calls, `?watch=1` streams.

GET  /                        the node's own relay, if it shares this port
GET  /healthz                 the process answers
GET  /readyz                  the node works, or why not
GET  /metrics                 numbers for Prometheus; the operator's token as the bearer token
POST /hooks/<id>              a webhook of an agent, with the hook's own secret
GET  /agents                  the agents
ANY  /agents/<name>/<path>    a file of an agent; the name `node` is the operator's own tree
ANY  /agents/<name>/turn      the turn of an agent that lives outside, with its token
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from core.error import NotFound, VendoError
from core.unit import UnitOfWork
from fs.error import IsDirectory, Unsupported
from fs.namespace import Namespace
from fs.path import decode, parts
from fs.session import Session
from node.http.answer import body_answer, json_answer, wants_text
from node.http.elsewhere import SHELF, Elsewhere
from node.http.error import MethodNotAllowed, NoSuchRoute, OtherAgent, TooManyStreams
from node.http.guard import HEADERS, Internal, check_host, check_token, problem, read_body
from node.http.hook import PREFIX, HookDoor
from node.http.metric import CONTENT_TYPE
from node.http.stream import cursor, serve_stream
from node.http.token import Tokens
from node.http.turn import Turning, serve_turn, turn_of

log = logging.getLogger(__name__)

MAX_STREAMS = 512
IDLE_S = 20.0
KEY_HEADER = "Idempotency-Key"
OPERATORS_TREE = "node"
OWN_STATUS = ("agents", OPERATORS_TREE, "status")  # each process tells of itself
_WATCH = ("1", "true", "yes")

Check = Callable[[], Awaitable[str | None]]


class ControlPlane:
    """The HTTP listener of a node. A service: `run` opens it and closes it again.

    Args:
        namespaces: the files of an agent by its name.
        agents: what `/agents` lists.
        tokens: who may ask.
        unit: where calls from here commit at once.
        host: a loopback address.
        port: 0 takes a free one; `url` says which.
        checks: what `/readyz` asks, by name: a reason why not, or None.
        metrics: the text of `/metrics`.
        front: serves `/`, if the node's own relay shares this port.
        turns: of agents that live outside.
        hooks: takes webhooks.
        visit: has an agent's files held ready, also of one that hibernates.
        elsewhere: where several processes share the database: who is not the steward hands requests to it.

    Raises:
        ValueError: the host is not a loopback address.
    """

    def __init__(
        self,
        namespaces: Callable[[str], Namespace],
        agents: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
        tokens: Tokens,
        unit: UnitOfWork,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        checks: Mapping[str, Check] | None = None,
        metrics: Callable[[], str] = lambda: "",
        front: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None,
        turns: Turning | None = None,
        hooks: HookDoor | None = None,
        visit: Callable[[str], Awaitable[object]] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        if host not in ("127.0.0.1", "::1"):
            raise ValueError("the control plane listens on loopback only")
        self._namespaces, self._agents, self._tokens, self._unit = namespaces, agents, tokens, unit
        self._host, self._wanted_port, self._port = host, port, 0
        self._checks, self._metrics, self._front = checks or {}, metrics, front
        self._turns, self._hooks, self._elsewhere = turns, hooks, elsewhere
        self._visit = visit
        self._stop = asyncio.Event()
        self._streams = 0

    @property
    def url(self) -> str:
        """Where it listens, once it is ready."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Listen until `stop`; then end streams and finish requests.

        Raises:
            OSError: the port is taken.
        """
        # no router: it decodes paths on its own, and there is one strict decoding here (fs.path)
        # `keepalive_timeout` also ends connections that never finish a request; what is compressed stays so
        server = web.Server(self._handle, access_log=None, keepalive_timeout=IDLE_S, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=5.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._wanted_port)
            await site.start()
            self._port = int(runner.addresses[0][1])
            ready.set()
            await stop.wait()
        finally:
            self._stop.set()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request; the only guard of this edge."""
        key = request.headers.get(KEY_HEADER) or secrets.token_hex(16)
        try:
            check_host(request, self._port)
            return await self._route(request, key)
        except VendoError as error:
            answer = problem(error)
        except Exception:  # the HTTP edge: the log has the fault, the caller a stable code
            log.exception("a request failed", extra={"action": "http_failed", "method": request.method})
            answer = problem(Internal())
        if request.method in ("PUT", "POST"):
            answer.headers[KEY_HEADER] = key  # whoever asks again needs it
        return answer

    async def _route(self, request: web.BaseRequest, key: str) -> web.StreamResponse:
        raw = request.raw_path.partition("?")[0]
        if raw == "/healthz":
            return json_answer({"status": "ok"})
        if raw == "/readyz":
            return await self._ready()
        if raw == "/" and request.method == "GET" and self._front is not None:
            return await self._front(request)
        if self._hooks is not None and raw.startswith(PREFIX):
            return await self._hooks.answer(request, raw)
        if (turn := turn_of(request, self._turns)) is not None:
            return await serve_turn(request, turn)
        asked = self._elsewhere.asked(request) if self._elsewhere is not None else None
        if self._elsewhere is not None and asked is not None and raw.startswith(SHELF):
            return await self._elsewhere.file(raw)
        grant = asked.grant if asked is not None else check_token(request, self._tokens)
        path = decode(raw)
        names = parts(path)
        if names == ("metrics",) and request.method == "GET" and grant.reaches(OPERATORS_TREE):
            return web.Response(body=self._metrics().encode(), headers={**HEADERS, "Content-Type": CONTENT_TYPE})
        if self._elsewhere is not None and names != OWN_STATUS and not self._elsewhere.is_here(asked):
            return await self._elsewhere.hand_over(request, grant, key, self._stop)
        if names == ("agents",) and request.method == "GET":
            agents = await self._agents()
            return json_answer([agent for agent in agents if grant.reaches(str(agent["name"]))])
        if len(names) < 2 or names[0] != "agents":
            raise NoSuchRoute
        if not grant.reaches(names[1]):
            raise OtherAgent
        if self._visit is not None and names[1] != OPERATORS_TREE:
            await self._visit(names[1])
        try:
            namespace = self._namespaces(names[1])
        except KeyError as error:
            raise NotFound("There is no agent with this name.") from error
        session = Session(grant.caller, grant.role, key, unit=self._unit)
        return await self._file(request, namespace, "/" + "/".join(names[2:]), session, raw.endswith("/"))

    async def _ready(self) -> web.Response:
        reasons = {}
        for name, check in self._checks.items():
            try:
                reason = await check()
            except VendoError as error:
                reason = f"{error.code}: {error.message}"
            if reason is not None:
                reasons[name] = reason
        return json_answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _file(
        self, request: web.BaseRequest, namespace: Namespace, path: str, session: Session, listing: bool
    ) -> web.StreamResponse:
        match request.method:
            case "GET" if _watches(request):
                return await self._watch(request, namespace, path, session)
            case "GET":
                return await _get(request, namespace, path, session, listing)
            case "HEAD":
                return _head((await namespace.stat(path, session)).to_dict())
            case "PUT":
                await namespace.write(path, await read_body(request), session)
                return web.Response(status=204, headers={**HEADERS, KEY_HEADER: session.key or ""})
            case "POST":
                answer = await namespace.call(path, await read_body(request), session)
                return body_answer(request, answer, {KEY_HEADER: session.key or ""})
            case _:
                raise MethodNotAllowed

    async def _watch(
        self, request: web.BaseRequest, namespace: Namespace, path: str, session: Session
    ) -> web.StreamResponse:
        after = cursor(request)
        if not (await namespace.stat(path, session)).watchable:
            raise Unsupported("This file cannot be watched.")
        if self._streams >= MAX_STREAMS:
            raise TooManyStreams
        self._streams += 1
        try:
            return await serve_stream(request, namespace.watch(path, session, after), self._stop)
        finally:
            self._streams -= 1


def _watches(request: web.BaseRequest) -> bool:
    asked = request.query.get("watch")
    if asked is not None:
        return asked.lower() in _WATCH
    return "text/event-stream" in request.headers.get("Accept", "")


async def _get(
    request: web.BaseRequest, namespace: Namespace, path: str, session: Session, listing: bool
) -> web.StreamResponse:
    if not listing:
        try:
            return body_answer(request, await namespace.read(path, session))
        except IsDirectory:
            pass
    entries = await namespace.list(path, session)
    if wants_text(request):
        text = "".join(f"{entry.name}/\n" if entry.is_dir else f"{entry.name}\n" for entry in entries)
        return web.Response(text=text, headers=HEADERS)
    return json_answer([entry.to_dict() for entry in entries])


def _head(stat: Mapping[str, str | int | bool]) -> web.Response:
    verbs = ["HEAD", "GET"] if stat["is_dir"] or stat["readable"] or stat["watchable"] else ["HEAD"]
    verbs += ["PUT"] if stat["writable"] else []
    verbs += ["POST"] if stat["callable"] else []
    kind = "directory" if stat["is_dir"] else "stream" if stat["watchable"] else "file"
    return web.Response(headers={**HEADERS, "Allow": ", ".join(verbs), "X-File-Type": kind})
