"""What a program has in one tick: its state, its files, its own memory, and ways to ask for more.

All of it goes through the tick's tape, so that a recorded tick can be run again. What is asked for is only gathered
here (`Stage`); the tick's one commit does it, or nothing of it. Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel

from core.error import InvalidInput, VendoError
from core.identifier import PubKey, derived_id
from core.unit import Write
from fs.namespace import Namespace
from fs.protocol import Stat
from fs.session import Batch, Role, Session
from node.agent.alarm import check_id, set_alarm
from node.agent.error import TickOver
from node.agent.interest import watch
from node.agent.tape import Fetch, Tape
from relays.key import npub

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=BaseModel)
Namespaces: TypeAlias = Callable[[str], Namespace]

MAX_RECORDS = 200
MAX_RECORD_BYTES = 16_384
MAX_NAME = 200
MAX_ITEM_BYTES = 65_536
MAX_ASKED = 1_000
"""Marks, items, alarms and interests: how many of each one tick may change."""

_OPEN, _FAILED, _OVER = "open", "failed", "over"


@dataclass(slots=True)
class Stage:
    """What a tick has asked for so far.

    Attributes:
        records: for the trace: (type, JSON).
        marks: ids to be marked as seen.
        items: kept values, JSON; None takes one away.
        alarms, interests: by id, the writes that set them; None takes one away.
        dormant: whether it hibernates after this tick.
        elsewhere_us: what it computed outside of this process.
        reads, calls: files read, files written or called.
        watchers: are told what became of the tick.
    """

    phase: str = _OPEN
    records: list[tuple[str, str]] = field(default_factory=list)
    marks: dict[str, None] = field(default_factory=dict)
    items: dict[str, str | None] = field(default_factory=dict)
    alarms: dict[str, tuple[Write, ...] | None] = field(default_factory=dict)
    interests: dict[str, tuple[Write, ...] | None] = field(default_factory=dict)
    dormant: bool = False
    elsewhere_us: int = 0
    reads: int = 0
    calls: int = 0
    batch: Batch | None = None
    watchers: list[Callable[[VendoError | None], None]] = field(default_factory=list)

    def tell(self, error: VendoError | None) -> None:
        """The tick was committed, or why it was not."""
        for watcher in self.watchers:
            watcher(error)
        self.watchers.clear()

    def open(self) -> None:
        """To be called before anything is looked at or said.

        Raises:
            TickOver: the tick has ended.
        """
        if self.phase is _OVER:
            raise TickOver

    def change(self) -> None:
        """To be called before anything is asked for.

        Raises:
            TickOver: the tick has ended, or has failed: then only what it says is kept.
        """
        if self.phase is not _OPEN:
            raise TickOver(None if self.phase is _OVER else "This tick has failed: only what it logs is kept.")

    def fail(self) -> None:
        """From now on it may only say why."""
        self.phase = _FAILED

    def close(self) -> None:
        """The tick has ended, whatever still holds its context."""
        self.phase = _OVER
        if self.batch is not None:
            self.batch.closed = True


class Keep(Protocol):
    """What a context reads of its agent's own rows."""

    async def marked(self, mark: str) -> bool:
        """Whether an id was marked before this tick."""

    async def item(self, key: str) -> str | None:
        """A kept value as JSON, as of before this tick."""

    async def items(self, prefix: str) -> list[str]:
        """Keys of kept values, as of before this tick."""


class Files:
    """The agent's namespace as one tick sees it. Calls get keys that a repeated tick finds again."""

    __slots__ = ("_agent", "_envelope_id", "_namespaces", "_session", "_stage", "_tape")

    def __init__(self, namespaces: Namespaces, agent: str, envelope_id: str, tape: Tape, stage: Stage) -> None:
        self._namespaces, self._agent, self._envelope_id = namespaces, agent, envelope_id
        self._tape, self._stage = tape, stage
        self._session: Session | None = None

    def _seen_as(self) -> Session:
        if self._session is None:
            self._stage.batch = Batch()
            self._session = Session(f"agent:{self._agent}", Role.AGENT, batch=self._stage.batch)
        return self._session

    async def list(self, path: str) -> list[Stat]:
        """What is in a directory.

        Raises:
            VendoError: as `fs.namespace.Namespace.list`.
        """
        self._stage.open()
        self._stage.reads += 1

        async def fetch() -> bytes:
            return orjson.dumps(await self._namespaces(self._agent).list(path, self._seen_as()))

        return [Stat(**one) for one in orjson.loads(await self._tape.read("list", (path,), fetch))]

    async def read(self, path: str) -> bytes:
        """The whole content of a file.

        Raises:
            VendoError: as `fs.namespace.Namespace.read`.
        """
        self._stage.open()
        self._stage.reads += 1

        async def fetch() -> bytes:
            return await self._namespaces(self._agent).read(path, self._seen_as())

        return await self._tape.read("read", (path,), fetch)

    async def write(self, path: str, body: bytes) -> None:
        """Replace a file's content when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.write`.
        """
        session = self._keyed(None)

        async def fetch() -> bytes:
            await self._namespaces(self._agent).write(path, body, session)
            return b""

        await self._tape.read("write", (path, body), fetch)

    async def call(self, path: str, body: bytes, key: str | None = None) -> bytes:
        """Send one record; what it causes begins when the tick is committed.

        Args:
            path: the file to call.
            body: the record.
            key: the idempotency key; one that derives from agent, envelope and count if None.

        Raises:
            VendoError: as `fs.namespace.Namespace.call`.
        """
        session = self._keyed(key)

        async def fetch() -> bytes:
            return await self._namespaces(self._agent).call(path, body, session)

        return await self._tape.read("call", (path, session.key or "", body), fetch)

    def _keyed(self, key: str | None) -> Session:
        self._stage.change()
        self._stage.calls += 1
        key = key or derived_id("tick", self._agent, self._envelope_id, str(self._stage.calls))
        return self._seen_as().with_key(key)


