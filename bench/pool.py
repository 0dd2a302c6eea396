"""The pool beside nostr-sdk's own client against the same relay: publishing, receiving, latency, and the outbox.

Every measurement is a fresh process, so that no cache or connection of one helps the other; they alternate.
"""

import asyncio
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.peer import LOCAL, VENDO, Peer, open_peer
from bench.process import Child, ChildFailed, Children
from bench.target import Section, Target, ratio
from bench.wire import Client, offer, signed

PUBLISHED, RECEIVED, TIMED = 4_000, 3_000, 300
RECEIVE_HZ = 2_500
LIMIT_S = 90.0
TASKS = (
    ("pool", "publish"), ("sdk", "publish"), ("pool", "outbox"), ("pool", "receive"), ("sdk", "receive"),
    ("sdk", "trusting"), ("pool", "latency"), ("sdk", "latency"),
)  # fmt: skip
_NUMBER = {"publish": PUBLISHED, "outbox": PUBLISHED, "receive": RECEIVED, "trusting": RECEIVED, "latency": TIMED}
Say = Callable[[str], None]


async def _publish_evenly(url: str, kind: int) -> None:
    """A steady stream, as from many authors; slow enough that no relay drops any of it for a slow reader."""
    client, frames = await Client.connect(url), [offer(event) for event in signed(RECEIVED, kind)]
    step = RECEIVE_HZ // 100
    loop = asyncio.get_running_loop()
    started = loop.time()
    for at in range(0, len(frames), step):
        await asyncio.sleep(max(0.0, started + at / RECEIVE_HZ - loop.time()))
        client.transport.write(b"".join(frames[at : at + step]))
    await asyncio.sleep(0.2)
    client.close()


async def _task(folder: Path, peer: Peer, side: str, task: str, kind: int) -> dict[str, float]:
    async with Children(folder) as children:
        argv = ("bench.client", side, task, peer.url, str(_NUMBER[task]), str(kind))
        child = await children.start(f"{side}-{task}-{kind}", *argv)
        if task in ("receive", "trusting"):
            await _publish_evenly(peer.url, kind)
        return await _result(child)


async def _result(child: Child) -> dict[str, float]:
    assert child.process.stdout is not None
    try:
        found: dict[str, float] = json.loads(await asyncio.wait_for(child.process.stdout.readline(), LIMIT_S))
    except (TimeoutError, json.JSONDecodeError) as error:
        raise ChildFailed(f"{child.name} gave no result: {child.tail()}") from error
    return found


async def measure(name: str, rounds: int, folder: Path, say: Say) -> Section:
    """All tasks against one relay."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        peer = await open_peer(name, stack, folder)
        kind = 2_000
        for number in range(rounds):
            for side, task in TASKS if number % 2 == 0 else reversed(TASKS):
                kind += 1
                say(f"pool against {name}, round {number + 1}: {side} {task}")
                for what, value in (await _task(folder, peer, side, task, kind)).items():
                    found[side, task, what].append(value)
    return _section(peer, {key: statistics.median(values) for key, values in found.items()})


def _section(peer: Peer, found: dict[tuple[str, str, str], float]) -> Section:
    def got(side: str, task: str, what: str) -> float | None:
        return found.get((side, task, what))

    def row(label: str, side: str, task: str) -> dict[str, Any]:
        return {
            "client": label, "events/s": got(side, task, "rate"), "CPU µs/event": got(side, task, "cpu_us"),
            "p50 ms": got(side, task, "p50_ms"), "p99 ms": got(side, task, "p99_ms"),
            "missed": got(side, task, "missed"),
        }  # fmt: skip

    section = Section(f"The pool and nostr-sdk's client, both against {peer.name} ({peer.durability})")
    section.rows = [
        row("pool: publish, 200 awaiting an OK", "pool", "publish"),
        row("sdk: publish, 200 awaiting an OK", "sdk", "publish"),
        row("pool: the same through the durable outbox", "pool", "outbox"),
        row(f"pool: receive and verify, {RECEIVE_HZ:,}/s", "pool", "receive"),
        row("sdk: receive and verify", "sdk", "receive"),
        row("sdk: receive, its own check alone", "sdk", "trusting"),
        row("pool: publish → receive at 100/s", "pool", "latency"),
        row("sdk: publish → receive at 100/s", "sdk", "latency"),
    ]
    publish = ratio(got("pool", "publish", "rate"), got("sdk", "publish", "rate"))
    receive = ratio(got("sdk", "receive", "cpu_us"), got("pool", "receive", "cpu_us"))
    p50 = ratio(got("pool", "latency", "p50_ms"), got("sdk", "latency", "p50_ms"))
    outbox = ratio(got("pool", "outbox", "rate"), got("sdk", "publish", "rate"))
    targets = [
        Target("publish rate / the SDK's", 2, publish),
        Target("receive+verify CPU, the SDK's / the pool's", 2, receive),
        Target("publish→receive p50 / the SDK's", 0.5, p50, at_least=False),
        Target("durable outbox / the SDK's awaited-OK rate", 0.8, outbox),
    ]
    cpu = ratio(got("sdk", "publish", "cpu_us"), got("pool", "publish", "cpu_us"))
    trusting = ratio(got("sdk", "trusting", "cpu_us"), got("pool", "receive", "cpu_us"))
    section.notes = [
        f"publish CPU, the SDK's / the pool's: {cpu}×; receive CPU with the SDK's own check alone: {trusting}×"
    ]
    if peer.name == LOCAL:
        section.targets = targets
    else:  # what the relay does before its OK is the same for both clients, and is most of it here
        section.notes += ["this relay syncs each group to the disk before an OK, which bounds both clients:"]
        section.notes += [f"{one.name}: {one.value}×" for one in targets]
    return section


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Against nostr-sdk's own relay, where the SDK's client is at home, and against vendo's."""
    return [await measure(name, rounds, folder, say) for name in (LOCAL, VENDO)]
