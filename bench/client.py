"""One client under measure, in a process of its own: `python -m bench.client pool|sdk TASK URL NUMBER KIND`.

It prints `{"pid"}` when it is connected and ready, and one JSON object with what it measured. Processor time is that of
the whole process, all threads. Both sides publish with the same number of workers, each awaiting its OK.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nostr_sdk
import orjson

from bench.target import quantile
from bench.wire import signed
from core.clock import SystemClock
from core.effect import Permit
from core.identifier import EffectId
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.event import Event
from relays.filter import Filter
from relays.outbox import TABLE, Outbox
from relays.pool import Pool
from relays.verdict import VerdictState

WORKERS = 200
LATENCY_HZ = 100
LIMIT_S, IDLE_S, TICK_S = 30.0, 3.0, 0.1
_PERMIT = Permit(EffectId("bench"))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def measured(report: dict[str, float], number: int) -> Iterator[None]:
    """Fills in the rate, and the processor time for one."""
    wall, cpu = time.perf_counter(), cpu_s()
    yield
    report["rate"] = number / (time.perf_counter() - wall)
    report["cpu_us"] = 1e6 * (cpu_s() - cpu) / number


def ready() -> None:
    print(json.dumps({"pid": os.getpid()}), flush=True)


async def work_off(items: Sequence[Any], send: Callable[[Any], Awaitable[None]]) -> None:
    """So many at once, each awaited."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await send(item)

    await asyncio.gather(*(worker() for _ in range(WORKERS)))


async def paced(items: Sequence[Any], send: Callable[[Any], Awaitable[None]]) -> None:
    """A hundred a second."""
    started, tasks = time.perf_counter(), []
    for number, item in enumerate(items):
        await asyncio.sleep(max(0.0, started + number / LATENCY_HZ - time.perf_counter()))
        tasks.append(asyncio.ensure_future(send(item)))
    await asyncio.gather(*tasks)


async def received(got: Sequence[int], number: int) -> dict[str, float]:
    """Wait for all, or until no more come: a relay may drop some for a reader that it thinks slow."""
    wall, cpu, before, idle = time.perf_counter(), cpu_s(), 0, 0
    while got[0] < number and idle < IDLE_S / TICK_S and time.perf_counter() - wall < LIMIT_S:
        await asyncio.sleep(TICK_S)
        idle, before = (idle + 1 if got[0] == before and before else 0), got[0]
    return {"cpu_us": 1e6 * (cpu_s() - cpu) / max(1, got[0]), "missed": number - got[0]}


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    with tempfile.TemporaryDirectory(prefix="vendo-bench-") as folder:
        opened = await open_database(Path(folder) / "node.db", seal=unsigned_seal, clock=SystemClock())
        try:
            yield opened
        finally:
            await opened.aclose()


@asynccontextmanager
async def pools(url: str, number: int = 1) -> AsyncIterator[tuple[list[Pool], Database]]:
    """Pools of one relay, connected."""
    async with database() as unit:
        made = [Pool([url], unit=unit, clock=SystemClock(), check=lambda _permit: None) for _ in range(number)]
        stop, readies = asyncio.Event(), [asyncio.Event() for _ in made]
        async with asyncio.TaskGroup() as group:
            for pool, started in zip(made, readies, strict=True):
                group.create_task(pool.run(started, stop))
            try:
                async with asyncio.timeout(10.0):
                    while not all(pool.is_up(pool.urls[0]) for pool in made):
                        await asyncio.sleep(0.01)
                yield made, unit
            finally:
                stop.set()


class PoolSide:
    """vendo's own pool."""

    @staticmethod
    async def publish(url: str, number: int, _kind: int) -> dict[str, float]:
        report: dict[str, float] = {}
        async with pools(url) as ((pool,), _):
            address = pool.urls[0]

            async def send(event: Event) -> None:
                verdict = await pool.send(address, event, _PERMIT)
                assert verdict.state is VerdictState.STORED, verdict

            await work_off(signed(50), send)
            events = signed(number)
            ready()
            with measured(report, number):
                await work_off(events, send)
        return report

    @staticmethod
    async def receive(url: str, number: int, kind: int) -> dict[str, float]:
        got = [0]

        async def handle(_event: Event, _relay: str) -> None:
            got[0] += 1

        async with pools(url) as ((pool,), _):
            pool.subscribe("bench", [Filter(kinds=frozenset({kind}), limit=0)], handle)
            await pool.caught_up("bench", 5.0)
            ready()
            return await received(got, number)

    @staticmethod
    async def latency(url: str, number: int, kind: int) -> dict[str, float]:
        sent: dict[str, float] = {}
        took: list[float] = []
        async with pools(url, 2) as ((publisher, listener), _):

            async def handle(event: Event, _relay: str) -> None:
                took.append(1e3 * (time.perf_counter() - sent[event.id]))

            async def send(event: Event) -> None:
                sent[event.id] = time.perf_counter()
                await publisher.send(publisher.urls[0], event, _PERMIT)

            listener.subscribe("bench", [Filter(kinds=frozenset({kind}), limit=0)], handle)
            await listener.caught_up("bench", 5.0)
            events = signed(number, kind)
            ready()
            await paced(events, send)
            await _all_of(took, number)
        return {"p50_ms": quantile(took, 0.5), "p99_ms": quantile(took, 0.99)}

    @staticmethod
    async def outbox(url: str, number: int, _kind: int) -> dict[str, float]:
        """Every event a unit of its own, durable before it is sent; counted when its verdict is durable too."""
        report: dict[str, float] = {}
        async with pools(url) as ((pool,), unit):
            outbox = Outbox(pool, unit, SystemClock(), lambda effect_id: Permit(EffectId(effect_id)))
            started, stop = asyncio.Event(), asyncio.Event()
            running = asyncio.ensure_future(outbox.run(started, stop))
            await started.wait()

            async def send(event: Event) -> None:
                rows = outbox.rows(event, "bench")
                await unit.commit(rows)
                outbox.kick(rows)

            async def settled(total: int) -> None:
                async with asyncio.timeout(LIMIT_S):
                    while len(await unit.select(TABLE, {"state": "pending"}, limit=1)) > 0:
                        await asyncio.sleep(0.002)
                assert len(await unit.select(TABLE, {"state": "sent"})) == total

            await work_off(signed(50), send)
            await settled(50)
            events = signed(number)
            ready()
            with measured(report, number):
                await work_off(events, send)
                while len(await unit.select(TABLE, {"state": "pending"}, limit=1)) > 0:
                    await asyncio.sleep(0.002)
            await settled(50 + number)
            stop.set()
            await running
        return report


