"""What comes over the wire in pieces: lists of objects, and server-sent events. Nothing is held longer than needed."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_BETWEEN = re.compile(r"[\s\[\],]*")
END = "end"
GAP = "gap"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One record of a stream: its cursor, its type, its data."""

    id: str
    type: str
    data: str

    def told(self, name: str) -> str:
        """Of an `end`: a field of what it says, `reason` or `code`; empty if it does not say it."""
        try:
            about = json.loads(self.data)
        except ValueError:
            return ""
        return str(about.get(name, "")) if isinstance(about, dict) else ""


def objects(pieces: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, or of lines of JSON (NDJSON), each as soon as all of it is there.

    Raises:
        ValueError: it is neither, or ends in the midst of one.
    """
    decoder, text, rest = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), ""
    for piece in pieces:
        rest += text.decode(piece)
        at = 0
        while (at := _after(rest, at)) < len(rest):
            try:
                value, at = decoder.raw_decode(rest, at)
            except json.JSONDecodeError:
                break  # the rest of it comes with the next piece
            if not isinstance(value, dict):
                raise ValueError("a list of objects was expected")
            yield value
        rest = rest[at:]
    if rest:
        raise ValueError("the list ends in the midst of an object")


def _after(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found is not None else at


def records(lines: Iterable[bytes]) -> Iterator[StreamRecord]:
    """The records of a stream of server-sent events (WHATWG HTML §9.2.6); comments keep it alive and say nothing."""
    name, cursor = "message", ""
    data: list[str] = []
    for raw in lines:
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
        if not line:
            if data:
                yield StreamRecord(cursor, name, "\n".join(data))
            name, data = "message", []
