"""Range-based set reconciliation (NIP-77, Negentropy protocol version 1): which events has the other side, and we not?

Both sides sort what they hold by (created_at, id). They compare fingerprints of ranges, split those that differ, and
name the ids of those that are small. Pure: hex text in, hex text out; who speaks and over what is a driver's business.
No message of ours is longer than the frame limit, and no message of theirs costs more than its own length times the
logarithm of what is held.
"""

import hashlib
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.identifier import is_hex64
from relays.error import MalformedSync

VERSION = 0x61
FRAME_BYTES = 60_000  # its hex and the relay message around it stay below the usual 128 KiB
LEAST_FRAME_BYTES = 4_096  # NIP-77: below that a side may come to a standstill
MAX_MESSAGE_BYTES = 1 << 20
MAX_ROUNDS = 2_048
MAX_DIFFERENCES = 500_000

_SKIP, _FINGERPRINT, _IDS = 0, 1, 2
_INFINITY = (1 << 64) - 1
_LATEST = 1 << 53
_TIME_BYTES, _ID_BYTES, _FINGERPRINT_BYTES = 8, 32, 16
_BLOCK = 32  # items whose ids are summed beforehand
_BUCKETS = 16
_SPARE = 200  # kept free in a frame for the range that ends it
_MODULUS = 1 << 256

_Bound = tuple[int, bytes]  # the first (created_at, start of an id) that no longer belongs to the range
_END: _Bound = (_INFINITY, b"")


@dataclass(frozen=True, slots=True)
class Step:
    """What one message from the other side brought.

    Attributes:
        reply: the next message in hex; None when both sides have agreed.
        have: ids that we hold and the other side does not; each is told once.
        need: ids that the other side holds and we do not; each is told once.
    """

    reply: str | None
    have: list[str]
    need: list[str]


class Vector:
    """What one side holds: (created_at in Unix seconds, id in hex), sorted and without repeats; never changed.

    Takes about 50 bytes an item.

    Raises:
        MalformedSync: an item is no such pair.
    """

    def __init__(self, items: Iterable[tuple[int, str]]) -> None:
        ordered = sorted({_key(at, event_id) for at, event_id in items})  # bytes sort far faster than pairs
        self._times = array("Q", b"".join([key[:_TIME_BYTES] for key in ordered]))
        if sys.byteorder == "little":
            self._times.byteswap()
        self._ids = b"".join([key[_TIME_BYTES:] for key in ordered])
        self._sums = list(self._accumulate())

    def __len__(self) -> int:
        return len(self._times)

    def _accumulate(self) -> Iterator[int]:
        total = 0
        yield total
        for low in range(0, len(self._times) - _BLOCK + 1, _BLOCK):
            total = (total + self._added(low, low + _BLOCK)) % _MODULUS
            yield total

    def _added(self, low: int, high: int) -> int:
        ids, as_number = self._ids, int.from_bytes
        places = range(low * _ID_BYTES, high * _ID_BYTES, _ID_BYTES)
        return sum([as_number(ids[at : at + _ID_BYTES], "little") for at in places])

    def _up_to(self, index: int) -> int:
        block = index // _BLOCK
        return self._sums[block] + self._added(block * _BLOCK, index)

    def raw(self, index: int) -> bytes:
        """The id at a place, as 32 bytes."""
        return self._ids[index * _ID_BYTES : (index + 1) * _ID_BYTES]

    def place(self, bound: _Bound, low: int = 0) -> int:
        """Where the items from the bound on begin, looking from `low` on."""
        at, prefix = bound
        first = bisect_left(self._times, at, low)
        if not prefix:
            return first
        last = bisect_right(self._times, at, first)
        return bisect_left(range(len(self)), prefix, first, last, key=self.raw)

    def fingerprint(self, low: int, high: int) -> bytes:
        """Of the items from `low` up to `high`: 16 bytes of SHA-256 over the ids' sum and their number."""
        total = (self._up_to(high) - self._up_to(low)) % _MODULUS
        return hashlib.sha256(total.to_bytes(32, "little") + _varint(high - low)).digest()[:_FINGERPRINT_BYTES]

    def bound(self, index: int) -> _Bound:
        """The shortest bound that parts the item at `index` from the one before it."""
        at, before = self._times[index], self._times[index - 1]
        if at != before:
            return at, b""
        raw, earlier = self.raw(index), self.raw(index - 1)
        same = next(place for place in range(_ID_BYTES) if raw[place] != earlier[place])
        return at, raw[: same + 1]


