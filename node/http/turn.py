"""Requests of whoever has an agent's turn: `Authorization: Bearer <turn token>` under `/agents/<name>/`.

They see the agent's own files as its tick does, and what they write is staged (202). `/agents/<name>/turn` is the turn
itself; `POST …/turn/commit` answers when the tick is durable. `node/agent/outside/act.py` lists what can be asked.
"""

from typing import Protocol

from aiohttp import web

from fs.error import KeyRequired, Unsupported
from fs.path import decode, parts
from fs.session import MAX_KEY
from node.agent.outside.act import Act
from node.agent.outside.error import TurnOver
from node.agent.outside.host import PREFIX
from node.agent.outside.turn import Turn
from node.http.answer import body_answer
from node.http.error import MethodNotAllowed, NoSuchRoute, OtherAgent
from node.http.guard import read_body
from node.http.token import bearer_of

KEY_HEADER = "Idempotency-Key"
_STAGED = 202


class Turning(Protocol):
    """Where turns are: `node.agent.outside.host.Turns`."""

    def find(self, authorization: str | None) -> Turn | None:
        """The turn of which somebody shows the token."""


def turn_of(request: web.BaseRequest, turns: Turning | None) -> Turn | None:
    """The turn that a request is made in, or None if it is made in none.

    Raises:
        TurnOver: it shows a turn's token that nobody knows: the turn ended long ago, or before the node started.
    """
    headers = request.headers.getall("Authorization", [])
    if turns is None or len(headers) != 1:
        return None
    turn = turns.find(headers[0])
    if turn is None and (bearer_of(headers[0]) or "").startswith(PREFIX):
        raise TurnOver(
            "This turn is not known any more; what it committed, if it did, is there.",
            remedy="If it was committed, the agent's trace has its tick_id; else its trigger comes again.",
        )
    return turn


async def serve_turn(request: web.BaseRequest, turn: Turn) -> web.StreamResponse:
    """Answer one request.

    Raises:
        OtherAgent: it is about another agent than the turn.
        VendoError: it is not one that a turn takes, was refused, or the turn has ended.
    """
    raw = request.raw_path.partition("?")[0]
    names = parts(decode(raw))
    if len(names) < 2 or names[0] != "agents":
        raise NoSuchRoute
    if names[1] != turn.agent:
        raise OtherAgent
    if request.method not in ("GET", "PUT", "POST", "DELETE"):
        raise MethodNotAllowed
    if "watch" in request.query:
        raise Unsupported("A turn sees the files as they are; nothing is watched in it.")
    path = "/" + "/".join(names[2:]) + ("/" if names[2:] and raw.endswith("/") else "")
    body = await read_body(request) if request.method != "GET" else b""
    reply = await turn.ask(Act(request.method, path, body, _key(request)))
    answer = body_answer(request, reply.body)
    if reply.staged:
        answer.set_status(_STAGED)
    return answer


def _key(request: web.BaseRequest) -> str | None:
    """The idempotency key; without one the tick makes one that a repeated trigger finds again."""
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise KeyRequired(f"An idempotency key is 1 to {MAX_KEY} printable ASCII characters.")
    return key
