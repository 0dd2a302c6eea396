"""POST /hooks/<id>: the way in for webhooks. No bearer token of the node opens it; the hook's own secret does."""

import asyncio
import re

from aiohttp import web

from core.error import VendoError
from fs.tree import json_bytes
from node.agent.error import HookBusy, HookUnknown, InboxFull
from node.agent.wake.hook import MAX_CALL, Call
from node.agent.wake.porter import QUEUED, Porter
from node.http.error import MethodNotAllowed, TooManyCalls, TooSlow
from node.http.guard import HEADERS, problem, read_body

PREFIX = "/hooks/"
_ID = re.compile(r"[0-9a-f]{32}")
_AT_ONCE = 256  # anybody can hold one for as long as a body may take, so there are many, and not for long
_BODY_S = 5.0
_RETRY_S = 30
_DELIVERY = ("X-Vendo-Delivery", "X-GitHub-Delivery", "Idempotency-Key")
_SIGNATURE = ("X-Hub-Signature-256", "X-Vendo-Signature")
_LABEL = ("X-Vendo-Event", "X-GitHub-Event", "X-Gitlab-Event")
_MAX_LABEL = 100


class HookDoor:
    """Reads calls off the wire and hands them to the porter.

    Args:
        porter: takes them.
        body_s: how long a body may take to come.
    """

    def __init__(self, porter: Porter, body_s: float = _BODY_S) -> None:
        self._porter, self._body_s = porter, body_s
        self._open = 0

    async def answer(self, request: web.BaseRequest, raw_path: str) -> web.Response:
        """One call. Nothing that is refused before the secret is checked says whether there is such a hook.

        Raises:
            MethodNotAllowed: it is no POST.
            HookUnknown: no hook has such an id; nothing of the body was read.
            TooSlow, RequestTooLarge, Encoded, BadRequest: its body is not taken.
            VendoError: as `Porter.call`.
        """
        if request.method != "POST":
            raise MethodNotAllowed("A hook takes POST.")
        hook = raw_path.removeprefix(PREFIX)
        if _ID.fullmatch(hook) is None:
            raise HookUnknown
        if self._open >= _AT_ONCE:
            return _later(TooManyCalls(), round(self._body_s) or 1)
        self._open += 1
        try:
            status = await self._porter.call(hook, await self._read(request))
        except (HookBusy, InboxFull) as error:
            return _later(error)
        finally:
            self._open -= 1
        return web.Response(
            status=202 if status == QUEUED else 200,
            body=json_bytes({"status": status}),
            content_type="application/json",
            headers=HEADERS,
        )

    async def _read(self, request: web.BaseRequest) -> Call:
        try:
            async with asyncio.timeout(self._body_s):
                body = await read_body(request, MAX_CALL)
        except TimeoutError as error:
            raise TooSlow from error
        return Call(
            body,
            content_type=_one(request, "Content-Type"),
            signature=_signature(request),
            timestamp=_stamp(request),
            authorization=_one(request, "Authorization"),
            delivery=next((found for name in _DELIVERY if (found := _one(request, name)) is not None), None),
            label=_label(request),
        )


def _one(request: web.BaseRequest, name: str) -> str | None:
    """A header that is there once; who sends it twice means either, and so none."""
    found = request.headers.getall(name, [])
    return found[0] if len(found) == 1 else None


def _signature(request: web.BaseRequest) -> str | None:
    found = [one for name in _SIGNATURE for one in request.headers.getall(name, [])]
    return found[0] if len(found) == 1 else None


def _stamp(request: web.BaseRequest) -> str | None:
    found = request.headers.getall("X-Vendo-Timestamp", [])
    return found[0] if len(found) == 1 else "twice" if found else None


def _label(request: web.BaseRequest) -> str | None:
    found = next((found for name in _LABEL if (found := _one(request, name)) is not None), None)
    return found if found is not None and len(found) <= _MAX_LABEL and found.isascii() and found.isprintable() else None


def _later(error: VendoError, seconds: int = _RETRY_S) -> web.Response:
    answer = problem(error)
    answer.headers["Retry-After"] = str(seconds)
    return answer