class SdkSide:
    """nostr-sdk's own client."""

    @staticmethod
    async def _client(url: str) -> Any:
        client = nostr_sdk.ClientBuilder().notification_channel_size(65_536).build()
        await client.add_relay(nostr_sdk.RelayUrl.parse(url))
        await client.connect(and_wait=timedelta(seconds=5))
        return client

    @staticmethod
    def _own(events: Sequence[Event]) -> list[Any]:
        return [nostr_sdk.Event.from_json(event.to_json()) for event in events]

    @classmethod
    async def publish(cls, url: str, number: int, _kind: int) -> dict[str, float]:
        report: dict[str, float] = {}
        client = await cls._client(url)

        async def send(event: Any) -> None:
            outcome = await client.send_event(event)
            assert outcome.success, outcome.failed

        await work_off(cls._own(signed(50)), send)
        events = cls._own(signed(number))
        ready()
        with measured(report, number):
            await work_off(events, send)
        await client.shutdown()
        return report

    @classmethod
    async def receive(cls, url: str, number: int, kind: int, check: bool = True) -> dict[str, float]:
        """With `check`, as a node must: its own check passes a forged body under a known id, so verify again."""
        client = await cls._client(url)
        heard = await cls._listen(client, kind)
        got = [0]

        async def listen() -> None:
            while got[0] < number:
                note = await heard.next()
                if note.is_NEW_EVENT():
                    got[0] += 1
                    if check:
                        assert note.event.verify()
                    orjson.loads(note.event.as_json())  # the pool's handler gets fields that Python can read

        listening = asyncio.ensure_future(listen())
        ready()
        report = await received(got, number)
        listening.cancel()
        await asyncio.wait([listening])
        await client.shutdown()
        return report

    @classmethod
    async def trusting(cls, url: str, number: int, kind: int) -> dict[str, float]:
        """Receive with the client's own check alone."""
        return await cls.receive(url, number, kind, check=False)

    @staticmethod
    async def _listen(client: Any, kind: int) -> Any:
        heard = client.notifications()
        wanted = nostr_sdk.Filter().kind(nostr_sdk.Kind(kind)).limit(0)
        await client.subscribe(nostr_sdk.ReqTarget.auto([wanted]))
        await asyncio.sleep(0.3)
        return heard

    @classmethod
    async def latency(cls, url: str, number: int, kind: int) -> dict[str, float]:
        sent: dict[str, float] = {}
        took: list[float] = []
        publisher, listener = await cls._client(url), await cls._client(url)
        heard = await cls._listen(listener, kind)

        async def listen() -> None:
            while len(took) < number:
                note = await heard.next()
                if note.is_NEW_EVENT():
                    took.append(1e3 * (time.perf_counter() - sent[note.event.id().to_hex()]))

        listening = asyncio.ensure_future(listen())
        events = [(event.id().to_hex(), event) for event in cls._own(signed(number, kind))]

        async def send(one: tuple[str, Any]) -> None:
            sent[one[0]] = time.perf_counter()
            await publisher.send_event(one[1])

        ready()
        await paced(events, send)
        await _all_of(took, number)
        await listening
        await publisher.shutdown()
        await listener.shutdown()
        return {"p50_ms": quantile(took, 0.5), "p99_ms": quantile(took, 0.99)}


async def _all_of(took: Sequence[float], number: int) -> None:
    async with asyncio.timeout(10.0):
        while len(took) < number:
            await asyncio.sleep(0.01)


async def main() -> None:
    """Do the task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("pool", "sdk"))
    parser.add_argument("task", choices=("publish", "receive", "trusting", "latency", "outbox"))
    parser.add_argument("url")
    parser.add_argument("number", type=int)
    parser.add_argument("kind", type=int)
    asked = parser.parse_args()
    if asked.side == "sdk":
        nostr_sdk.uniffi_set_event_loop(asyncio.get_running_loop())
    task = getattr(PoolSide if asked.side == "pool" else SdkSide, asked.task)
    print(json.dumps(await task(asked.url, asked.number, asked.kind)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