class Memory:
    """Values that an agent keeps beside its state: JSON under keys, each read when it is needed."""

    __slots__ = ("_keep", "_stage", "_tape")

    def __init__(self, keep: Keep, tape: Tape, stage: Stage) -> None:
        self._keep, self._tape, self._stage = keep, tape, stage

    async def get(self, key: str) -> Any:
        """A value, as this tick would leave it; None if there is none."""
        self._stage.open()

        async def fetch() -> bytes:
            staged = self._stage.items
            value = staged[key] if key in staged else await self._keep.item(key)
            return b"" if value is None else value.encode()

        body = await self._tape.read("item.get", (key,), fetch)
        return orjson.loads(body) if body else None

    async def list(self, prefix: str = "") -> list[str]:
        """Keys that begin so, sorted, as this tick would leave them."""
        self._stage.open()

        async def fetch() -> bytes:
            found = set(await self._keep.items(prefix))
            for key, value in self._stage.items.items():
                if value is None:
                    found.discard(key)
                elif key.startswith(prefix):
                    found.add(key)
            return orjson.dumps(sorted(found))

        keys: list[str] = orjson.loads(await self._tape.read("item.list", (prefix,), fetch))
        return keys

    def set(self, key: str, value: Any) -> None:
        """Keep a value when the tick is committed.

        Raises:
            InvalidInput: it is no JSON or over 64 KiB; or the key is no name.
        """
        self._stage.change()
        text = _json(value, MAX_ITEM_BYTES, "A kept value")
        _ask(self._stage.items, _name(key, "key"), text)
        self._tape.tell("item.set", key, text)

    def delete(self, key: str) -> None:
        """Keep it no more, once the tick is committed."""
        self._stage.change()
        _ask(self._stage.items, _name(key, "key"), None)
        self._tape.tell("item.delete", key)


