"""The relay's middle: sessions decide, the hub verifies, stores, matches and sends.

The way of an event: session (shape, policy) → verifier → store → live subscriptions and OK. Nothing before the
verifier remembers an event or tells anyone about it.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from relays.embedded import frame, scope
from relays.embedded.authority import Authority, Name
from relays.embedded.client import Client, Outbox, Subscription
from relays.embedded.index import LiveIndex
from relays.embedded.information import Rules
from relays.embedded.policy import Policy
from relays.embedded.rate import Gauge, Meter
from relays.embedded.replay import replay, tally
from relays.embedded.roll import Roll, check, keys_of
from relays.embedded.session import (
    Answer,
    Listed,
    Offer,
    Open,
    Session,
    Shut,
    Sync,
    SyncEnd,
    SyncMore,
    Tally,
)
from relays.embedded.store import Store
from relays.embedded.store_write import Entry, Outcome
from relays.embedded.sync import Syncs
from relays.embedded.trait import is_ephemeral
from relays.embedded.verifier import Verifier
from relays.event import Event
from relays.filter import Filter

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
    """All clients of one relay. Everything here runs on the loop.

    Args:
        store: keeps events.
        policy: what is taken and served.
        rules: the bounds, the same that NIP-11 shows.
        clock: time.
        challenge: makes a fresh random text for each connection (NIP-42).
    """

    def __init__(self, store: Store, policy: Policy, rules: Rules, clock: Clock, challenge: Callable[[], str]) -> None:
        self._store, self._policy, self._rules, self._clock = store, policy, rules, clock
        self._challenge = challenge
        self._index: LiveIndex[Subscription] = LiveIndex()
        self._outbox = Outbox()
        self._verifier: Verifier[_Sender] = Verifier(self._verified, min(4, os.cpu_count() or 1))
        self._threads = ThreadPoolExecutor(1, "relay-keys")
        self._roll = Roll()
        self._syncs = Syncs(self._sync_read, rules.limits, self._threads)
        self._under_way = 0
        self.gauge = Gauge(rules.rates)
        self.clients: set[Client] = set()
        self.stats = HubStats()

    def join(
        self, transport: asyncio.Transport, group: asyncio.TaskGroup, address: str, names: Collection[Name]
    ) -> Client:
        """A new connection from this address; its tasks belong to `group`. It gets its challenge (NIP-42)."""
        limits = self._rules.limits
        authority = Authority(self._challenge(), names, limits, self._rules.access.trusted)
        session = Session(self._policy, limits, authority, Meter(self.gauge, address))
        client = Client(transport, session, self._outbox, limits, group, self._count_cut)
        self.clients.add(client)
        client.send(frame.challenge(authority.challenge))
        return client

    def leave(self, client: Client) -> None:
        """The connection is over."""
        self.clients.discard(client)
        self._syncs.leave(client)
        for subscription in client.leave():
            self._index.remove(subscription)

    def _count_cut(self) -> None:
        self.stats.cut += 1

    def receive(self, client: Client, data: bytes) -> None:
        """One text message from a client."""
        match client.session.receive(data, self._clock.now(), self._clock.monotonic()):
            case Answer(ready):
                client.send(ready)
            case Offer(event):
                self.stats.offered += 1
                self._under_way += 1
                client.took(len(data))
                self._verifier.submit(_Sender(client, len(data)), event)
            case Open(sub_id, filters):
                self._open(client, sub_id, filters)
            case Shut(sub_id, ready):
                self._shut(client, sub_id)
                if ready:
                    client.send(ready)
            case Tally(sub_id, filters):
                stored = self._narrow(client, filters, exact=True)
                self._start(client, tally(client, sub_id, stored, self._store, self._clock))
            case Listed() as listed:
                self._start(client, self._check_list(client, listed))
            case Sync(sub_id, wanted, message):
                stored = self._narrow(client, (wanted,), exact=True)
                self._start(client, self._syncs.begin(client, sub_id, stored, message))
            case SyncMore(sub_id, message):
                self._start(client, self._syncs.go_on(client, sub_id, message))
            case SyncEnd(sub_id, ready):
                self._syncs.end(client, sub_id)
                if ready:
                    client.send(ready)

    def _open(self, client: Client, sub_id: str, filters: Sequence[Filter]) -> None:
        self._shut(client, sub_id)
        subscription = client.subscriptions[sub_id] = Subscription(client, sub_id)
        # Live first, then the stored answer: no event falls between them. And at once, since a CLOSE may be right
        # behind. What a search finds is the store's business alone, so it has no live part.
        self._index.add(subscription, [one for one in filters if not one.search])
        stored = self._narrow(client, filters)
        most = sum(one.limit for one in filters)  # a filter that was split in two still has one limit
        passed = self._may_get(client)
        self._start(client, replay(subscription, stored, self._store, self._clock, self._fail, passed, most))

    def _narrow(self, client: Client, filters: Sequence[Filter], *, exact: bool = False) -> list[Filter]:
        """The filters for the store, without private messages of others."""
        if not self._rules.access.private:
            return list(filters)
        return scope.narrow(filters, client.session.authority.readers, self._store.kinds, exact=exact)

    def _may_get(self, client: Client) -> Callable[[bytes], bool]:
        if not self._rules.access.private:
            return lambda _: True
        readers = client.session.authority.readers
        return lambda raw: scope.may_get(raw, readers)

    async def _sync_read(self, filters: Sequence[Filter]) -> list[tuple[int, str]]:
        return await self._store.vector(filters, self._clock.now(), self._rules.limits.sync_items)

    async def _check_list(self, client: Client, listed: Listed) -> None:
        """The consents of a key list are verified in a thread; what was verified before is remembered."""
        fresh = self._roll.unknown(listed.keys)
        loop, trusted = asyncio.get_running_loop(), client.session.authority.trusted
        reason = await loop.run_in_executor(self._threads, check, fresh, trusted)
        if not reason:
            self._roll.remember(fresh)
        client.send(client.session.listed(listed, keys_of(listed.keys), reason))

    def _start(self, client: Client, work: Coroutine[Any, Any, None]) -> None:
        task = client.group.create_task(work)
        client.replays.add(task)
        task.add_done_callback(client.replays.discard)

    def _shut(self, client: Client, sub_id: str) -> None:
        subscription = client.subscriptions.pop(sub_id, None)
        if subscription is not None:
            self._index.remove(subscription)
            subscription.drop()

    def _fail(self, subscription: Subscription, reason: str) -> None:
        """The relay cannot serve this subscription."""
        client = subscription.client
        if client.subscriptions.get(subscription.sub_id) is subscription:
            self._shut(client, subscription.sub_id)
            client.session.forget(subscription.sub_id)
            client.send(frame.closed(subscription.sub_id, reason))

    def _verified(self, checked: Sequence[tuple[_Sender, Event, bytes | None]]) -> None:
        entries: list[Entry] = []
        mono = self._clock.monotonic()
        for sender, event, raw in checked:
            if raw is None:
                self.stats.forged += 1
                self._finish(sender, event, Outcome(None, False, _FORGED))
                continue
            sender.client.session.meter.wrote(event.pubkey, mono)
            if is_ephemeral(event.kind):
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
        private = self._rules.access.private and event.kind in scope.PRIVATE
        for subscription in self._index.find(event):
            if private and not scope.is_party(event, subscription.client.session.authority.readers):
                continue
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
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in list(self.clients):
            client.say_goodbye()
