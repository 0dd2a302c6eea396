"""What spam does to paid work: paid jobs quiet, under a stream of requests from fresh keys, and in a burst of them.

Half of the strangers show the proof of work that the seller asks for, half commit to less; some name an address as
their input, where a trap counts who comes. Spam is sent by a process of its own at the lowest priority. A paid job is
bought by a real node from a real one, at a real mint; its time counts from the call to the delivery.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from coincurve import PrivateKey

from bench.target import Section, Target, quantile, ratio
from tests.market_part import ECHO_FREE, PATIENT, SUMMARY_21, Market, Spec, market

BITS = 8
RATE, SECONDS, BURST = 200, 50, 2_000
QUIET_JOBS, FUNDS = 20, 20_000
MAX_RATIO, MAX_BURST_RATIO, MAX_GROWTH_MB = 1.5, 3.0, 20.0
KIND = 5050
TEXT = " ".join(
    f"Sentence {n} says that whoever {word} first gets what it asked for." for n, word in enumerate(("pays", "asks"))
)
Say = Callable[[str], None]


def request(seller: str, relay: str, bits: int, text: str, kind: str = "text") -> bytes:
    """A frame with a request of a fresh key that shows so much proof of work (NIP-13), and commits to it."""
    key = PrivateKey()
    pubkey = key.public_key.format(compressed=True)[1:].hex()
    now, nonce = int(time.time()), 0
    while True:
        tags = [["i", text, kind], ["p", seller], ["relays", relay], ["nonce", str(nonce), str(bits)]]
        hashed = hashlib.sha256(orjson.dumps([0, pubkey, now, KIND, tags, ""])).digest()
        if int.from_bytes(hashed, "big") >> (256 - bits) == 0:
            break
        nonce += 1
    event = {
        "id": hashed.hex(), "pubkey": pubkey, "created_at": now, "kind": KIND, "tags": tags, "content": "",
        "sig": key.sign_schnorr(hashed).hex(),
    }  # fmt: skip
    return orjson.dumps(["EVENT", event])


def frames(seller: str, relay: str, number: int, trap: str) -> list[bytes]:
    """Requests of as many keys: every other one with too little work, every fourth with an address as its input."""
    return [
        request(
            seller, relay, BITS if n % 2 else BITS // 2, trap if n % 4 == 3 else f"spam {n}",
            "url" if n % 4 == 3 else "text",
        )
        for n in range(number)
    ]  # fmt: skip


async def send(relay: str, ready: list[bytes], rate: int) -> int:
    """Send them at a rate, 0 for all at once; how many the relay took."""
    taken = 0
    async with aiohttp.ClientSession() as http, http.ws_connect(relay) as link:

        async def count() -> None:
            nonlocal taken
            heard = 0
            async for message in link:
                frame = orjson.loads(message.data)
                heard += frame[0] == "OK"
                taken += frame[0] == "OK" and frame[2]
                if heard == len(ready):
                    return

        counting = asyncio.create_task(count())
        begun = time.monotonic()
        for n, frame in enumerate(ready):
            await link.send_str(frame.decode())
            if rate:
                await asyncio.sleep(max(0.0, begun + (n + 1) / rate - time.monotonic()))
        await asyncio.wait((counting,), timeout=30)
        counting.cancel()
    return taken


@dataclass(slots=True)
class Found:
    """What one window showed: paid jobs' times in ms, what spam was taken by the relay, and what was not served."""

    took: list[float] = field(default_factory=list)
    failed: int = 0
    sent: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    grown_mb: float = 0.0


