"""Directories over HTTP: a short one sorted and in one, a very long one as it comes, in constant memory.

As JSON (a list), as JSON Lines (`Accept: application/x-ndjson`), or as text for people (`Accept: text/plain`).
"""

from collections.abc import AsyncIterator, Callable, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

import orjson
from aiohttp import web

from node.http.answer import answer_pieces, json_answer, wants_text
from node.http.guard import HEADERS

SORTED = 1_000  # so many entries are sorted; a longer directory comes in its own order
_BLOCK = 64 << 10
NDJSON = "application/x-ndjson"

T = TypeVar("T")


class Form(Generic[T]):
    """How entries are written: what begins, parts and ends them.

    Args:
        media: the Content-Type.
        line: one entry.
        begin: before all of them.
        between: between two of them.
        end: after all of them.
    """

    def __init__(
        self, media: str, line: Callable[[T], bytes], begin: bytes = b"", between: bytes = b"", end: bytes = b""
    ) -> None:
        self.media, self.line = media, line
        self.begin, self.between, self.end = begin, between, end


def form_of(request: web.BaseRequest, shown: Callable[[T], Any], text: Callable[[T], str]) -> Form[T]:
    """What the client wants. `shown` makes JSON of an entry, `text` a line for people."""
    if wants_text(request):
        return Form("text/plain; charset=utf-8", lambda one: text(one).encode())
    if NDJSON in request.headers.get("Accept", ""):
        return Form(NDJSON, lambda one: orjson.dumps(shown(one), option=orjson.OPT_APPEND_NEWLINE))
    return Form("application/json", lambda one: orjson.dumps(shown(one)), b"[\n", b",\n", b"\n]\n")


async def answer_entries(
    request: web.BaseRequest,
    entries: AsyncIterator[T],
    form: Form[T],
    key: Callable[[T], str],
    plain: Callable[[list[T]], web.Response] | None = None,
) -> web.StreamResponse:
    """Send entries; what goes wrong before the first `SORTED` of them is an answer of its own.

    Args:
        request: what is answered.
        entries: they come one after the other.
        form: how they are written.
        key: by what a short list is sorted.
        plain: how a short list is answered, if not in the form.
    """
    first: list[T] = []
    async for entry in entries:
        first.append(entry)
        if len(first) > SORTED:
            return await answer_pieces(request, form.media, _blocks(first, entries, form))
    first.sort(key=key)
    if plain is not None:
        return plain(first)
    body = form.begin + form.between.join(map(form.line, first)) + form.end
    return web.Response(body=body, headers={**HEADERS, "Content-Type": form.media})


async def _blocks(first: list[T], rest: AsyncIterator[T], form: Form[T]) -> AsyncIterator[bytes]:
    block = bytearray(form.begin + form.between.join(map(form.line, first)))
    async for entry in rest:
        block += form.between + form.line(entry)
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block + form.end)


def entry_line(row: Mapping[str, Any]) -> str:
    """One agent's line for people."""
    return "\t".join(str(value) for value in islice(row.values(), 2)) + "\n"


def json_list(request: web.BaseRequest) -> Callable[[list[Any]], web.Response] | None:
    """Short lists as indented JSON, as everything else is; None where another form is wanted."""
    if wants_text(request) or NDJSON in request.headers.get("Accept", ""):
        return None
    return lambda rows: json_answer([row.to_dict() if hasattr(row, "to_dict") else row for row in rows])
