"""Answering a relay's challenge (NIP-42): only when something needs it, once per connection and key. Pure.

Proving who we are tells the relay who we are, so no key is shown before a relay says `auth-required:` to something
that this key is needed for, and only keys whose policy allows that relay are shown at all. Signing may take a while
(a key may live elsewhere, NIP-46), so what is to be signed leaves by `take` and comes back by `signed`.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple, Protocol

from core.identifier import PubKey
from relays.backoff import Jitter, pause
from relays.event import Event
from relays.message import prefix

ANSWER_S = 10.0
SIGN_S = 30.0
MAX_AT_ONCE = 8
MAX_OVERTAKEN = 20  # refusals, per connection, of answers to a challenge that was not the last one any more
MAX_RATE_LIMITED = 40  # refusals for haste, per connection, before the rest is given up

Keys = Callable[[], Sequence[PubKey]]


class Authenticator(Protocol):
    """The keys that this node reads and writes with, and who may see which."""

    def keys(self, relay: str) -> Sequence[PubKey]:
        """The keys whose policy allows this relay to know them; the first is the one used when any will do."""

    async def answer(self, relay: str, challenge: str, pubkey: PubKey) -> Event | None:
        """The signed kind 22242 for one key, or None for "not to this relay"."""

    async def lists(self, relay: str, message_bytes: int) -> Sequence[Event]:
        """Signed lists (kind 22243, docs/reference/wire.md) of the keys that the first one speaks for; or none.

        Each is at most `message_bytes` long as a message.
        """


class Ask(NamedTuple):
    """What is to be signed: an answer by this key, or (None) the key lists."""

    challenge: str
    pubkey: PubKey | None


class Settled(NamedTuple):
    """Keys about which the relay has spoken, or that were given up."""

    accepted: tuple[PubKey, ...] = ()
    failed: tuple[PubKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.accepted or self.failed)


class _Shown(NamedTuple):
    """An AUTH on its way: by one key, or a list of many."""

    keys: tuple[PubKey, ...]
    at: float
    is_list: bool
    challenge: str | None


class Authentication:
    """The keys of one connection, each `queued` → `signing` → `sent` → accepted or failed.

    Attributes:
        accepted: keys that the relay takes us for, on this connection.
        failed: keys that it refused, or that may not be shown to it.
        at_once: how many may be on their way at the same time; 0 holds further keys back.
        list_refused: why the relay did not take a key list, if it did not.
    """

    __slots__ = (
        "_allowed",
        "_challenge",
        "_hasty",
        "_jitter",
        "_lists",
        "_overtaken",
        "_queue",
        "_rest_until",
        "_sent",
        "_signing",
        "_source",
        "accepted",
        "at_once",
        "failed",
        "list_refused",
    )

    def __init__(self, keys: Keys, jitter: Jitter) -> None:
        self._source = keys
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """A new connection."""
        self.refresh()
        self._challenge: str | None = None
        self._queue: deque[PubKey] = deque()
        self._signing: dict[PubKey | None, float] = {}
        self._sent: dict[str, _Shown] = {}
        self._rest_until = 0.0
        self._hasty = self._overtaken = 0
        self._lists = False
        self.list_refused = ""
        self.accepted: set[PubKey] = set()
        self.failed: set[PubKey] = set()
        self.at_once = MAX_AT_ONCE

    # ---- what is wanted

    def usable(self, wanted: Container[str]) -> list[PubKey]:
        """Those of the wanted keys that are ours, may be shown here, and were not refused."""
        return [key for key in self._allowed if key in wanted and key not in self.failed]

    def any_key(self) -> PubKey | None:
        """The key to use when any will do, or None if there is none for this relay."""
        allowed = self._allowed
        return allowed[0] if allowed and allowed[0] not in self.failed else None

    def refresh(self) -> None:
        """Keys may have come or gone."""
        self._allowed = self._source()

    def want(self, keys: Iterable[PubKey]) -> None:
        """Something was refused with `auth-required:` and needs these keys."""
        waiting = set(self._queue)
        for key in keys:
            if not self.knows(key) and key not in waiting:
                waiting.add(key)
                self._queue.append(key)

    def knows(self, key: PubKey) -> bool:
        """Whether the key is on its way, accepted or failed."""
        return (
            key in self.accepted
            or key in self.failed
            or key in self._signing
            or any(key in shown.keys for shown in self._sent.values())
        )

    def is_pending(self, key: PubKey) -> bool:
        """Whether the relay may still accept it."""
        return key not in self.accepted and key not in self.failed and (self.knows(key) or key in self._queue)

    @property
    def waiting(self) -> int:
        """How many keys wait for their turn."""
        return len(self._queue)

    def challenged(self, challenge: str) -> None:
        """The relay's challenge; the last one counts."""
        self._challenge = challenge

    @property
    def challenge(self) -> str | None:
        """The relay's challenge, if it has sent one."""
        return self._challenge

    def show_lists(self) -> None:
        """The relay takes key lists: show them, once."""
        self._lists = True

    # ---- signing

    def take(self, mono: float) -> list[Ask]:
        """What is to be signed now."""
        if self._challenge is None or mono < self._rest_until:
            return []
        asks: list[Ask] = []
        if self._lists:
            self._lists = False
            self._signing[None] = mono
            asks.append(Ask(self._challenge, None))
        while self._queue and len(self._signing) + len(self._sent) < self.at_once:
            key = self._queue.popleft()
            if self.knows(key):
                continue
            self._signing[key] = mono
            asks.append(Ask(self._challenge, key))
        return asks

    def signed(self, ask: Ask, event: Event | None, mono: float) -> tuple[Event | None, Settled]:
        """The answer to an ask. Returns the event to send, or that the key is out of the question."""
        if self._signing.pop(ask.pubkey, None) is None or ask.pubkey is None:
            return None, Settled()
        if event is None:
            self.failed.add(ask.pubkey)
            return None, Settled(failed=(ask.pubkey,))
        if ask.challenge != self._challenge:  # it asked anew meanwhile: sign that instead
            self._queue.appendleft(ask.pubkey)
            return None, Settled()
        self._sent[event.id] = _Shown((ask.pubkey,), mono, False, ask.challenge)
        return event, Settled()

    def listed(self, events: Sequence[Event], mono: float) -> None:
        """The key lists were signed and are sent now. Without any, each key has to speak for itself."""
        if self._signing.pop(None, None) is None:
            return
        if not events:
            self.list_refused = "there are none"
        for event in events:
            self._sent[event.id] = _Shown(tuple(PubKey(key) for key in event.values("key")), mono, True, None)

    # ---- answers

    def answered(self, event_id: str, accepted: bool, reason: str, mono: float) -> Settled | None:
        """An OK came. None if it was not for an AUTH of ours."""
        shown = self._sent.pop(event_id, None)
        if shown is None:
            return None
        keys = shown.keys
        if accepted:
            self.accepted.update(keys)
            self.failed.difference_update(keys)
            return Settled(accepted=keys)
        if prefix(reason) == "rate-limited" and self._hasty < MAX_RATE_LIMITED and not shown.is_list:
            self._hasty += 1
            self._rest_until = mono + pause(3 + self._hasty, self._jitter)
            self._queue.append(keys[0])
            return Settled()
        if shown.is_list:  # each key may still speak for itself
            self.list_refused = reason or "no"
            return Settled()
        if shown.challenge != self._challenge and self._overtaken < MAX_OVERTAKEN:
            self._overtaken += 1  # it sent a new challenge with each refusal, while our answer was on its way
            self._queue.appendleft(keys[0])
            return Settled()
        self.failed.update(keys)
        return Settled(failed=keys)

    def overdue(self, mono: float) -> Settled:
        """Give up waiting for what takes too long."""
        late = [self._sent.pop(key) for key in [k for k, one in self._sent.items() if mono - one.at > ANSWER_S]]
        keys = [shown.keys[0] for shown in late if not shown.is_list]
        if any(shown.is_list for shown in late):
            self.list_refused = "the relay did not answer"
        slow = [key for key, at in self._signing.items() if mono - at > SIGN_S]
        for key in slow:
            del self._signing[key]
        keys += [key for key in slow if key is not None]
        self.failed.update(keys)
        return Settled(failed=tuple(keys))
