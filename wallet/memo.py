"""The wallet memo: what relays keep for a node that has lost everything but its words. Pure.

It lists mints, how far counters have gone, and operations whose money is not final (`wallet.pending`), encrypted to the
node's own key (NIP-44), in addressable events (NIP-78). It holds no coin that is free: those derive from the words, and
relays forget. Each database writes under a name of its own, its *life*: one that was made anew never replaces what an
earlier one has written. Within a life a counter tells old from new, whatever the relay's order.

A reader takes the union of all that it is given, of each operation what is newest. A memo is a hint: everything in it
is looked up at its mint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from core.error import InvalidInput
from core.identifier import PubKey
from relays.error import NotForUs
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import APP_DATA
from wallet.cashu.address import canonical_url
from wallet.error import MemoInvalid
from wallet.payment import Kind
from wallet.pending import Pending, read_pending

VERSION = 1
PREFIX = "vendo-wallet/"
CHUNK = 24_000  # bytes of one event's plain text: NIP-44 and base64 make 33 KB of it, and many relays take 64
MAX_PARTS = 32
MAX_MINTS, MAX_COUNTERS = 200, 2_000
MAX_PENDING = 5_000  # that are read from all events together
MAX_COUNTER = 1 << 31
COUNTER_STEP = 64  # counters are told rounded up, so that not every payment changes the memo
_MAX_TEXT = 4 * CHUNK
_LIFE = 16
# What is lost first if the memo is full: invoices that nobody may ever pay.
_FIRST = {Kind.LOCK: 0, Kind.CLAIM: 1, Kind.RECEIVE: 1, Kind.MELT: 2, Kind.DEPOSIT: 3}


@dataclass(frozen=True, slots=True)
class Memo:
    """All that one database has to say. `mints` are addresses with units, `counters` the next one of each keyset."""

    mints: frozenset[tuple[str, str]] = frozenset()
    counters: Mapping[str, int] = field(default_factory=dict)
    pending: tuple[Pending, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one event says. `seq` rises with each writing of a life; `unread` entries are of no form that is known."""

    life: str
    seq: int
    part: int
    memo: Memo = field(repr=False)
    unread: int = 0


# ---------------------------------------------------------------------- writing


