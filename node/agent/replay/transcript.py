"""A recorded tick as people read it: what it began with, each step, and how it ended. Pure."""

from typing import Any

import orjson

from node.agent.replay.recording import End, Recording, Text
from node.agent.replay.tape import Answer, Body, Fault

_SHOWN = 2_000


def transcript(recording: Recording) -> dict[str, Any]:
    """The whole of it as JSON; of long answers the beginning."""
    start = recording.start
    return {
        "program": start.program,
        "code": start.code,
        "now_ms": start.now_ms,
        "flags": list(start.flags),
        "trigger": {**start.envelope, "payload": _json(start.envelope["payload"])},
        "config": _json(start.config),
        "state_version": start.state_version,
        "state": _json(start.state),
        "steps": [
            {"n": n, "op": step.op, "args": list(step.args), "answer": _answer(step.answer)}
            for n, step in enumerate(recording.steps, 1)
        ],
        "cut": recording.cut,
        "end": _end(recording.end),
    }


def _end(end: End) -> dict[str, Any]:
    if end.code:
        return {"error": {"code": end.code, "message": end.message}}
    return {"state_version": end.state_version, "state": _json(end.state)}


def _gone(body: Body) -> dict[str, Any]:
    return {"gone": {"sha256": body.digest, "bytes": body.size}}


def _json(text: Text) -> Any:
    if isinstance(text, Body):
        return _gone(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # a handle has taken the place of a number
        return text


def _answer(answer: Answer) -> Any:
    if isinstance(answer, Fault):
        return {"error": {"code": answer.code, "message": answer.message}}
    if isinstance(answer, Body):
        return _gone(answer)
    if answer is None:
        return None
    text = answer[:_SHOWN].decode("utf-8", "replace")
    return text if len(answer) <= _SHOWN else {"begins": text, "bytes": len(answer)}
