"""What a flood on the relay does to payments of the node that runs it: the p99 of a payment's commit, calm and flooded.

Calm and flooded windows alternate. Three floods: genuine events as fast as the relay takes them, forged ones, and
requests; each as a stranger sends it, held to the relay's rates, and as from an address that is held to none. The
flooder runs at the lowest priority, as near as one machine comes to being another one.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.process import Children
from bench.target import Section, Target, quantile, ratio
from bench.wire import Client, ask, offer, signed
from node import home as homes
from tests.foreign_part import free_port

WINDOW_S, SETTLE_S = 3.0, 0.5
MOST_ROUNDS = 3
CONNECTIONS, IN_FLIGHT, FRAMES = 8, 64, 12_000
FLOODS = ("events", "forgeries", "requests")
STRANGER, EXEMPT = "a stranger", "an exempt address"
Say = Callable[[str], None]


async def flood(url: str, sort: str, seconds: float) -> None:
    """Send as fast as the relay answers, over and over; what it answers is only counted. Prints the count."""
    os.nice(19)
    frames = _frames(sort)
    clients = [await Client.connect(url) for _ in range(CONNECTIONS)]
    print(json.dumps({"pid": os.getpid()}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    answers = 0
    stop = time.monotonic() + seconds

    def begin(client: Client, at: int) -> None:
        def heard(messages: list[bytes]) -> None:
            nonlocal answers, at
            answers += len(messages)
            if time.monotonic() < stop:
                client.transport.write(b"".join(frames[(at + n) % len(frames)] for n in range(len(messages))))
                at += len(messages)

        client.heard = heard
        client.transport.write(b"".join(frames[(at + n) % len(frames)] for n in range(IN_FLIGHT)))
        at += IN_FLIGHT

    for number, client in enumerate(clients):
        begin(client, number * len(frames) // CONNECTIONS)
    await asyncio.sleep(seconds)
    for client in clients:
        client.close()
    print(json.dumps({"answers": answers}), flush=True)


def _frames(sort: str) -> list[bytes]:
    if sort == "requests":
        return [ask(f"q{n % 50}", {"kinds": [1], "limit": 5}) for n in range(FRAMES)]
    genuine = [offer(event) for event in signed(FRAMES if sort == "events" else 500)]
    if sort == "events":
        return genuine
    # the last digit of the signature: only the whole check, the dearest there is, finds that out
    return [frame[:-4] + (b"0" if frame[-4:-3] != b"0" else b"1") + frame[-3:] for frame in genuine]


async def _window(children: Children, url: str, sort: str, say: Say) -> tuple[float, float, int]:
    """One flood: when it began, when it ended, and what was answered."""
    child = await children.start(f"flood-{sort}-{time.monotonic_ns()}", "bench.flood", url, sort, str(WINDOW_S))
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    begun = time.monotonic()
    child.process.stdin.write(b"\n")
    answered = json.loads(await asyncio.wait_for(child.process.stdout.readline(), WINDOW_S + 10))["answers"]
    await child.process.wait()
    say(f"  {answered / WINDOW_S:,.0f} answers a second")
    return begun + SETTLE_S, begun + WINDOW_S, answered


def _home(folder: Path, exempt: bool) -> tuple[Path, str]:
    """A home whose node runs a relay, and the relay's address."""
    home, port = folder / "node", free_port()
    url = f"ws://127.0.0.1:{port}"
    homes.create(home, relays=[url], mints=[], port=0, name="bench")
    config = home / "config.toml"
    text = config.read_text(encoding="utf-8")
    head, _, tail = text.partition("[relay]")
    tail = tail.partition("\n[")[1] + tail.partition("\n[")[2]
    unlimited = '["127.0.0.0/8"]' if exempt else "[]"
    mine = f"[relay]\nenabled = true\nport = {port}\nunlimited = {unlimited}\n"
    config.write_text(f"{head}{mine}{tail}", encoding="utf-8")
    return home, url


async def _phase(rounds: int, folder: Path, say: Say, exempt: bool) -> Section:
    """All floods from one sort of address, alternating with calm."""
    windows: dict[str, list[tuple[float, float]]] = {"calm": [], **{sort: [] for sort in FLOODS}}
    answers: dict[str, int] = dict.fromkeys(FLOODS, 0)
    folder.mkdir()
    home, url = _home(folder, exempt)
    sender = EXEMPT if exempt else STRANGER
    async with Children(folder, most=2 + rounds * len(FLOODS)) as children:
        node = await children.start("node-log", "bench.payer", str(home), str(folder / "took"))
        for number in range(rounds):
            for sort in FLOODS:
                say(f"calm, and a flood of {sort} from {sender}, round {number + 1}")
                begun = time.monotonic()
                await asyncio.sleep(WINDOW_S)
                windows["calm"].append((begun + SETTLE_S, begun + WINDOW_S))
                began, ended, answered = await _window(children, url, sort, say)
                windows[sort].append((began, ended))
                answers[sort] += answered
                await asyncio.sleep(1.0)  # what the relay still has in hand
        node.check()
        await node.stop()
    took = [json.loads(line) for line in (folder / "took").read_text(encoding="utf-8").splitlines()]
    return _section(sender, took, windows, answers)


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """From a stranger, and from an address without limits."""
    rounds = min(rounds, MOST_ROUNDS)
    return [await _phase(rounds, folder / str(exempt), say, exempt) for exempt in (False, True)]


def _section(
    sender: str,
    took: list[tuple[float, float]],
    windows: dict[str, list[tuple[float, float]]],
    answers: dict[str, int],
) -> Section:
    section = Section(f"A payment's commit in the node (100 a second) while {sender} floods its relay")
    p99: dict[str, float] = {}
    for sort, spans in windows.items():
        inside = [[ms for at, ms in took if begun <= at < ended] for begun, ended in spans]
        inside = [one for one in inside if one]
        p99[sort] = statistics.median(quantile(one, 0.99) for one in inside)
        p50 = statistics.median(quantile(one, 0.5) for one in inside)
        rate = answers[sort] / WINDOW_S / len(spans) if sort in answers else None
        section.rows.append(
            {
                "flood": sort, "answers/s": rate, "commits": sum(map(len, inside)), "p50 ms": p50, "p99 ms": p99[sort],
                "windows": len(inside),
            }
        )  # fmt: skip
    for sort in FLOODS:
        name = f"payment commit p99 / calm, flood of {sort} from {sender}"
        section.targets.append(Target(name, 1.5, ratio(p99[sort], p99["calm"]), at_least=False))
    return section


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(flood(sys.argv[1], sys.argv[2], float(sys.argv[3])))
