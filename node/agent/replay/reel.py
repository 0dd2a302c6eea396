"""Where recordings are kept: rows that are written with their tick, and read again when it is replayed. Pure.

A recording is one row. Large bodies stand beside it in the table `blob`, each once for all that name it, as long as
`[retention]` says; a replay that needs one that is gone says so.
"""

import zlib
from collections.abc import Iterable, Mapping

from core.unit import Among, Insert, UnitOfWork, Update, Within, Write
from node.agent.error import NotRecorded, RecordingDamaged
from node.agent.replay.notation import decode, encode
from node.agent.replay.recording import End, Recording, Start
from node.agent.replay.redactor import Redactor, digest_of
from node.agent.replay.tape import Body, LiveTape

_FRESH_S = 86_400
_MAX_BLOB = 64 * 1_048_576
_PLAIN = Redactor()


def writes(start: Start, tape: LiveTape, end: End, at_ms: int) -> list[Write]:
    """The rows of a recording, for its tick's own commit."""
    body, blobs = encode(Recording(start, tuple(tape.steps), end, tape.cut), tape.redactor)
    row = Insert("recording", {"tick_id": start.tick_id, "agent": start.agent, "at_ms": at_ms, "body": body})
    return [row, *_blob_rows(blobs, at_ms // 1000)] if blobs else [row]


def _blob_rows(blobs: Mapping[str, bytes], at: int) -> Iterable[Write]:
    """`at` of a body is at most a day before its last use: retention counts from there."""
    for digest, raw in blobs.items():
        pressed = zlib.compress(raw, 1)
        body = b"z" + pressed if len(pressed) < len(raw) else b"r" + raw
        yield Insert("blob", {"digest": digest, "body": body, "at": at}, or_ignore=True)
        yield Update("blob", {"digest": digest, "at": Within(high=at - _FRESH_S)}, set={"at": at}, rows=None)


def blob_body(digest: str, body: bytes) -> bytes:
    """A large body as it was, from its row.

    Raises:
        RecordingDamaged: it is another one.
    """
    try:
        raw = zlib.decompressobj().decompress(body[1:], _MAX_BLOB) if body[:1] == b"z" else body[1:]
    except zlib.error as error:
        raise RecordingDamaged(f"The body {digest[:12]}… of a recording cannot be read.") from error
    if digest_of(raw) != digest:
        raise RecordingDamaged(f"The body {digest[:12]}… of a recording is another one.")
    return raw


async def load(unit: UnitOfWork, agent: str, tick_id: str) -> Recording:
    """A recording with those of its large bodies that are still there.

    Raises:
        NotRecorded: there is none.
        RecordingDamaged: it, or a body, is not as it was written.
        RecordingNewer: a newer version wrote it.
    """
    rows = await unit.select("recording", {"tick_id": tick_id})
    if not rows or rows[0]["agent"] != agent:
        raise NotRecorded
    recording = decode(rows[0]["body"])
    digests = recording.digests()
    if not digests:
        return recording
    found = await unit.select("blob", {"digest": Among(tuple(sorted(digests)))})
    bodies = {row["digest"]: blob_body(row["digest"], row["body"]) for row in found}
    if isinstance(recording.end.state, Body) and recording.end.state.digest not in bodies:
        bodies |= await _last_state(unit, agent)
    return recording.filled(bodies)


async def _last_state(unit: UnitOfWork, agent: str) -> dict[str, bytes]:
    """The state that the last tick left stands in no recording yet, but in the agent's row."""
    rows = await unit.select("agent", {"name": agent}, columns=("state",))
    body = _PLAIN.text(rows[0]["state"]).encode() if rows else b""
    return {digest_of(body): body}


def whole(recording: Recording) -> bytes:
    """A recording in one piece, with its large bodies in it; `decode` reads it."""
    return encode(recording, _PLAIN, _MAX_BLOB)[0]
