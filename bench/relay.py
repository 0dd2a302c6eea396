"""The embedded relay beside the others: ingest, fan-out, latency; and alone, with a thousand subscriptions.

Same client, same events, alternating, medians of the rounds. vendo's relay syncs every group of events to the disk
before its OKs; what the others promise stands beside them.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.peer import CORE, KHATRU, LOCAL, NAMES, NOSTR_RELAY, VENDO, Peer, open_peer
from bench.process import ChildFailed
from bench.target import Section, Target, quantile, ratio
from bench.wire import Client, Counter, Cut, offer, publish, signed
from relays.event import Event
from relays.key import Key

CONNECTIONS, IN_FLIGHT = 8, 128
SHORTEST_S = 0.8  # what one measurement should last
MOST, FEWEST = 10_000, 200
LISTENERS, HEARD = 100, 1_500
EPHEMERAL = 20_100  # kinds that a relay passes on and does not keep (NIP-01)
LATENCY_N, LATENCY_HZ = 200, 100
LIMIT_S = 30.0
Say = Callable[[str], None]


class Bench:
    """The relays that run, and what each round found for each of them."""

    def __init__(self, peers: Sequence[Peer], say: Say) -> None:
        self.peers = list(peers)
        self.found: dict[str, dict[str, list[float]]] = {one.name: defaultdict(list) for one in peers}
        self.notes: list[str] = []
        self._say = say
        self._rate: dict[tuple[str, str], float] = {}

    def median(self, name: str, what: str) -> float | None:
        """The middle of the rounds; None if it was not measured."""
        values = self.found.get(name, {}).get(what)
        return statistics.median(values) if values else None

    def count(self, peer: Peer, what: str, most: int, fewest: int) -> int:
        """How many events take this peer long enough."""
        rate = self._rate.get((peer.name, what))
        return fewest if rate is None else max(fewest, min(most, int(rate * SHORTEST_S)))

    async def each(self, number: int, what: str, measure: Callable[[Peer], Awaitable[float]]) -> None:
        """Measure every peer, each time another first. One that fails is left out from then on."""
        shift = number % max(1, len(self.peers))
        for peer in self.peers[shift:] + self.peers[:shift]:
            self._say(f"{what}, round {number + 1}: {peer.name}")
            try:
                self._rate[peer.name, what] = await measure(peer)
            except (Cut, TimeoutError, OSError) as error:
                self.notes.append(f"{peer.name} fell out at {what}: {type(error).__name__} {error}"[:300])
                self.peers.remove(peer)

    def keep(self, peer: Peer, **values: float) -> None:
        """What a measurement found."""
        for what, value in values.items():
            self.found[peer.name][what].append(value)


async def ingest(bench: Bench, peer: Peer, events: Sequence[Event], *, warm: bool = False) -> float:
    """Events a second, and the relay's processor time for one."""
    frames = [offer(event) for event in events]
    before = peer.cpu_s()
    spent = await publish(peer.url, frames, CONNECTIONS, IN_FLIGHT, LIMIT_S)
    if not warm:
        bench.keep(peer, ingest=len(frames) / spent, ingest_us=1e6 * (peer.cpu_s() - before) / len(frames))
    return len(frames) / spent


async def fan_out(bench: Bench, peer: Peer, events: Sequence[Event], what: str = "") -> float:
    """Deliveries a second to a hundred subscribers, kept under `what`; returns events a second."""
    listeners = [await Client.connect(peer.url) for _ in range(LISTENERS)]
    left, done = len(events) * LISTENERS, asyncio.Event()

    def counted(number: int) -> None:
        nonlocal left
        left -= number
        if left <= 0:
            done.set()

    try:
        for client in listeners:
            await client.subscribe("live", {"kinds": [events[0].kind], "limit": 1})
            Counter(client, counted)
        frames, before, started = [offer(event) for event in events], peer.cpu_s(), time.perf_counter()
        await publish(peer.url, frames, 1, 64, LIMIT_S)
        try:
            await asyncio.wait_for(done.wait(), LIMIT_S)
        except TimeoutError as error:
            raise TimeoutError(f"{left} of {len(events) * LISTENERS} deliveries never came") from error
        spent = time.perf_counter() - started
    finally:
        for client in listeners:
            client.close()
    number = len(events) * LISTENERS
    if what:
        bench.keep(peer, **{what: number / spent, f"{what}_us": 1e6 * (peer.cpu_s() - before) / number})
    return len(events) / spent


