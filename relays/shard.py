"""An audience at one relay: which keys are asked for in which REQ, and how far was read for each. Pure.

Keys that come together are asked for together, in as few REQs as the relay's message length allows. A key that comes
later gets a REQ of its own (shared with others that came meanwhile) that reads its history; when several small REQs
have been read to their end they are joined into one, which asks only for what comes from then on. The old ones stay
open until the new one has answered, so nothing falls between them.

How far was read: one cursor for all keys together, and a row for each key that says 0 ("as all of them") or, for a key
that was not listened for all the time, its own cursor.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from relays.audience import Audience
from relays.filter import Filter
from relays.subscription import Spec, Stream

MERGE_AT = 3  # so many small REQs are joined into one
MAX_SHARDS = 10  # above that the smallest are joined, however large
_FREEZE_STEP_S = 60  # a key's own cursor is not written for less


@dataclass(slots=True)
class _Shard:
    name: str
    keys: set[str]
    stream: Stream | None = None
    replaces: tuple[str, ...] = ()
    gone: int = 0

    @property
    def is_reading(self) -> bool:
        return self.stream is None or not (self.stream.whole or self.stream.stopped)


@dataclass(slots=True)
class Plan:
    """What is to be done on the connection: REQs to open (with their cursor), and names of those to close."""

    open: list[tuple[Spec, int | None]] = field(default_factory=list)
    shut: list[str] = field(default_factory=list)


class Shards:
    """See the module. One for each audience and connection.

    Args:
        audience: the keys.
        high: how far all keys together were read at this relay.
        own: for each key that was read at this relay: 0, or how far, if it was read by itself.
        only: the keys that this connection is for; None for all.

    Attributes:
        high: as above, as it stands now.
        own: as above, as it stands now.
        changed: keys whose row is to be written (or, if they are in `own` no more, deleted).
        guarded: the relay shows these events only to who has authenticated.
    """

    def __init__(
        self, audience: Audience, high: int | None, own: Mapping[str, int], only: frozenset[str] | None = None
    ) -> None:
        self.audience = audience
        self.high = high
        self.own = dict(own)
        self.only = only
        self.changed: set[str] = set()
        self.guarded = False
        self._shards: dict[str, _Shard] = {}
        self._at: dict[str, str] = {}
        self._waiting: dict[str, None] = {}
        self._serial = 0
        self._lately: set[str] = set()
        self.restart()

    def __len__(self) -> int:
        return len(self._shards)

    def restart(self) -> None:
        """A new connection: nothing is open, all keys wait."""
        self._shards.clear()
        self._at.clear()
        self._lately.clear()
        self._waiting = dict.fromkeys(key for key in self.audience if self._is_ours(key))

    def _is_ours(self, key: str) -> bool:
        return self.only is None or key in self.only

    # ---- keys come and go

    def add(self, key: str) -> None:
        """A key was added to the audience."""
        if self._is_ours(key) and key not in self._at:
            self._waiting[key] = None

    def remove(self, key: str) -> None:
        """A key was removed. Its place in a REQ is given up when that REQ is made anew."""
        self._waiting.pop(key, None)
        name = self._at.pop(key, None)
        if name is not None:
            for shard in self._shards.values():
                if key in shard.keys:
                    shard.keys.discard(key)
                    shard.gone += 1
        if self.own.pop(key, None) is not None:
            self.changed.add(key)

    @property
    def keys(self) -> Iterable[str]:
        """The keys that are asked for."""
        return self._at

    @property
    def waiting(self) -> Iterable[str]:
        """The keys that are not asked for yet."""
        return self._waiting

    def release(self) -> list[str]:
        """Give up all REQs: the keys wait again. Returns the names to close."""
        names = list(self._shards)
        for key in self._at:
            self._waiting[key] = None
        self._at.clear()
        self._shards.clear()
        return names

    # ---- planning

    def plan(self, capacity: int, may: Callable[[str], bool] | None) -> Plan:
        """What to open and close now. `capacity`: keys in one REQ. `may`: which keys may be asked for; None for all."""
        plan = Plan()
        if any(shard.is_reading for shard in self._shards.values()):
            return plan  # what comes meanwhile goes together
        ready = [key for key in self._waiting if may is None or may(key)]
        if ready:
            for keys, since, high in self._chunks(ready, capacity):
                self._open(plan, keys, since, high)
            return plan
        plan.shut += self._empty()
        self._merge(plan, capacity)
        return plan

    def _chunks(self, keys: list[str], capacity: int) -> list[tuple[list[str], int, int | None]]:
        """Keys in groups that are asked for together: (keys, since, cursor)."""
        known: list[str] = []
        apart: list[tuple[int, str]] = []
        fresh: list[tuple[int, str]] = []
        for key in keys:
            own = self.own.get(key)
            if own == 0 and self.high is not None:
                known.append(key)
            elif own:
                apart.append((own, key))
            else:
                fresh.append((self.audience.since(key), key))
        chunks: list[tuple[list[str], int, int | None]] = [
            (known[at : at + capacity], 0, self.high) for at in range(0, len(known), capacity)
        ]
        for pairs, is_cursor in ((sorted(apart), True), (sorted(fresh), False)):
            for at in range(0, len(pairs), capacity):
                part = pairs[at : at + capacity]
                low = part[0][0]
                chunks.append(([key for _, key in part], 0 if is_cursor else low, low if is_cursor else None))
        return chunks

    def _open(
        self, plan: Plan, keys: Iterable[str], since: int, high: int | None, replaces: tuple[str, ...] = ()
    ) -> None:
        self._serial += 1
        shard = _Shard(f"{self.audience.name}#{self._serial}", set(keys), replaces=replaces)
        self._shards[shard.name] = shard
        if not replaces:
            for key in shard.keys:
                self._waiting.pop(key, None)
                self._at[key] = shard.name
        wanted = Filter(kinds=self.audience.kinds, tags={self.audience.tag: frozenset(shard.keys)}, since=since)
        spec = Spec(
            shard.name, (wanted,), self.audience.backdated, durable=False, owner=self.audience.name, live=bool(replaces)
        )
        plan.open.append((spec, high))

    def _empty(self) -> list[str]:
        names = [shard.name for shard in self._shards.values() if not shard.keys]
        for name in names:
            del self._shards[name]
        return names

    def _merge(self, plan: Plan, capacity: int) -> None:
        whole = sorted(self._shards.values(), key=lambda shard: len(shard.keys))
        small = [shard for shard in whole if len(shard.keys) <= capacity // 2 or 2 * shard.gone > len(shard.keys)]
        if len(small) < MERGE_AT and len(whole) <= MAX_SHARDS:
            return
        chosen: list[_Shard] = []
        keys: set[str] = set()
        for shard in whole:
            if len(keys) + len(shard.keys) > capacity:
                break
            chosen.append(shard)
            keys |= shard.keys
        if len(chosen) < 2:
            return
        highs = [shard.stream.high or 0 for shard in chosen if shard.stream is not None]
        self._open(plan, keys, 0, min(highs), tuple(shard.name for shard in chosen))

    # ---- what came of it

    def opened(self, stream: Stream) -> None:
        """A REQ of the plan was opened."""
        shard = self._shards.get(stream.spec.name)
        if shard is not None:
            shard.stream = stream

    def read(self, stream: Stream) -> list[str]:
        """All that was stored was read for a REQ. Returns the names of those that it takes the place of."""
        shard = self._shards.get(stream.spec.name)
        if shard is None:
            return []
        for key in shard.keys:
            if self.own.get(key) != 0 and self.only is None:
                if key not in self.own:
                    self._lately.add(key)
                self.own[key] = 0
                self.changed.add(key)
        replaced = [name for name in shard.replaces if self._shards.pop(name, None) is not None]
        if shard.replaces:
            for key in shard.keys:
                self._at[key] = shard.name
            shard.replaces = ()
        return replaced

    def doubt(self, certain: str) -> None:
        """What was read on this connection for the first time was perhaps not shown whole, but for one key."""
        for key in self._lately - {certain}:
            if self.own.pop(key, None) is not None:
                self.changed.add(key)
        self._lately.clear()

    def lost(self, stream: Stream) -> None:
        """A REQ was ended by the relay for good, or before it was read: its keys wait, unless others ask for them."""
        shard = self._shards.pop(stream.spec.name, None)
        if shard is None or shard.replaces:
            return
        for key in shard.keys:
            if self._at.get(key) == shard.name:
                del self._at[key]
                self._waiting[key] = None

    @property
    def whole(self) -> bool:
        """All that was stored has been read, for all keys that may be asked for."""
        if not self._shards:
            return not self._waiting
        return all(shard.stream is not None and shard.stream.whole for shard in self._shards.values())

    def settle(self) -> None:
        """Move the cursors to where all REQs have read to. Keys that are not listened for keep where they were."""
        if not self.whole:
            return
        highs = [shard.stream.high for shard in self._shards.values() if shard.stream is not None]
        if not highs:
            return
        reached = min(high for high in highs if high is not None) if None not in highs else None
        if reached is None:
            return
        if self.only is not None:
            for key in self._at:
                if reached - self.own.get(key, 0) >= _FREEZE_STEP_S:
                    self.own[key] = reached
                    self.changed.add(key)
            return
        if self.high is not None and reached <= self.high:
            return
        for key in self._waiting:
            if self.own.get(key) == 0:
                self.own[key] = self.high or 1
                self.changed.add(key)
        self.high = reached
