"""The load: N customers, each with its own key and one job outstanding; the next is asked when the last is answered.

`python -m bench.load RELAY PUBKEY CUSTOMERS JOBS` works on any responder that echoes kind 5050 for free, and prints
one JSON object. Latency counts from the request's frame written to the 6050 read. The generator signs with
coincurve directly and checks results' signatures only after the clock was stopped, so that it costs little.
"""

import argparse
import asyncio
import hashlib
import json
import math
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import orjson
from coincurve import PrivateKey, PublicKeyXOnly

REQUEST, RESULT, FEEDBACK = 5050, 6050, 7000
TEXT_BYTES = 64
MAX_CUSTOMERS, MAX_JOBS = 256, 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """How one run went. Times in milliseconds; lost jobs have no latency."""

    customers: int
    jobs: int
    done: int
    lost: int
    wrong: int
    faults: dict[str, int]
    seconds: float
    jobs_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    first_p50_ms: float

    @property
    def good(self) -> bool:
        """Whether every job was answered once, by the right key, with the right text."""
        return self.done == self.jobs and not self.lost and not self.wrong


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Customer:
    """One key that asks."""

    def __init__(self) -> None:
        self._key = PrivateKey()
        self.pubkey: str = self._key.public_key.format(compressed=True)[1:].hex()

    def request(self, text: str, responder: str, relay: str) -> tuple[str, bytes]:
        """A signed job request for one responder: its id, and the frame that publishes it."""
        tags = [["i", text, "text"], ["p", responder], ["relays", relay], ["output", "text/plain"]]
        now = int(time.time())
        hashed = hashlib.sha256(orjson.dumps([0, self.pubkey, now, REQUEST, tags, ""])).digest()
        event = {
            "id": hashed.hex(), "pubkey": self.pubkey, "created_at": now, "kind": REQUEST,
            "tags": tags, "content": "", "sig": self._key.sign_schnorr(hashed).hex(),
        }  # fmt: skip
        return event["id"], orjson.dumps(["EVENT", event])


@dataclass(slots=True)
class _Job:
    text: str
    customer: str
    answered: asyncio.Future[None]
    sent: float = 0.0
    first: float = 0.0
    read: float = 0.0
    results: list[dict[str, Any]] = field(default_factory=list)


