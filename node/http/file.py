"""One file of an agent over HTTP.

GET reads, lists or streams, HEAD tells what it is, PUT replaces, POST calls, DELETE removes; MOVE renames and MKCOL
makes a directory (RFC 4918).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from core.error import VendoError
from fs.error import IsDirectory, IsStream, Unsupported
from fs.namespace import Namespace
from fs.path import decode
from fs.protocol import Pieces, Record, Stat
from fs.session import Role, Session
from fs.tree import SMALL_BODY, joined
from node.http.answer import answer_pieces, body_answer, read_answer
from node.http.error import BadRequest, MethodNotAllowed
from node.http.guard import HEADERS, MAX_BODY, body_pieces, read_body
from node.http.hub import MAX_STREAMS, Hub, Share
from node.http.listing import NDJSON, answer_entries, form_of, json_list
from node.http.stream import cursor

KEY_HEADER = "Idempotency-Key"
_OF_ADDRESS, _OF_AGENT = 32, 256  # streams at once
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(slots=True, unsafe_hash=True)  # one for each request: frozen, each field would cost a call
class Target:
    """What a request is about: a path among the files of an agent, and who asks, with the idempotency key.

    With `listing` a directory is meant, also if it can be read. `holds`: whether who asks may go on to watch it;
    `address`: from where somebody asks without a token.
    """

    agent: str
    files: Namespace
    path: str
    session: Session
    listing: bool = False
    holds: Callable[[], bool] = lambda: True
    address: str = ""


class FileDoor:
    """Answers requests for files; clients that watch the same share one reading of it.

    Args:
        stop: is set when streams are to end.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop, self._hub = stop, Hub()

    async def answer(self, request: web.BaseRequest, target: Target, method: str = "") -> web.StreamResponse:
        """Answer one request.

        Args:
            request: what is asked.
            target: what is meant.
            method: what is meant by it, if that is not the request's own method.

        Raises:
            VendoError: what the file was refused with.
        """
        try:
            return await self._answer(request, target, method or request.method)
        except (MethodNotAllowed, Unsupported) as error:
            error.context.setdefault("allow", await _allowed(target))
            raise

    async def _answer(self, request: web.BaseRequest, target: Target, method: str) -> web.StreamResponse:
        files, path, session = target.files, target.path, target.session
        key = {KEY_HEADER: session.key or ""}
        match method:
            case "GET":
                return await self._get(request, target)
            case "HEAD":
                return _head(await files.stat(path, session))
            case "PUT":
                await files.write(path, await _body(request), session)
            case "POST":
                body = await read_body(request, await _most(request, target))
                return body_answer(request, await files.call(path, body, session), key)
            case "DELETE":
                await _nothing(request)
                await files.remove(path, session)
            case "MOVE":
                await _nothing(request)
                await files.rename(path, _destination(request), session)
            case "MKCOL":
                await _nothing(request)
                await files.mkdir(path, session)
            case _:
                raise MethodNotAllowed
        return web.Response(status=201 if method == "MKCOL" else 204, headers={**HEADERS, **key})

    async def _get(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        files, path, session = target.files, target.path, target.session
        watches = _watches(request)
        if watches:
            return await self._watch(request, target)
        if not target.listing:
            try:
                content = await files.content(path, session, plain=watches is None)
            except IsStream:
                return await self._watch(request, target)
            except IsDirectory:
                pass
            else:
                return read_answer(request, content) if isinstance(content, bytes) else await _pieces(request, content)
        form = form_of(request, Stat.to_dict, lambda stat: f"{stat.name}/\n" if stat.is_dir else f"{stat.name}\n")
        entries = files.entries(path, session)
        return await answer_entries(request, entries, form, lambda stat: stat.name, json_list(request))

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        files, path, session = target.files, target.path, target.session
        after = cursor(request)
        if not (await files.stat(path, session)).watchable:
            raise Unsupported("This file cannot be watched.")

        def begin(since: int | None) -> AsyncIterator[Record]:
            return files.watch(path, session, since)

        key = (target.agent, path, session.caller)
        shares = _shares(target)
        return await self._hub.serve(request, key, begin, after, self._stop, holds=target.holds, shares=shares)


def _shares(target: Target) -> tuple[Share, ...]:
    """Of how many streams this is one; the operator's are not counted."""
    match target.session.role:
        case Role.PUBLIC:
            return Share("public", MAX_STREAMS // 4), Share(f"public {target.address}", _OF_ADDRESS)
        case Role.AGENT:
            return (Share(target.session.caller, _OF_AGENT),)
        case _:
            return ()


async def _most(request: web.BaseRequest, target: Target) -> int:
    """How long a body may be: what a file says, looked up only where that may be less than what comes."""
    if request.content_length is not None and request.content_length <= SMALL_BODY:
        return SMALL_BODY
    most = (await target.files.stat(target.path, target.session)).max_bytes
    return MAX_BODY if most is None else min(most, MAX_BODY)


def _watches(request: web.BaseRequest) -> bool | None:
    """Whether the client asks for a stream, for none, or says nothing about it."""
    asked = request.query.get("watch") if request.query_string else None
    if asked is None:
        return True if "text/event-stream" in request.headers.get("Accept", "") else None
    if asked.lower() in _YES:
        return True
    if asked.lower() in _NO:
        return False
    raise BadRequest("`watch` is 1 or 0.")


async def _body(request: web.BaseRequest) -> bytes | Pieces:
    """A short body whole; a longer one in pieces, so that the file says how much it takes."""
    if request.content_length is not None and request.content_length <= SMALL_BODY:
        return await read_body(request, SMALL_BODY)
    return body_pieces(request, None)


async def _nothing(request: web.BaseRequest) -> None:
    if await read_body(request, SMALL_BODY):
        raise BadRequest("This takes no body.")


def _destination(request: web.BaseRequest) -> str:
    """The path in `Destination` (RFC 4918, 10.3), in the same agent's files: a URL or an absolute path of this node."""
    found = request.headers.getall("Destination", [])
    if len(found) != 1:
        raise BadRequest("MOVE needs one `Destination`: the new path of the same agent, as in the address.")
    try:
        given = urlsplit(found[0])
    except ValueError as error:
        raise BadRequest("`Destination` is no address.") from error
    if given.query or given.fragment or (given.netloc and given.netloc.lower() != request.host.lower()):
        raise BadRequest("`Destination` is on this node, without query and fragment.")
    source, target = decode(request.raw_path.partition("?")[0]), decode(given.path)
    agent = "/".join(source.split("/")[:3]) + "/"
    if not target.startswith(agent):
        raise BadRequest("`Destination` is among the same agent's files.")
    return "/" + target.removeprefix(agent)


async def _pieces(request: web.BaseRequest, content: Pieces) -> web.StreamResponse:
    """A long content as it comes; what goes wrong before the first piece is an answer of its own."""
    first = await anext(content, b"")
    media = NDJSON if first[:1] == b"{" else "application/octet-stream"
    return await answer_pieces(request, media, joined(first, content))


async def _allowed(target: Target) -> str:
    """What could be asked instead; nothing of a file that the caller must not see."""
    try:
        return ", ".join(_methods(await target.files.stat(target.path, target.session)))
    except VendoError:
        return ""


def _head(stat: Stat) -> web.Response:
    headers: dict[str, str] = {**HEADERS, "Allow": ", ".join(_methods(stat))}
    headers["X-File-Type"] = "directory" if stat.is_dir else "stream" if stat.stream else "file"
    if stat.watchable:
        headers["X-File-Watch"] = "1"
    return web.Response(headers=headers)


def _methods(stat: Stat) -> list[str]:
    can: Mapping[str, bool] = {
        "HEAD": True,
        "GET": stat.is_dir or stat.readable or stat.watchable,
        "PUT": stat.writable,
        "POST": stat.callable,
        "DELETE": stat.removable,
    }
    return [method for method, may in can.items() if may]
