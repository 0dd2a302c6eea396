"""What a program has in one tick: its state, its files, its own memory, and ways to ask for more.

All of it goes through the tick's tape, so that a recorded tick can be run again. What is asked for is only gathered
(`node/agent/tick/stage.py`); the tick's one commit does it, or nothing of it. Pure.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel

from core.error import InvalidInput, VendoError
from core.identifier import PubKey, derived_id
from node.agent.file import Files, Namespaces
from node.agent.memory import Keep, Memory
from node.agent.replay.tape import Fetch, Tape
from node.agent.tick.stage import MAX_RECORD_BYTES, MAX_RECORDS, AlarmWish, InterestWish, Stage, ask, json_text, named
from node.agent.wake.alarm import check_id
from relays.key import npub

__all__ = ["C", "Context", "Files", "Keep", "Memory", "Namespaces", "S", "Stage"]

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=BaseModel)


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
        body = json_text(data, MAX_RECORD_BYTES, "A record")
        kind = named(kind[:64], "record's type")
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
        ask(self._stage.marks, named(mark, "id"), None)
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
            cron: by the clock, as `node.agent.wake.cron.read_cron` takes it.
            payload: what the trigger says.

        Raises:
            InvalidInput: not one of these ways, or a value that is none.
        """
        self._stage.change()
        if at_ms is not None and after_ms is not None:
            raise InvalidInput("An alarm has at_ms or after_ms.")
        if after_ms is not None:
            at_ms = self.now_ms + after_ms
        told = json_text(dict(payload or {}), MAX_RECORD_BYTES, "An alarm's payload")
        wish = AlarmWish(at_ms, every_ms or 0, cron or "", told)
        wish.writes(self.agent, alarm, self.now_ms)
        ask(self._stage.alarms, alarm, wish)
        self._tape.tell("alarm.set", alarm, orjson.dumps(wish._asdict()).decode())

    def cancel_alarm(self, alarm: str) -> None:
        """Take an alarm away when the tick is committed; one that is not there is none."""
        self._stage.change()
        ask(self._stage.alarms, check_id(alarm), None)
        self._tape.tell("alarm.cancel", alarm)

    def watch(self, interest: str, event: str, pattern: Mapping[str, Any] | None = None) -> None:
        """Be told of events from the tick's commit on, as triggers with cause `event`.

        Args:
            interest: its id; another one of this id is replaced.
            event: a type, e.g. `payment.received`, the beginning of one with `.*`, or `*`.
            pattern: what the event's fields must be, as `node/agent/wake/interest.py` has it.

        Raises:
            InvalidInput: a value that is none.
        """
        self._stage.change()
        text = json_text(dict(pattern or {}), MAX_RECORD_BYTES, "A pattern")
        wish = InterestWish(event, text)
        wish.writes(self.agent, interest, self.now_ms)
        ask(self._stage.interests, interest, wish)
        self._tape.tell("watch", interest, event, text)

    def unwatch(self, interest: str) -> None:
        """Be told no more, once the tick is committed."""
        self._stage.change()
        ask(self._stage.interests, check_id(interest), None)
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