def rounded(counter: int) -> int:
    """A counter as it is told: never below what was used."""
    return -(-counter // COUNTER_STEP) * COUNTER_STEP


def bodies(memo: Memo) -> tuple[list[dict[str, Any]], int]:
    """The contents of the memo's events, and how many operations had no room. The same memo gives the same contents."""
    items: list[tuple[str, Any]] = [("mints", list(one)) for one in sorted(memo.mints)[:MAX_MINTS]]
    items += [("counters", list(one)) for one in sorted(memo.counters.items())[:MAX_COUNTERS]]
    ordered = sorted(memo.pending, key=lambda one: (_FIRST[one.kind], one.due, one.op_id))
    items += [("pending", one.to_dict()) for one in ordered]
    made: list[dict[str, Any]] = [_empty()]
    room, left_out = CHUNK, 0
    for name, item in items:
        size = len(orjson.dumps(item)) + 1
        if size > CHUNK or (size > room and len(made) == MAX_PARTS):
            left_out += 1
            continue
        if size > room:
            made.append(_empty())
            room = CHUNK
        made[-1][name].append(item)
        room -= size
    return made, left_out


def _empty() -> dict[str, Any]:
    return {"mints": [], "counters": [], "pending": []}


def drafts(parts: Sequence[Mapping[str, Any]], life: str, seq: int, at: int, key: Key) -> list[Draft]:
    """The events, encrypted to the author. `at` (Unix seconds) must be later than with the `seq` before."""
    found = []
    for place, body in enumerate(parts):
        text = orjson.dumps({"v": VERSION, "life": life, "seq": seq, "part": place, **body}).decode()
        found.append(Draft(APP_DATA, key.encrypt(key.pubkey, text), (("d", f"{PREFIX}{life}/{place}"),), at))
    return found


# ---------------------------------------------------------------------- reading


def is_memo(event: Event, author: PubKey) -> bool:
    """Whether an event is to be read as a part of this author's memo."""
    return event.kind == APP_DATA and event.pubkey == author and (event.value("d") or "").startswith(PREFIX)


def open_event(event: Event, key: Key) -> Chunk:
    """What an event says. It must have been verified.

    Raises:
        MemoInvalid: it is somebody else's, cannot be decrypted, or is not of this form.
    """
    if not is_memo(event, key.pubkey) or len(event.content) > _MAX_TEXT:
        raise MemoInvalid
    try:
        text = key.decrypt(key.pubkey, event.content)
    except NotForUs as error:
        raise MemoInvalid from error
    chunk = read(text)
    if event.value("d") != f"{PREFIX}{chunk.life}/{chunk.part}":
        raise MemoInvalid
    return chunk


def read(text: str) -> Chunk:
    """An event's plain text. An entry that cannot be read spoils none of the others.

    Raises:
        MemoInvalid: it is not of this form, of a later version, or too large.
    """
    if len(text) > _MAX_TEXT:
        raise MemoInvalid
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MemoInvalid from error
    if type(body) is not dict or set(body) != {"v", "life", "seq", "part", "mints", "counters", "pending"}:
        raise MemoInvalid
    life = body["life"]
    if body["v"] != VERSION or type(life) is not str or len(life) != _LIFE or not set(life) <= set("0123456789abcdef"):
        raise MemoInvalid
    if any(type(body[name]) is not list for name in ("mints", "counters", "pending")):
        raise MemoInvalid
    pending, unread = [], 0
    for one in body["pending"]:
        try:
            pending.append(_entry(one))
        except MemoInvalid:
            unread += 1
    memo = Memo(frozenset(map(_mint, body["mints"])), dict(map(_counter, body["counters"])), tuple(pending))
    return Chunk(life, _number(body["seq"], MAX_COUNTER), _number(body["part"], MAX_PARTS - 1), memo, unread)


def _entry(value: Any) -> Pending:
    found = read_pending(value)
    _address(found.mint)
    return found


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise MemoInvalid
    return value


def _pair(value: Any) -> tuple[str, Any]:
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str or len(value[0]) > 512:
        raise MemoInvalid
    return value[0], value[1]


def _address(text: str) -> None:
    try:
        if canonical_url(text) != text:
            raise MemoInvalid
    except InvalidInput as error:
        raise MemoInvalid from error


def _mint(value: Any) -> tuple[str, str]:
    url, unit = _pair(value)
    if type(unit) is not str or not 0 < len(unit) <= 16:
        raise MemoInvalid
    _address(url)
    return url, unit


def _counter(value: Any) -> tuple[str, int]:
    keyset, counter = _pair(value)
    if len(keyset) > 66 or len(keyset) % 2 or not keyset or not set(keyset) <= set("0123456789abcdef"):
        raise MemoInvalid
    return keyset, _number(counter, MAX_COUNTER)


def merged(chunks: Iterable[Chunk], *, but: str = "") -> Memo:
    """All that these say together, but for the life `but`: the union, of each operation and counter what is newest.

    Where there is too much, the newest and what matters most is kept.
    """
    mints: set[tuple[str, str]] = set()
    counters: dict[str, int] = {}
    pending: dict[str, Pending] = {}
    for chunk in sorted((one for one in chunks if one.life != but), key=lambda one: (-one.seq, one.part)):
        mints |= chunk.memo.mints | {(one.mint, one.unit) for one in chunk.memo.pending}
        for keyset, counter in chunk.memo.counters.items():
            counters[keyset] = max(counter, counters.get(keyset, 0))
        for one in chunk.memo.pending:
            pending.setdefault(one.op_id, one)
    kept = sorted(pending.values(), key=lambda one: _FIRST[one.kind])[:MAX_PENDING]
    first = dict(sorted(counters.items())[:MAX_COUNTERS])
    return Memo(frozenset(sorted(mints)[:MAX_MINTS]), first, tuple(kept))
