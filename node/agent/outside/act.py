"""What whoever has a turn may ask, in one form for all ways in which it is asked: a request as over HTTP.

    GET  /<path>              a file of the agent, or a directory as JSON
    PUT  /<path>              staged
    POST /<path>              staged, or the answer of a call that has one
    GET  /turn                trigger, state, times
    PUT  /turn/state          the new state, a JSON object
    POST /turn/log            {"type", "data"}: a record for the trace
    POST /turn/seen           {"id"}: whether it was marked; /turn/mark marks it
    GET  /turn/memory         keys of kept values; /turn/memory/<key> is one, PUT replaces it
    POST /turn/forget         {"key"}: keep a value no more
    POST /turn/alarm          {"id", "at_ms" | "after_ms" | "every_ms" | "cron", "payload"}; /turn/silence takes it away
    POST /turn/watch          {"id", "event", "pattern"}; /turn/unwatch takes it away
    POST /turn/hibernate
    POST /turn/commit         {"state", "writes"}: both optional; the turn ends
    POST /turn/abort          {"reason"}: the turn has failed

Acts come from outside, so a recorded tick keeps them, and a replay does the same acts again. Pure.
"""

import base64
from typing import Any, NamedTuple

import orjson

from core.error import InvalidInput
from fs.tree import json_object

TURN = "/turn"
STATE, COMMIT, ABORT = f"{TURN}/state", f"{TURN}/commit", f"{TURN}/abort"
MAX_WRITES = 200
_MAX_REASON = 500


class Act(NamedTuple):
    """One request.

    Attributes:
        method: GET, PUT or POST.
        path: below the agent's own; one that ends in a slash asks for the listing.
        body: as it was sent.
        key: the idempotency key, if there is one.
        strict: if it is refused, the turn has failed.
    """

    method: str
    path: str
    body: bytes = b""
    key: str | None = None
    strict: bool = False

    def to_bytes(self) -> bytes:
        """As it is recorded."""
        try:
            body = {"text": self.body.decode()}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(self.body).decode()}
        fields = {"method": self.method, "path": self.path, "key": self.key, "strict": self.strict}
        return orjson.dumps({**fields, **body})

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Act":
        """Undo `to_bytes`."""
        value = orjson.loads(raw)
        body = base64.b64decode(value["base64"]) if "base64" in value else value["text"].encode()
        return cls(value["method"], value["path"], body, value["key"], value["strict"])

    def asks_for(self, path: str) -> bool:
        """Whether it is a call of this file."""
        return self.method == "POST" and self.path == path


class Reply(NamedTuple):
    """What an act answers. `staged`: something waits for the commit."""

    body: bytes
    staged: bool = False


class Closing(NamedTuple):
    """What a commit brings with it: acts, each of which must go well."""

    acts: tuple[Act, ...]

    @classmethod
    def parse(cls, body: bytes) -> "Closing":
        """The body of `POST /turn/commit`.

        Raises:
            InvalidInput: it is not of that form; the turn is still open.
        """
        value = json_object(body, frozenset({"commit", "state", "writes"})) if body.strip() else {}
        acts = []
        if "state" in value:
            acts.append(Act("PUT", STATE, orjson.dumps(object_of(value["state"], "The state"))))
        writes = value.get("writes", [])
        if type(writes) is not list or len(writes) > MAX_WRITES:
            raise InvalidInput(f"`writes` is a list of at most {MAX_WRITES}.")
        return cls((*acts, *map(_write, writes)))


def _write(value: Any) -> Act:
    """One of a commit's writes: {"path", "body", "method", "key"}; a body that is no text is sent as JSON."""
    fields = object_of(value, "A write")
    method, path, key = fields.get("method", "POST"), fields.get("path"), fields.get("key")
    if set(fields) - {"method", "path", "body", "key"} or method not in ("PUT", "POST") or type(path) is not str:
        raise InvalidInput('A write is {"path", "body"}, perhaps with "method" (PUT or POST) and "key".')
    if path in (COMMIT, ABORT) or not (key is None or type(key) is str):
        raise InvalidInput("A write ends no turn, and its key is a text.")
    body = fields.get("body", "")
    return Act(method, path, body.encode() if type(body) is str else orjson.dumps(body), key)


def reason_of(body: bytes) -> str:
    """Why a turn is given up.

    Raises:
        InvalidInput: the body is not {"reason": text}, nor empty.
    """
    value = json_object(body, frozenset({"reason"})) if body.strip() else {}
    reason = value.get("reason", "")
    if type(reason) is not str:
        raise InvalidInput("A reason is a text.")
    return reason[:_MAX_REASON]


def verdict(raw: bytes) -> Act | None:
    """How an answer ends a turn: {"commit": true, "state", "writes"}, or {"commit": false, "reason"}.

    None if it says nothing of that kind.
    """
    if raw[:1] != b"{":
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if value.get("commit") is True:
        return Act("POST", COMMIT, raw, strict=True)
    if value.get("commit") is False:
        return Act("POST", ABORT, orjson.dumps({"reason": str(value.get("reason", ""))}), strict=True)
    return None


def object_of(value: Any, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidInput: it is none.
    """
    if type(value) is not dict:
        raise InvalidInput(f"{what} is a JSON object.")
    return value