async def latency(bench: Bench, peer: Peer, events: Sequence[Event]) -> float:
    """Publish → receive at 100 a second, on two connections of an ordinary client."""
    publisher, listener = await Client.connect(peer.url), await Client.connect(peer.url)
    await listener.subscribe("live", {"kinds": [events[0].kind], "limit": 1})
    sent: dict[bytes, float] = {}
    took: list[float] = []

    def heard(messages: list[bytes]) -> None:
        now = time.perf_counter()
        for message in messages:
            at = message.find(b'"id":"')
            began = sent.pop(message[at + 6 : at + 70], None) if at > 0 else None
            if began is None and b'"EVENT"' in message[:9]:  # a relay that writes spaces into its JSON
                at = message.find(b'"id": "')
                began = sent.pop(message[at + 7 : at + 71], None)
            if began is not None:
                took.append(1e3 * (now - began))

    listener.heard = heard
    try:
        started = time.perf_counter()
        for number, event in enumerate(events):
            frame = offer(event)
            await asyncio.sleep(max(0.0, started + number / LATENCY_HZ - time.perf_counter()))
            sent[event.id.encode()] = time.perf_counter()
            publisher.transport.write(frame)
        async with asyncio.timeout(5.0):
            while sent:
                await asyncio.sleep(0.01)
    finally:
        publisher.close()
        listener.close()
    bench.keep(peer, p50_ms=quantile(took, 0.5), p99_ms=quantile(took, 0.99))
    return LATENCY_HZ