class Context(Generic[S, C]):
    """What a program has in one tick.

    Attributes:
        agent: its own name.
        tick_id: this tick's; a trigger that is tried again has another one.
        now: Unix seconds, the same for the whole tick; `now_ms` in milliseconds.
        until_ms: when its time is over.
        state: what it remembers; change it in place, or put another one in its place.
        config: its settings.
        fs: its files.
    """

    __slots__ = (
        "_ids", "_keep", "_memory", "_random", "_stage", "_tape", "agent", "config", "fs", "now", "now_ms", "state",
        "tick_id", "until_ms",
    )  # fmt: skip

    def __init__(
        self,
        agent: str,
        tick_id: str,
        now_ms: int,
        until_ms: int,
        state: S,
        config: C,
        tape: Tape,
        stage: Stage,
        keep: Keep,
        files: Files,
    ) -> None:
        self.agent, self.tick_id, self.now, self.now_ms, self.until_ms = (
            agent,
            tick_id,
            now_ms // 1000,
            now_ms,
            until_ms,
        )
        self.state, self.config, self.fs = state, config, files
        self._memory: Memory | None = None
        self._tape, self._stage, self._keep = tape, stage, keep
        self._random: Random | None = None
        self._ids = 0

    @property
    def memory(self) -> Memory:
        """What it keeps beside its state."""
        if self._memory is None:
            self._memory = Memory(self._keep, self._tape, self._stage)
        return self._memory

    @property
    def random(self) -> Random:
        """Randomness that derives from the tick's id; not for secrets."""
        if self._random is None:
            self._random = Random(self.tick_id)  # noqa: S311 - a replay must draw the same
        return self._random

    def new_id(self) -> str:
        """A new id: 32 hex digits that derive from the tick's id and how many it has given."""
        self._ids += 1
        return derived_id("id", self.tick_id, str(self._ids))

    def log(self, kind: str, /, **data: Any) -> None:
        """Add a record to the agent's trace. Secrets that have a form are taken out of it.

        Raises:
            InvalidInput: it is too long, no JSON, or there are too many in this tick.
        """
        self._stage.open()
        if len(self._stage.records) >= MAX_RECORDS:
            raise InvalidInput(f"A tick says at most {MAX_RECORDS} things.")
        body = _json(data, MAX_RECORD_BYTES, "A record")
        kind = _name(kind[:64], "record's type")
        self._stage.records.append((kind, body))
        self._tape.tell("log", kind, body)

    async def seen(self, mark: str) -> bool:
        """Whether an id was marked, in this tick or before; the newest 1,024 are remembered."""
        self._stage.open()

        async def fetch() -> bytes:
            return b"1" if mark in self._stage.marks or await self._keep.marked(mark) else b""

        return await self._tape.read("seen", (mark,), fetch) == b"1"

    def mark_seen(self, mark: str) -> None:
        """Mark an id when the tick is committed; one that is marked stays as it is.

        Raises:
            InvalidInput: it is no name.
        """
        self._stage.change()
        _ask(self._stage.marks, _name(mark, "id"), None)
        self._tape.tell("mark", mark)

    def set_alarm(
        self,
        alarm: str,
        *,
        at_ms: int | None = None,
        after_ms: int | None = None,
        every_ms: int | None = None,
        cron: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Be woken later; an alarm of this id is replaced. It comes as a trigger with cause `alarm`.

        Args:
            alarm: its id.
            at_ms: Unix ms; once, or the first time with `every_ms`.
            after_ms: the same, counted from now.
            every_ms: again and again, at least a second apart.
            cron: by the clock, as `node.agent.cron.read_cron` takes it.
            payload: what the trigger says.

        Raises:
            InvalidInput: not one of these ways, or a value that is none.
        """
        self._stage.change()
        if at_ms is not None and after_ms is not None:
            raise InvalidInput("An alarm has at_ms or after_ms.")
        if after_ms is not None:
            at_ms = self.now_ms + after_ms
        told = _json(dict(payload or {}), MAX_RECORD_BYTES, "An alarm's payload")
        every, rule = every_ms or 0, cron or ""
        writes = set_alarm(self.agent, alarm, self.now_ms, at_ms=at_ms, every_ms=every, cron=rule, payload=told)
        _ask(self._stage.alarms, alarm, writes)
        spec = {"at_ms": at_ms, "every_ms": every, "cron": rule, "payload": told}
        self._tape.tell("alarm.set", alarm, orjson.dumps(spec).decode())

    def cancel_alarm(self, alarm: str) -> None:
        """Take an alarm away when the tick is committed; one that is not there is none."""
        self._stage.change()
        _ask(self._stage.alarms, check_id(alarm), None)
        self._tape.tell("alarm.cancel", alarm)

    def watch(self, interest: str, event: str, pattern: Mapping[str, Any] | None = None) -> None:
        """Be told of events from the tick's commit on, as triggers with cause `event`.

        Args:
            interest: its id; another one of this id is replaced.
            event: a type, e.g. `payment.received`, the beginning of one with `.*`, or `*`.
            pattern: what the event's fields must be, as `node/agent/interest.py` has it.

        Raises:
            InvalidInput: a value that is none.
        """
        self._stage.change()
        text = _json(dict(pattern or {}), MAX_RECORD_BYTES, "A pattern")
        _ask(self._stage.interests, interest, watch(self.agent, interest, self.now, event, text))
        self._tape.tell("watch", interest, event, text)

    def unwatch(self, interest: str) -> None:
        """Be told no more, once the tick is committed."""
        self._stage.change()
        _ask(self._stage.interests, check_id(interest), None)
        self._tape.tell("unwatch", interest)

    async def send_dm(self, to: PubKey, text: str, key: str | None = None) -> None:
        """Send an encrypted message (NIP-17) when the tick is committed.

        Raises:
            Refused: the gate said no.
        """
        await self.fs.call(f"/nostr/dm/{npub(to)}", text.encode(), key)

    def hibernate(self) -> None:
        """Sleep after this tick, until the next trigger."""
        self._stage.change()
        self._stage.dormant = True
        self._tape.tell("hibernate")

    async def outside(self, op: str, args: tuple[str, ...], fetch: Fetch) -> bytes:
        """Ask something outside. A replay answers from the recording; `fetch` is then not called.

        Args:
            op: what is asked, for the recording.
            args: of what.
            fetch: asks.

        Raises:
            VendoError: as `fetch`.
        """
        self._stage.open()
        return await self._tape.read(op, args, fetch)

    def when_over(self, watcher: Callable[[VendoError | None], None]) -> None:
        """Be told once the tick is durable, with None; or why there was no commit. A replay tells nobody."""
        self._stage.open()
        self._stage.watchers.append(watcher)

    def add_compute(self, ms: int) -> None:
        """Count work that was done for the agent outside of this process; it has a limit per day."""
        self._stage.open()
        self._stage.elsewhere_us += max(0, ms) * 1_000


def _ask(table: dict[str, Any], name: str, value: Any) -> None:
    if len(table) >= MAX_ASKED and name not in table:
        raise InvalidInput(f"A tick changes at most {MAX_ASKED} of these.")
    table[name] = value


def _name(text: str, what: str) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME or not text.isprintable():
        raise InvalidInput(f"A {what} is 1 to {MAX_NAME} printable characters.")
    return text


def _json(value: Any, most: int, what: str) -> str:
    try:
        body = orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise InvalidInput(f"{what} is JSON.") from error
    if len(body) > most:
        raise InvalidInput(f"{what} has at most {most} bytes.")
    return body.decode()
