"""The control plane: the listener, who asks, and which files are meant; `node.http.file` does the rest.

GET    /                        the node's own relay, if it shares this port
GET    /healthz                 the process answers
GET    /readyz                  the node works, or why not
GET    /metrics                 numbers for Prometheus; the operator's token as the bearer token
GET    /openapi.json            what can be asked, as OpenAPI
POST   /hooks/<id>              a webhook of an agent, with the hook's own secret
GET    /agents                  the agents
POST   /agents                  make an agent, as /agents/node/agents/new
DELETE /agents/<name>           delete one, as /agents/node/agents/<name>/delete
ANY    /agents/<name>/<path>    a file of an agent; the name `node` is the operator's own tree
ANY    /agents/<name>/turn      the turn of an agent that lives outside, with its token
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiohttp import web

from core.error import NotFound, VendoError
from core.unit import UnitOfWork
from fs.error import AccessDenied, KeyRequired
from fs.namespace import Namespace
from fs.path import decode, parts
from fs.session import Role, Session
from node.http.access import Door
from node.http.answer import json_answer
from node.http.bind import Listener
from node.http.elsewhere import SHELF, Elsewhere
from node.http.error import MethodNotAllowed, NoSuchRoute, OtherAgent, Unauthorized
from node.http.file import KEY_HEADER, FileDoor, Target
from node.http.guard import HEADERS, Internal, problem
from node.http.hook import PREFIX, HookDoor
from node.http.listing import answer_entries, entry_line, form_of, json_list
from node.http.metric import CONTENT_TYPE
from node.http.token import Grant, Tokens
from node.http.turn import Turning, serve_turn, turn_of
from node.http.wire import Server

log = logging.getLogger(__name__)

IDLE_S = 20.0
LINGER_S = 2.0  # the rest of a body that was refused is let come, so that its sender reads why
OPERATORS_TREE = "node"
OWN = (("agents", OPERATORS_TREE, "status"), ("agents", OPERATORS_TREE, "tokens"))  # each process has its own
CHANGES = ("PUT", "POST", "DELETE", "MOVE", "MKCOL")

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
        describe: makes `/openapi.json`.
        door: decides who asks; without it only `tokens` counts.
        beside: further addresses to listen at; `url` is the one on loopback.

    Raises:
        ValueError: the host is not a loopback address.
    """

    def __init__(
        self,
        namespaces: Callable[[str], Namespace],
        agents: Callable[[], AsyncIterator[Mapping[str, Any]]],
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
        describe: Callable[[], bytes] | None = None,
        door: Door | None = None,
        beside: Sequence[Listener] = (),
    ) -> None:
        if host not in ("127.0.0.1", "::1"):
            raise ValueError("the control plane listens on loopback only")
        self._namespaces, self._agents, self._unit = namespaces, agents, unit
        self._host, self._wanted_port, self._port = host, port, 0
        self._checks, self._metrics, self._front = checks or {}, metrics, front
        self._turns, self._hooks, self._elsewhere = turns, hooks, elsewhere
        self._visit = visit
        self._describe = describe
        self._stop = asyncio.Event()
        self._files = FileDoor(self._stop)
        self._door, self._beside = door if door is not None else Door(tokens), beside

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
        server = Server(
            self._handle, access_log=None, keepalive_timeout=IDLE_S, lingering_time=LINGER_S, auto_decompress=False
        )
        runner = web.ServerRunner(server, shutdown_timeout=5.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._wanted_port)
            await site.start()
            self._port = int(runner.addresses[0][1])
            for one in self._beside:
                await web.TCPSite(runner, one.host, one.port, ssl_context=one.tls).start()
            ready.set()
            await stop.wait()
        finally:
            self._stop.set()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request; the only guard of this edge."""
        key = request.headers.get(KEY_HEADER) or (secrets.token_hex(16) if request.method in CHANGES else "")
        try:
            self._door.check(request, self._port)
            if request.method in CHANGES:
                key = _checked(key)
            return await self._route(request, key)
        except KeyRequired as error:
            answer, key = problem(error), ""
        except VendoError as error:
            answer = problem(error)
        except Exception:  # the HTTP edge: the log has the fault, the caller a stable code
            log.exception("a request failed", extra={"action": "http_failed", "method": request.method})
            answer = problem(Internal())
        if request.method in CHANGES and key:
            answer.headers[KEY_HEADER] = key  # whoever asks again needs it
        return answer

    async def _route(self, request: web.BaseRequest, key: str) -> web.StreamResponse:
        raw = request.raw_path.partition("?")[0]
        if raw == "/healthz":
            return json_answer({"status": "ok"})
        if raw == "/readyz":
            return await self._ready()
        if raw == "/openapi.json" and request.method == "GET" and self._describe is not None:
            self._door.count_public(request)
            return web.Response(body=self._describe(), content_type="application/json", headers=HEADERS)
        if raw == "/" and request.method == "GET" and self._front is not None:
            return await self._front(request)
        if self._hooks is not None and raw.startswith(PREFIX):
            return await self._hooks.answer(request, raw)
        if (turn := turn_of(request, self._turns)) is not None:
            return await serve_turn(request, turn)
        asked = self._elsewhere.asked(request) if self._elsewhere is not None else None
        if self._elsewhere is not None and asked is not None and raw.startswith(SHELF):
            return await self._elsewhere.file(raw)
        grant = asked.grant if asked is not None else await self._door.grant(request)
        path = decode(raw)
        names = parts(path)
        if names == ("metrics",) and request.method == "GET" and grant.reaches(OPERATORS_TREE):
            return web.Response(body=self._metrics().encode(), headers={**HEADERS, "Content-Type": CONTENT_TYPE})
        if self._elsewhere is not None and names[:3] not in OWN and not self._elsewhere.is_here(asked):
            return await self._elsewhere.hand_over(request, grant, key, self._stop, partial(self._door.holds, request))
        if len(names) < 2 or names[0] != "agents":
            return await self._agents_answer(request, names, grant, key)
        if names[2:] == () and request.method == "DELETE":
            return await self._operators(request, grant, key, "POST", f"/agents/{names[1]}/delete")
        session = Session(grant.caller, grant.role, key, unit=self._unit)
        path = "/" + "/".join(names[2:])
        namespace = await self._namespace(names[1], grant)
        try:
            if grant.role < Role.AGENT:
                await _look(request, namespace, path, session)
            holds = partial(self._door.holds, request) if asked is None else _for_ever
            target = Target(names[1], namespace, path, session, raw.endswith("/"), holds, self._door.address(request))
            return await self._files.answer(request, target)
        except (AccessDenied, NotFound) as error:
            if grant.role < Role.AGENT:  # whoever shows nothing is told nothing, not even what there is
                raise Unauthorized from error
            raise

    async def _namespace(self, name: str, grant: Grant) -> Namespace:
        """The files of an agent, held ready.

        Raises:
            OtherAgent: they are not open to this caller.
            NotFound: there is no such agent.
        """
        is_public = grant.role < Role.AGENT
        if not is_public and not grant.reaches(name):
            raise OtherAgent
        try:
            if self._visit is not None and name != OPERATORS_TREE:
                await self._visit(name)
            return self._namespaces(name)
        except (KeyError, NotFound) as error:
            if is_public:
                raise Unauthorized from error
            raise NotFound("There is no agent with this name.") from error

    async def _agents_answer(
        self, request: web.BaseRequest, names: Sequence[str], grant: Grant, key: str
    ) -> web.StreamResponse:
        """`/agents` itself.

        Raises:
            NoSuchRoute: it is something else, or asked in another way.
        """
        if grant.role < Role.AGENT:
            raise Unauthorized
        if tuple(names) != ("agents",):
            raise NoSuchRoute
        match request.method:
            case "GET":
                form = form_of(request, dict, entry_line)
                return await answer_entries(
                    request, self._reached(grant), form, lambda row: str(row["name"]), json_list(request)
                )
            case "POST":
                return await self._operators(request, grant, key, "POST", "/agents/new")
            case _:
                raise MethodNotAllowed

    async def _reached(self, grant: Grant) -> AsyncIterator[Mapping[str, Any]]:
        async for agent in self._agents():
            if grant.reaches(str(agent["name"])):
                yield agent

    async def _operators(
        self, request: web.BaseRequest, grant: Grant, key: str, method: str, path: str
    ) -> web.StreamResponse:
        """What a short address means in the operator's tree."""
        if grant.role < Role.AGENT:
            raise Unauthorized
        namespace = await self._namespace(OPERATORS_TREE, grant)
        session = Session(grant.caller, grant.role, key, unit=self._unit)
        return await self._files.answer(request, Target(OPERATORS_TREE, namespace, path, session), method)

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


def _for_ever() -> bool:
    return True


async def _look(request: web.BaseRequest, namespace: Namespace, path: str, session: Session) -> None:
    """Whether there is anything for a caller without a token to look at; all else is the same to it, there or not.

    Raises:
        Unauthorized: it wants more than to look.
        AccessDenied, NoSuchFile: as `Namespace.stat`.
    """
    if request.method not in ("GET", "HEAD"):
        raise Unauthorized
    await namespace.stat(path, session)


def _checked(key: str) -> str:
    """An idempotency key as it came.

    Raises:
        KeyRequired: it is not 1 to 200 printable ASCII characters.
    """
    return Session("", Role.PUBLIC, key).effect_key()