@asynccontextmanager
async def trap() -> AsyncIterator[tuple[str, list[int]]]:
    """An address, and who came to it."""
    came: list[int] = []

    async def caught(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(1)
        writer.close()

    server = await asyncio.start_server(caught, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", came


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Market]:
    """A seller that asks strangers for work, and a buyer with money."""
    guarded = {"pow_bits = 0 ": f"pow_bits = {BITS} "}
    nodes = {"seller": Spec(ECHO_FREE + SUMMARY_21, replace=guarded), "buyer": Spec(replace=PATIENT)}
    async with market(folder, nodes) as opened:
        await opened.fund("buyer", FUNDS)
        await paid(opened, "first")
        yield opened


async def paid(opened: Market, name: str) -> float | None:
    """Buy one job; how long it took in ms, or None if it was not delivered by the seller."""
    begun = time.monotonic()
    body = {"kind": 5001, "input": f"{TEXT} {name}"}
    status, answer = await opened.call("buyer", "node/compute/new", body, f"spam-{name}")
    assert status < 300, answer
    while time.monotonic() - begun < 120:
        view = await opened.get("buyer", f"node/compute/jobs/{answer['job_id']}/status")
        if view["state"] in ("delivered", "failed", "cancelled"):
            bought = view["state"] == "delivered" and view["provider"] == "dvm"
            return 1e3 * (time.monotonic() - begun) if bought else None
        await asyncio.sleep(0.01)
    return None


def rss_mb(opened: Market, name: str) -> float:
    """Resident memory of a node, in MiB."""
    status = Path(f"/proc/{opened.nodes[name].process.pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


async def window(opened: Market, name: str, number: int, rate: int, jobs: int, bait: str) -> Found:
    """So many requests of strangers at a rate, and paid jobs one after the other meanwhile, at least so many."""
    found, seller = Found(), str(opened.rings["seller"].node.pubkey)
    before, mb = (await opened.get("seller", "node/sell/status"))["dropped"], rss_mb(opened, "seller")
    words = (sys.executable, "-m", "bench.spam", opened.relay, seller, str(number), str(rate), bait)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        await asyncio.wait_for(child.stdout.readline(), 120)  # all of it is mined and signed
        child.stdin.write(b"\n")
        over = asyncio.ensure_future(child.stdout.readline())
        count = 0
        while not over.done() or count < jobs:
            took = await paid(opened, f"{name} {count}")
            count += 1
            if took is None:
                found.failed += 1
            else:
                found.took.append(took)
        found.sent = json.loads(await over)["taken"] if number else 0
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    after = (await opened.get("seller", "node/sell/status"))["dropped"]
    found.dropped = {word: n - before.get(word, 0) for word, n in after.items() if n > before.get(word, 0)}
    found.grown_mb = rss_mb(opened, "seller") - mb
    return found


def _row(name: str, found: Found) -> dict[str, Any]:
    dropped = ", ".join(f"{word} {count}" for word, count in found.dropped.items())
    return {
        "window": name, "spam": found.sent, "paid jobs": len(found.took), "failed": found.failed,
        "p50 ms": round(quantile(found.took, 0.5)), "p99 ms": round(quantile(found.took, 0.99)),
        "grown MB": round(found.grown_mb, 1), "not served": dropped,
    }  # fmt: skip


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Quiet, a stream, a burst. More rounds make the windows no longer: a stream lasts as long as it lasts."""
    section = Section("Spam: paid jobs while strangers ask")
    async with trap() as (bait, came), town(folder) as opened:
        say("quiet")
        quiet = await window(opened, "quiet", 0, 0, QUIET_JOBS, bait)
        found = {"quiet": quiet}
        for name, number, rate in ((f"{RATE} a second", RATE * SECONDS, RATE), (f"burst of {BURST}", BURST, 0)):
            say(name)
            one = found[name] = await window(opened, name, number, rate, 5, bait)
            over = ratio(quantile(one.took, 0.99) if one.took else None, quantile(quiet.took, 0.99))
            bound = MAX_RATIO if rate else MAX_BURST_RATIO
            section.targets.append(Target(f"paid p99 / quiet, {name}", bound, over, at_least=False))
            section.targets.append(
                Target(f"memory, {name}", MAX_GROWTH_MB, round(one.grown_mb, 1), at_least=False, unit=" MB more")
            )
            section.targets.append(Target(f"paid jobs lost, {name}", 0, one.failed, at_least=False, unit=""))
        section.targets.append(Target("inputs fetched for strangers", 0, len(came), at_least=False, unit=""))
        section.rows = [_row(name, one) for name, one in found.items()]
        section.notes.append(
            f"p99 of {len(quiet.took)} quiet jobs and of as many as fit beside the spam is near their worst"
        )
    return [section]


def main() -> None:
    """The sender: mine, say that it is ready, wait for a line, send, say how many were taken."""
    os.nice(19)
    relay, seller, number, rate, bait = sys.argv[1:]
    ready = frames(seller, relay, int(number), bait)
    print(json.dumps({"ready": len(ready)}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"taken": asyncio.run(send(relay, ready, int(rate))) if ready else 0}), flush=True)


if __name__ == "__main__":
    main()