class Initiator:
    """The side that opens, learns both differences, and decides when it is done.

    Args:
        vector: what we hold.
        frame_bytes: no message of ours is longer, before hex.
    """

    def __init__(self, vector: Vector, frame_bytes: int = FRAME_BYTES) -> None:
        self._vector = vector
        self._frame_bytes = _frame(frame_bytes)
        self._rounds = 0
        self._told: set[str] = set()

    def start(self) -> str:
        """The first message (NEG-OPEN), in hex."""
        out = _Writer()
        _split(self._vector, 0, len(self._vector), _END, out)
        return out.hex()

    def receive(self, message: str) -> Step:
        """Take the other side's answer (NEG-MSG), in hex.

        Raises:
            MalformedSync: it is not version 1 of the protocol, there is no end to it, or too much differs.
        """
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise MalformedSync(f"The other side has not come to an end in {MAX_ROUNDS} rounds.")
        raw = _unhex(message)
        if raw[0] != VERSION:
            raise MalformedSync("The other side speaks another version of Negentropy.")
        exchange = _Exchange(self._vector, self._frame_bytes, initiator=True)
        reply = exchange.answer(raw)
        return Step(reply.hex() if reply else None, self._new(exchange.have), self._new(exchange.need))

    def _new(self, ids: list[str]) -> list[str]:
        """Those that were not told before: a full frame of theirs compares again what was settled to its right."""
        fresh = [one for one in ids if one not in self._told]
        self._told.update(fresh)
        if len(self._told) > MAX_DIFFERENCES:
            raise MalformedSync(f"The two sides differ in more than {MAX_DIFFERENCES} events.")
        return fresh


def respond(vector: Vector, message: str, frame_bytes: int = FRAME_BYTES) -> str:
    """The answer of the side that keeps no state: hex in, hex out (NIP-77).

    To another version of the protocol the answer is ours, alone.

    Raises:
        MalformedSync: the message is not Negentropy.
    """
    raw = _unhex(message)
    if raw[0] != VERSION:
        if raw[0] >> 4 != VERSION >> 4:
            raise MalformedSync("The message names no version of Negentropy.")
        return f"{VERSION:02x}"
    reply = _Exchange(vector, _frame(frame_bytes), initiator=False).answer(raw)
    return reply.hex() or f"{VERSION:02x}"


class _Reader:
    """Takes a message apart; every fault in it is a `MalformedSync`."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 1  # behind the version
        self._time = 0
        self._before: _Bound = (0, b"")

    def more(self) -> bool:
        return self._at < len(self._raw)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._raw):
            raise MalformedSync("The message ends too early.")
        part, self._at = self._raw[self._at : end], end
        return part

    def number(self) -> int:
        value = 0
        for _ in range(10):
            byte = self.take(1)[0]
            value = value << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        else:
            raise MalformedSync("A number in the message is too long.")
        if value > _INFINITY:
            raise MalformedSync("A number in the message is too large.")
        return value

    def bound(self) -> _Bound:
        delta = self.number()
        known = self._time != _INFINITY and delta != 0
        self._time = min(self._time + delta - 1, _INFINITY) if known else _INFINITY
        length = self.number()
        if length > _ID_BYTES:
            raise MalformedSync("A bound in the message is longer than an id.")
        bound = self._time, self.take(length)
        if bound < self._before:
            raise MalformedSync("The ranges in the message are not in order.")
        self._before = bound
        return bound

    def ids(self) -> dict[bytes, None]:
        count = self.number()
        raw = self.take(count * _ID_BYTES)
        return dict.fromkeys(raw[at : at + _ID_BYTES] for at in range(0, len(raw), _ID_BYTES))


class _Writer:
    """Puts a message together. A skipped range is written only once something follows it."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._time = 0
        self._skipped: _Bound | None = None

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __len__(self) -> int:
        return 1 + len(self._parts)

    def hex(self) -> str:
        return (bytes((VERSION,)) + self._parts).hex() if self._parts else ""

    def mark(self) -> tuple[int, int, _Bound | None]:
        return len(self._parts), self._time, self._skipped

    def back(self, mark: tuple[int, int, _Bound | None]) -> None:
        size, self._time, self._skipped = mark
        del self._parts[size:]

    def skip(self, bound: _Bound) -> None:
        self._skipped = bound

    def fingerprint(self, bound: _Bound, value: bytes) -> None:
        self._range(bound, _FINGERPRINT, value)

    def ids(self, bound: _Bound, ids: Sequence[bytes]) -> None:
        self._range(bound, _IDS, _varint(len(ids)) + b"".join(ids))

    def _range(self, bound: _Bound, mode: int, payload: bytes) -> None:
        if self._skipped is not None:
            skipped, self._skipped = self._skipped, None
            self._range(skipped, _SKIP, b"")
        at, prefix = bound
        if at == _INFINITY:
            self._parts += _varint(0)
        else:
            self._parts += _varint(at - self._time + 1)
            self._time = at
        self._parts += _varint(len(prefix)) + prefix + _varint(mode) + payload


