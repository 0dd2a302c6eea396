"""The buyer's check of a result, per kind: what passes counts as delivered. Pure.

What is checked is the form that the registry of kinds gives to a result (data-vending-machines.org): whether an answer
is of that form can be said for certain, whether it is a good one cannot. Kinds without a form pass if they are text.
"""

from collections.abc import Callable
from typing import Any

import orjson

from core.error import InvalidInput
from core.identifier import is_hex64
from dvm.error import BadResult
from dvm.nonce import check_mined, parse_bits
from dvm.request import ComputeRequest

MAX_RESULT_BYTES = 60_000
SUMMARIZE = 5001
PROOF_OF_WORK = 5970
MAX_DEPTH = 8  # groups in groups of a count
Check = Callable[[ComputeRequest, str], None]


def param(request: ComputeRequest, name: str, default: str = "") -> str:
    """The first value of a parameter."""
    for item in request.params:
        if item[0] == name and len(item) > 1:
            return item[1]
    return default


def check_result(request: ComputeRequest, content: str, most: int = MAX_RESULT_BYTES) -> None:
    """Whether a result is one, of at most so many bytes.

    Raises:
        BadResult: with what is wrong.
    """
    if not content.strip():
        raise BadResult("The result is empty.")
    if len(content.encode(errors="replace")) > most:
        raise BadResult(f"The result is longer than {most} bytes.")
    check = CHECKS.get(request.kind)
    if check is not None:
        check(request, content)


def _summary(request: ComputeRequest, content: str) -> None:
    source = sum(len(item.data) for item in request.inputs if item.type == "text")
    if source and len(content) >= source:
        raise BadResult("The summary is not shorter than the text.")


def _mined(request: ComputeRequest, content: str) -> None:
    if not request.inputs:
        raise BadResult("There was no event to mine.")
    try:
        check_mined(request.inputs[0].data, parse_bits(param(request, "pow", "0")), content)
    except BadResult:
        raise
    except InvalidInput as error:  # it is the request that is not in order
        raise BadResult("What was sent is no event that could be mined.") from error


def _json(content: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadResult("The result is not JSON.") from error


def _tags_of(*names: str) -> Check:
    def check(request: ComputeRequest, content: str) -> None:
        found = _json(content)
        if type(found) is not list:
            raise BadResult("The result is not a list of tags.")
        for tag in found:
            if type(tag) is not list or len(tag) < 2 or not all(type(part) is str for part in tag):
                raise BadResult("The result holds something that is not a tag.")
            if tag[0] not in names or not _names_something(tag[0], tag[1]):
                raise BadResult(f"The result holds a tag that names no {' or '.join(names)}: {tag[0][:20]}.")

    return check


def _names_something(name: str, value: str) -> bool:
    if name != "a":
        return is_hex64(value)
    kind, _, rest = value.partition(":")
    return kind.isascii() and kind.isdigit() and is_hex64(rest.partition(":")[0])


def _count(request: ComputeRequest, content: str) -> None:
    if not _is_count(_json(content), MAX_DEPTH):
        raise BadResult("The result is neither a number nor numbers by group.")


def _is_count(value: Any, depth: int) -> bool:
    if type(value) is dict:
        return depth > 0 and all(_is_count(part, depth - 1) for part in value.values())
    return type(value) is int and value >= 0


def _id(what: str) -> Check:
    def check(request: ComputeRequest, content: str) -> None:
        if not is_hex64(content.strip().lower()):
            raise BadResult(f"The result is not the id of {what}, 64 hex digits.")

    return check


def _link(request: ComputeRequest, content: str) -> None:
    if not any(start in content for start in ("https://", "http://")):
        raise BadResult("The result names no URL.")


CHECKS: dict[int, Check] = {
    SUMMARIZE: _summary,
    5100: _link,  # an image
    5200: _link,  # a video, converted
    5201: _link,  # translated
    5202: _link,  # made of an image
    5250: _link,  # speech
    5300: _tags_of("e", "a"),  # content, discovered
    5301: _tags_of("p", "e", "a"),  # people; the registry's text says e or a
    5302: _tags_of("e", "a"),  # content, searched
    5303: _tags_of("p"),  # people, searched
    5400: _count,
    5900: _id("a timestamp's event"),
    5901: _id("a transaction"),
    PROOF_OF_WORK: _mined,
}