class Generator:
    """All customers of one run, on one connection."""

    def __init__(self, relay: str, responder: str, customers: int, *, job_timeout: float) -> None:
        self._relay, self._responder, self._timeout = relay, responder, job_timeout
        self._customers = [Customer() for _ in range(customers)]
        self._run = secrets.token_hex(6)
        self._jobs: dict[str, _Job] = {}
        self._faults: Counter[str] = Counter()

    async def run(self, jobs: int) -> Load:
        """One job of each customer to warm up, then the measured ones.

        Raises:
            ConnectionError: the relay does not answer.
        """
        async with aiohttp.ClientSession() as http, http.ws_connect(self._relay, max_msg_size=1 << 20) as link:
            ready = asyncio.Event()
            reader = asyncio.create_task(self._read(link, ready))
            try:
                wanted = {"kinds": [RESULT, FEEDBACK], "#p": [one.pubkey for one in self._customers]}
                await link.send_str(orjson.dumps(["REQ", "load", wanted]).decode())
                await asyncio.wait_for(ready.wait(), 10)
                await asyncio.gather(*(self._ask(link, one, f"warm-{n}") for n, one in enumerate(self._customers)))
                lost_in_warm_up = sum(not job.results for job in self._jobs.values())
                self._jobs.clear()
                begun = time.perf_counter()
                numbers = iter(range(jobs))
                await asyncio.gather(*(self._work(link, one, numbers) for one in self._customers))
                seconds = time.perf_counter() - begun
                await asyncio.sleep(0.05)  # a second answer to the last jobs would come now
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
        return self._judge(jobs, lost_in_warm_up, seconds)

    async def _work(self, link: aiohttp.ClientWebSocketResponse, customer: Customer, numbers: Any) -> None:
        for number in numbers:
            await self._ask(link, customer, str(number))

    async def _ask(self, link: aiohttp.ClientWebSocketResponse, customer: Customer, name: str) -> None:
        text = f"{self._run} {name} ".ljust(TEXT_BYTES, "x")
        job_id, frame = customer.request(text, self._responder, self._relay)
        job = self._jobs[job_id] = _Job(text, customer.pubkey, asyncio.get_running_loop().create_future())
        await link.send_frame(frame, aiohttp.WSMsgType.TEXT)
        job.sent = time.perf_counter()
        timer = asyncio.get_running_loop().call_later(self._timeout, _give_up, job)
        await job.answered
        timer.cancel()

    async def _read(self, link: aiohttp.ClientWebSocketResponse, ready: asyncio.Event) -> None:
        async for message in link:
            now = time.perf_counter()
            frame = orjson.loads(message.data)
            if frame[0] == "EVENT":
                self._take(frame[2], now)
            elif frame[0] == "OK" and not frame[2]:
                self._faults[f"relay: {frame[3][:60]}"] += 1
            elif frame[0] == "EOSE":
                ready.set()
            elif frame[0] in ("CLOSED", "NOTICE"):
                self._faults[f"{frame[0]}: {frame[-1][:60]}"] += 1
        self._faults["relay hung up"] += 1
        for job in self._jobs.values():
            _give_up(job)

    def _take(self, event: dict[str, Any], now: float) -> None:
        job = next((self._jobs[tag[1]] for tag in event["tags"] if tag[0] == "e" and tag[1] in self._jobs), None)
        if job is None:
            return
        if event["kind"] == FEEDBACK:
            job.first = job.first or now
        if event["kind"] == RESULT:
            job.results.append(event)
            if not job.answered.done():
                job.read = now
                job.answered.set_result(None)
        elif (status := next((tag for tag in event["tags"] if tag[0] == "status"), None)) and status[1] == "error":
            self._faults[f"responder: {' '.join(status[2:])[:60]}"] += 1
            _give_up(job)

    def _judge(self, jobs: int, lost_before: int, seconds: float) -> Load:
        latencies = [(job.read - job.sent) * 1e3 for job in self._jobs.values() if job.results]
        firsts = [(job.first - job.sent) * 1e3 for job in self._jobs.values() if job.first]
        wrong = 0
        for job in self._jobs.values():
            faults = {fault for event in job.results if (fault := self._fault(event, job))}
            if len({event["id"] for event in job.results}) > 1:
                faults.add("answered twice")
            wrong += bool(faults)
            self._faults.update(faults)
        done = len(latencies)
        return Load(
            len(self._customers), jobs, done, jobs - done + lost_before, wrong, dict(self._faults), round(seconds, 3),
            round(done / seconds, 1), round(percentile(latencies, 0.5), 3), round(percentile(latencies, 0.99), 3),
            round(max(latencies, default=math.nan), 3), round(percentile(firsts, 0.5), 3),
        )  # fmt: skip

    def _fault(self, event: dict[str, Any], job: _Job) -> str:
        if event["content"] != job.text:
            return "wrong content"
        if event["pubkey"] != self._responder or ["p", job.customer] not in event["tags"]:
            return "wrong key"
        body = [0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]
        hashed = hashlib.sha256(orjson.dumps(body)).digest()
        author = PublicKeyXOnly(bytes.fromhex(event["pubkey"]))
        if hashed.hex() != event["id"] or not author.verify(bytes.fromhex(event["sig"]), hashed):
            return "wrong signature"
        return ""


def _give_up(job: _Job) -> None:
    if not job.answered.done():
        job.answered.set_result(None)


async def measure(relay: str, responder: str, customers: int, jobs: int, *, job_timeout: float = 20.0) -> Load:
    """One run. Bounded: at most `MAX_CUSTOMERS` and `MAX_JOBS`, and each job may take `job_timeout` seconds."""
    if not 1 <= customers <= MAX_CUSTOMERS or not 1 <= jobs <= MAX_JOBS:
        raise ValueError("too many customers or jobs")
    return await Generator(relay, responder, customers, job_timeout=job_timeout).run(jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("relay")
    parser.add_argument("pubkey")
    parser.add_argument("customers", type=int)
    parser.add_argument("jobs", type=int)
    asked = parser.parse_args()
    print(json.dumps(asdict(asyncio.run(measure(asked.relay, asked.pubkey, asked.customers, asked.jobs)))))
