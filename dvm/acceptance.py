"""The buyer's check of a result, per kind: what passes counts as delivered. Pure."""

from dvm.error import BadResult
from dvm.nonce import check_mined, parse_bits
from dvm.request import ComputeRequest

MAX_RESULT_BYTES = 60_000
SUMMARIZE = 5001
PROOF_OF_WORK = 5970


def param(request: ComputeRequest, name: str, default: str = "") -> str:
    """The first value of a parameter."""
    for item in request.params:
        if item[0] == name and len(item) > 1:
            return item[1]
    return default


def check_result(request: ComputeRequest, content: str) -> None:
    """Whether a result is one.

    Raises:
        BadResult: with what is wrong.
    """
    if not content.strip():
        raise BadResult("The result is empty.")
    if len(content.encode(errors="replace")) > MAX_RESULT_BYTES:
        raise BadResult(f"The result is longer than {MAX_RESULT_BYTES} bytes.")
    if request.kind == SUMMARIZE:
        source = sum(len(item.data) for item in request.inputs if item.type == "text")
        if source and len(content) >= source:
            raise BadResult("The summary is not shorter than the text.")
    elif request.kind == PROOF_OF_WORK:
        check_mined(request.inputs[0].data, parse_bits(param(request, "pow", "0")), content)
