"""Server-sent events (WHATWG HTML §9.2): what a record, a pause and an end look like, and where a client goes on."""

import re
from dataclasses import dataclass
from enum import StrEnum

import orjson
from aiohttp import web

from fs.protocol import Record
from node.http.error import BadRequest

KEEP_ALIVE = b": keep-alive\n\n"
RETRY = b"retry: 1000\n\n"
_MAX_CURSOR = 1 << 63
_LINE = re.compile(r"\r\n|\r|\n")  # and no other: what Python takes for a line's end may stand within JSON


class Reason(StrEnum):
    """Why a stream ended."""

    COMPLETE = "complete"  # there is no more
    SHUTDOWN = "shutdown"  # the node stops; go on from the last id when it is back
    TOO_SLOW = "too_slow"  # the reader did not keep up; go on from the last id
    REVOKED = "revoked"  # the token that opened it is no longer good
    ERROR = "error"  # what it is read from failed; `code` says how
    GONE = "gone"  # the reader has left: nobody is told


@dataclass(frozen=True, slots=True)
class End:
    """The end of a stream: the reason, and the error's code if there is one."""

    reason: Reason
    code: str = ""


def cursor(request: web.BaseRequest) -> int | None:
    """Where to go on: `Last-Event-ID`, or `?after=`; None is from now on.

    Raises:
        BadRequest: it is not a whole number.
    """
    text = request.headers.get("Last-Event-ID") or request.query.get("after") or ""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) >= _MAX_CURSOR:
        raise BadRequest("The cursor of a stream is a whole number from 0.")
    return int(text)


def frame(record: Record) -> bytes:
    """One record as one event; data of several lines is several `data` lines."""
    name = record.type if record.type.isprintable() else "".join(filter(str.isprintable, record.type))
    text = record.data.decode("utf-8", "replace")
    data = "".join(f"data: {line}\n" for line in _LINE.split(text)) if _LINE.search(text) else f"data: {text}\n"
    return f"id: {record.id}\nevent: {name or 'message'}\n{data}\n".encode()


def end_frame(end: End) -> bytes:
    """The last event. It has no id, so that whoever goes on does so from the last record."""
    said = {"reason": end.reason.value, **({"code": end.code} if end.code else {})}
    return b"event: end\ndata: %b\n\n" % orjson.dumps(said)
