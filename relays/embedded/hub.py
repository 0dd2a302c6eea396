"""The relay's middle: sessions decide, the hub verifies, stores, matches and sends.

The way of an event: session (shape, policy) → verifier → store → live subscriptions and OK. Nothing before the
verifier remembers an event or tells anyone about it.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from relays.embedded import frame
from relays.embedded.client import Client, Outbox, Subscription
from relays.embedded.index import LiveIndex
from relays.embedded.limit import Limits
from relays.embedded.policy import Policy
from relays.embedded.replay import replay, tally
from relays.embedded.session import Answer, Offer, Open, Session, Shut, Tally
from relays.embedded.store import Store
from relays.embedded.store_write import Entry, Outcome
from relays.embedded.trait import is_ephemeral
from relays.embedded.verifier import Verifier
from relays.event import Event

_FORGED = "invalid: the id or the signature is wrong"
_QUICK = 2  # so few events are committed on the loop if nothing else is going on


@dataclass(slots=True)
class HubStats:
    """Counted since the relay started."""

    offered: int = 0
    forged: int = 0
    delivered: int = 0
    cut: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Sender:
    client: Client
    size: int


class Hub:
    """All clients of one relay. Everything here runs on the loop."""

    def __init__(self, store: Store, policy: Policy, limits: Limits, clock: Clock) -> None:
        self._store, self._policy, self._limits, self._clock = store, policy, limits, clock
        self._index: LiveIndex[Subscription] = LiveIndex()
        self._outbox = Outbox()
        self._verifier: Verifier[_Sender] = Verifier(self._verified, min(4, os.cpu_count() or 1))
        self._under_way = 0
        self.clients: set[Client] = set()
        self.stats = HubStats()

    def join(self, transport: asyncio.Transport, group: asyncio.TaskGroup) -> Client:
        """A new connection; its tasks belong to `group`."""
        session = Session(self._policy, self._limits)
        client = Client(transport, session, self._outbox, self._limits, group, self._count_cut)
        self.clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """The connection is over."""
        self.clients.discard(client)
        for subscription in client.leave():
            self._index.remove(subscription)

    def _count_cut(self) -> None:
        self.stats.cut += 1

    def receive(self, client: Client, data: bytes) -> None:
        """One text message from a client."""
        match client.session.receive(data, self._clock.now()):
            case Answer(ready):
                client.send(ready)
            case Offer(event):
                self.stats.offered += 1
                self._under_way += 1
                client.took(len(data))
                self._verifier.submit(_Sender(client, len(data)), event)
            case Open(sub_id, filters):
                self._shut(client, sub_id)
                subscription = client.subscriptions[sub_id] = Subscription(client, sub_id)
                # Live first, then the stored answer: no event falls between them. And at once, since a CLOSE may
                # be right behind.
                self._index.add(subscription, filters)
                self._start(client, replay(subscription, filters, self._store, self._clock, self._fail))
            case Shut(sub_id, ready):
                self._shut(client, sub_id)
                if ready:
                    client.send(ready)
            case Tally(sub_id, filters):
                self._start(client, tally(client, sub_id, filters, self._store, self._clock))

    def _start(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
        task = client.group.create_task(work)
        client.replays.add(task)
        task.add_done_callback(client.replays.discard)

    def _shut(self, client: Client, sub_id: str) -> None:
        subscription = client.subscriptions.pop(sub_id, None)
        if subscription is not None:
            self._index.remove(subscription)

    def _fail(self, subscription: Subscription, reason: str) -> None:
        """The relay cannot serve this subscription."""
        client = subscription.client
        if client.subscriptions.get(subscription.sub_id) is subscription:
            self._shut(client, subscription.sub_id)
            client.session.forget(subscription.sub_id)
            client.send(frame.closed(subscription.sub_id, reason))

    def _verified(self, checked: Sequence[tuple[_Sender, Event, bytes | None]]) -> None:
        entries: list[Entry] = []
        for sender, event, raw in checked:
            if raw is None:
                self.stats.forged += 1
                self._finish(sender, event, Outcome(None, False, _FORGED))
            elif is_ephemeral(event.kind):
                self._fan_out(event, raw, None)
                self._finish(sender, event, Outcome(None, True, ""))
            else:
                entries.append(Entry(event, raw, sender))
        if not entries:
            return
        outcomes = self._store.commit_now(entries) if len(entries) <= _QUICK else None
        if outcomes is None:
            self._store.submit(entries)
        else:
            self.committed(entries, outcomes)

    def committed(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """A group is durable: new events go to who listens, and every sender gets its OK."""
        for entry, outcome in zip(entries, outcomes, strict=True):
            if outcome.seq is not None:
                self._fan_out(entry.event, entry.raw, outcome.seq)
            self._finish(entry.origin, entry.event, outcome)

    def _fan_out(self, event: Event, raw: bytes, seq: int | None) -> None:
        ready: dict[bytes, bytes] = {}  # equal subscription ids share a frame
        for subscription in self._index.find(event):
            head = subscription.head
            if head not in ready:
                ready[head] = frame.event(head, raw)
            subscription.deliver(seq, ready[head])
            self.stats.delivered += 1

    def _finish(self, sender: _Sender, event: Event, outcome: Outcome) -> None:
        self._under_way -= 1
        sender.client.answered(sender.size)
        sender.client.send(frame.ok(event.id, outcome.accepted, outcome.reason))

    async def close(self, patience_s: float) -> None:
        """Answer what is under way, for so many seconds at most, and say goodbye to everybody."""
        deadline = self._clock.monotonic() + patience_s
        while self._under_way and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.005)
        await self._verifier.close()
        for client in list(self.clients):
            client.say_goodbye()