def _shapes(keys: Sequence[Key], number: int) -> dict[str, Any]:
    """One of a thousand filters of five shapes. With 200 keys, two of the thousand want each event."""
    key = keys[number // 5 % len(keys)].pubkey
    match number % 5:
        case 0:
            return {"authors": [key], "kinds": [1], "limit": 0}
        case 1:
            return {"#p": [key], "kinds": [1, 7], "limit": 0}
        case 2:
            return {"#t": [f"subject {number}"], "limit": 0}
        case 3:
            return {"#e": [f"{number:064x}"], "limit": 0}
        case _:
            return {"kinds": [5_000 + number], "limit": 0}


async def subscribed(url: str, keys: Sequence[Key], number: int, events: Sequence[Event]) -> float:
    """Events a second while so many subscriptions are open, on ten connections."""
    listeners = [await Client.connect(url) for _ in range(min(10, number))]
    try:
        for at in range(number):
            await listeners[at % len(listeners)].subscribe(f"live{at}", _shapes(keys, at))
        for listener in listeners:
            listener.heard = lambda _messages: None
        spent = await publish(url, [offer(event) for event in events], CONNECTIONS, IN_FLIGHT, LIMIT_S)
    finally:
        for listener in listeners:
            listener.close()
    return len(events) / spent


async def _open_all(
    names: Sequence[str], stack: AsyncExitStack, folder: Path, say: Say
) -> tuple[list[Peer], list[str]]:
    peers, notes = [], []
    for name in names:
        say(f"starting {name}")
        try:
            peers.append(await open_peer(name, stack, folder))
        except ChildFailed as error:
            notes.append(f"{name} is left out: {error}"[:300])
    return peers, notes


async def _warm_up(bench: Bench) -> None:
    warm, few, fleeting = signed(FEWEST), signed(50, 8_999), signed(50, EPHEMERAL - 1)
    await bench.each(0, "ingest", lambda peer: ingest(bench, peer, warm, warm=True))
    await bench.each(0, "stored", lambda peer: fan_out(bench, peer, few))
    await bench.each(0, "fleeting", lambda peer: fan_out(bench, peer, fleeting))


async def _round(bench: Bench, number: int) -> None:
    events, timed = signed(MOST), signed(LATENCY_N, 7_000 + number)
    stored, fleeting = signed(HEARD, 9_000 + number), signed(HEARD, EPHEMERAL + number)

    async def take(peer: Peer) -> float:
        return await ingest(bench, peer, events[: bench.count(peer, "ingest", MOST, FEWEST)])

    async def spread(peer: Peer, what: str, heard: Sequence[Event]) -> float:
        return await fan_out(bench, peer, heard[: bench.count(peer, what, HEARD, 50)], what)

    await bench.each(number, "ingest", take)
    await bench.each(number, "stored", lambda peer: spread(peer, "stored", stored))
    await bench.each(number, "fleeting", lambda peer: spread(peer, "fleeting", fleeting))
    await bench.each(number, "latency", lambda peer: latency(bench, peer, timed))


async def _subscriptions(peer: Peer, rounds: int, say: Say) -> dict[int, float]:
    rates: dict[int, list[float]] = {1: [], 1_000: []}
    for number in range(rounds):
        for many in (1, 1_000) if number % 2 else (1_000, 1):
            say(f"{many} live subscriptions, round {number + 1}")
            keys = [Key.generate() for _ in range(200)]
            rates[many].append(await subscribed(peer.url, keys, many, signed(6_000, keys=keys)))
    return {many: statistics.median(values) for many, values in rates.items()}


def _section(bench: Bench, live: dict[int, float]) -> Section:
    section = Section("Relays side by side: the same client and events, medians of the rounds")
    for peer in bench.peers:
        section.rows.append(
            {
                "relay": peer.name, "ingest/s": bench.median(peer.name, "ingest"),
                "CPU µs/event": bench.median(peer.name, "ingest_us"),
                "stored: deliveries/s to 100": bench.median(peer.name, "stored"),
                "ephemeral: deliveries/s": bench.median(peer.name, "fleeting"),
                "CPU µs": bench.median(peer.name, "fleeting_us"),
                "receive p50 ms": bench.median(peer.name, "p50_ms"),
                "p99 ms": bench.median(peer.name, "p99_ms"),
            }
        )  # fmt: skip
        section.notes.append(f"{peer.name}: {peer.durability}")
    section.notes += bench.notes
    section.notes += [f"vendo with {many:,} live subscriptions: {rate:,.0f} events/s" for many, rate in live.items()]

    def over(what: str, other: str) -> float | None:
        return ratio(bench.median(VENDO, what), bench.median(other, what))

    section.targets += [
        Target("ingest, fsynced / nostr-relay", 12, over("ingest", NOSTR_RELAY)),
        Target("ingest, fsynced / @nostr-relay/core", 25, over("ingest", CORE)),
        Target("ingest, fsynced / LocalRelay in memory", 0.6, over("ingest", LOCAL)),
        Target("fan-out of stored events to 100 / LocalRelay", 2, over("stored", LOCAL)),
        Target("fan-out of stored events to 100 / khatru", 0.5, over("stored", KHATRU)),
        Target("fan-out of ephemeral events to 100 / LocalRelay", 2, over("fleeting", LOCAL)),
        Target("fan-out of ephemeral events to 100 / khatru", 0.5, over("fleeting", KHATRU)),
        Target("publish→receive p99 / LocalRelay's, ordinary client", 0.3, over("p99_ms", LOCAL), at_least=False),
        Target("ingest with 1,000 live subscriptions / with one", 0.5, ratio(live.get(1_000), live.get(1))),
    ]
    return section


async def run(rounds: int, folder: Path, say: Say, names: Sequence[str] = NAMES) -> list[Section]:
    """All of it."""
    async with AsyncExitStack() as stack:
        peers, notes = await _open_all(names, stack, folder, say)
        bench = Bench(peers, say)
        bench.notes += notes
        await _warm_up(bench)
        for number in range(rounds):
            await _round(bench, number)
        mine = [peer for peer in bench.peers if peer.name == VENDO]
        live = await _subscriptions(mine[0], rounds, say) if mine else {}
        return [_section(bench, live)]
