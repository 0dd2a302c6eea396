"""How a recording is written down: JSON behind a head that says the form and holds a checksum; pressed if long. Pure.

Bodies over `INLINE` bytes are left out of it and named by their SHA-256. No secret is in either: most recordings are
written once and looked over as a whole; only if that finds a trace of one is every text in it cleaned by itself.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import orjson

from node.agent.error import RecordingDamaged, RecordingNewer
from node.agent.replay.recording import ENVELOPE, End, Recording, Start, Text
from node.agent.replay.redactor import SHORT, Redactor, digest_of
from node.agent.replay.tape import Answer, Argument, Body, Fault, Step, canonical

FORM = 1
INLINE = 2_048

_PRESS_FROM = 4_096
_MAX_JSON = 64 * 1_048_576
_HEAD = struct.Struct(">BBII")  # form, whether pressed, CRC-32 and length of the JSON
_PAYLOAD = ENVELOPE.index("payload")

Clean: TypeAlias = Callable[[str], str]


class _Writer:
    """Makes JSON of one recording; what is large goes to `blobs`. Without `clean`, short texts stay as they are."""

    __slots__ = ("_clean", "_inline", "_redactor", "blobs")

    def __init__(self, redactor: Redactor, clean: Clean | None, inline: int) -> None:
        self._redactor, self._clean, self._inline = redactor, clean, inline
        self.blobs: dict[str, bytes] = {}

    def whole(self, recording: Recording) -> bytes:
        start, steps, end, cut = recording
        agent, tick_id, program, code, version, state, config, envelope, now_ms, until_ms, flags = start
        fields = [envelope.get(name) for name in ENVELOPE]
        payload, fields[_PAYLOAD] = fields[_PAYLOAD], ""
        if self._clean is not None:
            fields = [self._word(field) for field in fields]
        fields[_PAYLOAD] = self._text(payload)
        # a large state after the tick is not kept twice: it is the one before the next
        after = self._text(end.state, keep=False)
        ended = (end.state_version, after, end.code, self._word(end.message), end.late)
        said = [(op, self._args(args), self._answer(answer)) for op, args, answer in steps]
        head = (agent, tick_id, program, code, version, now_ms, until_ms, flags, cut)
        return orjson.dumps((head, self._text(state), self._text(config), fields, said, ended))

    def _word(self, value: Any) -> Any:
        return value if self._clean is None or not isinstance(value, str) else self._clean(value)

    def _text(self, text: Any, *, keep: bool = True) -> Any:
        """`keep`: a large one goes to the blobs; else only its digest is kept."""
        if type(text) is str and len(text) <= self._inline:
            return text if self._clean is None else self._clean(text)
        if isinstance(text, Body):
            return ("h", text.digest, text.size)
        return self._large(self._redactor.text(text).encode(), keep=keep)

    def _large(self, body: bytes, *, keep: bool = True) -> Any:
        digest = digest_of(body)
        if keep:
            self.blobs[digest] = body
        return ("h", digest, len(body))

    def _args(self, args: Sequence[Argument]) -> Sequence[Argument]:
        if self._clean is None:
            for arg in args:
                if type(arg) is not str or len(arg) > SHORT:
                    break
            else:
                return args
        return canonical(args, self._redactor)

    def _answer(self, answer: Answer) -> Any:
        if isinstance(answer, bytes):
            if len(answer) > self._inline:
                return self._large(self._redactor.body(answer))
            try:
                return self._word(answer.decode())
            except UnicodeDecodeError:
                return ("l", self._redactor.body(answer).decode("latin-1"))
        if isinstance(answer, Fault):
            context = [(name, self._word(value)) for name, value in answer.context]
            return ("e", answer.code, self._word(answer.message), self._word(answer.advice), context)
        return None if answer is None else ("h", answer.digest, answer.size)


def encode(recording: Recording, redactor: Redactor, inline: int = INLINE) -> tuple[bytes, dict[str, bytes]]:
    """A recording as bytes, and the bodies of over `inline` bytes beside it: digest → body. No secret is in either."""
    writer = _Writer(redactor, None, inline)
    try:
        raw = writer.whole(recording)
        careful = redactor.suspects(raw.decode())
    except orjson.JSONEncodeError:  # a text that is no Unicode
        careful = True
    if careful:
        writer = _Writer(redactor, redactor.text, inline)
        raw = writer.whole(recording)
    pressed = zlib.compress(raw, 1) if len(raw) >= _PRESS_FROM else raw
    return _HEAD.pack(FORM, pressed is not raw, zlib.crc32(raw), len(raw)) + pressed, writer.blobs


def decode(body: bytes) -> Recording:
    """The recording in a row; its large bodies are `Body`s, which `Recording.filled` puts in.

    Raises:
        RecordingDamaged: it is not as it was written.
        RecordingNewer: its form is not known here.
    """
    try:
        return _read(_json(body))
    except (ValueError, TypeError, IndexError, struct.error, zlib.error) as error:
        raise RecordingDamaged from error


def _json(body: bytes) -> Any:
    form, pressed, checksum, length = _HEAD.unpack_from(body)
    if form > FORM:
        raise RecordingNewer
    if form != FORM or pressed > 1 or length > _MAX_JSON:
        raise RecordingDamaged
    raw = body[_HEAD.size :]
    if pressed:
        raw = zlib.decompressobj().decompress(raw, length + 1)
    if len(raw) != length or zlib.crc32(raw) != checksum:
        raise RecordingDamaged
    return orjson.loads(raw)


def _read(value: Any) -> Recording:
    head, state, config, fields, said, ended = value
    agent, tick_id, program, code, version, now_ms, until_ms, flags, cut = head
    envelope = dict(zip(ENVELOPE, fields, strict=True))
    envelope["payload"] = _read_text(envelope["payload"])
    texts = _read_text(state), _read_text(config)
    start = Start(agent, tick_id, program, code, version, *texts, envelope, now_ms, until_ms, tuple(flags))
    steps = tuple(Step(op, tuple(args), _read_answer(answer)) for op, args, answer in said)
    state_version, after, error, message, late = ended
    return Recording(start, steps, End(state_version, _read_text(after), error, message, late), cut)


def _read_text(value: Any) -> Text:
    return value if isinstance(value, str) else Body(value[1], value[2])


def _read_answer(value: Any) -> Answer:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    match value[0]:
        case "e":
            return Fault(value[1], value[2], value[3], tuple((name, part) for name, part in value[4]))
        case "l":
            return bytes(value[1].encode("latin-1"))
        case "h":
            return Body(value[1], value[2])
        case _:
            raise RecordingDamaged