class _Exchange:
    """One message of theirs turned into one of ours."""

    def __init__(self, vector: Vector, frame_bytes: int, *, initiator: bool) -> None:
        self._vector = vector
        self._room = frame_bytes - _SPARE
        self._initiator = initiator
        self._out = _Writer()
        self.have: list[str] = []
        self.need: list[str] = []

    def answer(self, raw: bytes) -> _Writer:
        reader, low = _Reader(raw), 0
        while reader.more():
            bound = reader.bound()
            high = self._vector.place(bound, low)
            mark = self._out.mark()
            reached = self._range(reader, low, high, bound)
            if reached < high or len(self._out) > self._room:
                if reached == high:
                    self._out.back(mark)
                    reached = low
                self._rest(reached)
                break
            low = high
        return self._out

    def _range(self, reader: _Reader, low: int, high: int, bound: _Bound) -> int:
        """Answer one range; the place up to which it was answered."""
        mode = reader.number()
        if mode == _FINGERPRINT:
            if reader.take(_FINGERPRINT_BYTES) != self._vector.fingerprint(low, high):
                _split(self._vector, low, high, bound, self._out)
                return high
        elif mode == _IDS:
            theirs = reader.ids()
            if not self._initiator:
                return self._name(low, high, bound)
            self._compare(theirs, low, high)
        elif mode != _SKIP:
            raise MalformedSync("The message has a range of an unknown mode.")
        self._out.skip(bound)
        return high

    def _compare(self, theirs: dict[bytes, None], low: int, high: int) -> None:
        for index in range(low, high):
            raw = self._vector.raw(index)
            if raw in theirs:
                del theirs[raw]
            else:
                self.have.append(raw.hex())
        self.need.extend(raw.hex() for raw in theirs)

    def _name(self, low: int, high: int, bound: _Bound) -> int:
        """Name what we hold in a range, as far as the frame has room."""
        fits = max(0, (self._room - len(self._out) - _SPARE) // _ID_BYTES)
        end = min(high, low + fits)
        if end == low and high > low:
            return low
        ids = [self._vector.raw(index) for index in range(low, end)]
        self._out.ids(bound if end == high else self._vector.bound(end), ids)
        return end

    def _rest(self, low: int) -> None:
        """The frame is full: all from here on is one range, whose fingerprint opens the next round."""
        self._out.fingerprint(_END, self._vector.fingerprint(low, len(self._vector)))


def _split(vector: Vector, low: int, high: int, bound: _Bound, out: _Writer) -> None:
    """A range that differs: its ids if they are few, else fingerprints of its parts."""
    count = high - low
    if count < 2 * _BUCKETS:
        out.ids(bound, [vector.raw(index) for index in range(low, high)])
        return
    size, longer = divmod(count, _BUCKETS)
    for bucket in range(_BUCKETS):
        end = low + size + (bucket < longer)
        out.fingerprint(bound if end == high else vector.bound(end), vector.fingerprint(low, end))
        low = end


def _varint(value: int) -> bytes:
    """Base 128, most significant first, the high bit on all but the last."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def _unhex(message: str) -> bytes:
    if len(message) > 2 * MAX_MESSAGE_BYTES:
        raise MalformedSync(f"The message is longer than {MAX_MESSAGE_BYTES} bytes.")
    try:
        raw = bytes.fromhex(message)
    except ValueError as error:
        raise MalformedSync("The message is not hex.") from error
    if not raw:
        raise MalformedSync("The message is empty.")
    return raw


def _frame(frame_bytes: int) -> int:
    if frame_bytes < LEAST_FRAME_BYTES:
        raise MalformedSync(f"A frame has at least {LEAST_FRAME_BYTES} bytes.")
    return frame_bytes


def _key(at: int, event_id: str) -> bytes:
    """An item as bytes that sort as it does."""
    if type(at) is not int or not 0 <= at < _LATEST:
        raise MalformedSync("A created_at is a whole number of seconds in range.")
    if not is_hex64(event_id):
        raise MalformedSync("An id is 64 lower-case hex digits.")
    return at.to_bytes(_TIME_BYTES, "big") + bytes.fromhex(event_id)
