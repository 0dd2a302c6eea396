"""Agents that hibernate: what a hundred thousand of them add to a node's start and memory, and how soon one is awake.

Two homes that differ in nothing but the number of agents, each started in turn; the better of the runs counts for both.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.peer import VENDO, open_peer
from bench.process import Child, Children
from bench.sleeper import PROGRAM
from bench.target import Section, Target, quantile
from core.clock import SystemClock
from core.unit import Insert, Write
from node import home as homes
from node.agent.doorman import WINDOW
from node.agent.register import KEY
from node.config import AgentSection
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from relays.key import Key, Keyring

AGENTS, WAKES = 100_000, 300
START_S, WAKE_S = 120.0, 120.0
_ROWS = 400  # agents a commit
Say = Any


def _name(number: int) -> str:
    return f"s{number:06d}"


def _rows(name: str, pubkey: str, at: int) -> list[Write]:
    section = AgentSection(name=name, program="sleeper", public=False)
    value = json.dumps({"section": section.model_dump(mode="json")})
    agent = {
        "name": name, "program": "sleeper", "pubkey": pubkey, "status": "dormant", "state_version": 1, "state": "{}",
        "created_at": at, "last_tick_at": at, "ticks": 1, "stored": 2,
    }  # fmt: skip
    identity = {
        "name": name, "epoch": 0, "pubkey": pubkey, "source": "derived", "sealed": b"", "state": "active",
        "created_at": at,
    }  # fmt: skip
    return [Insert("meta", {"key": KEY + name, "value": value}), Insert("agent", agent), Insert("identity", identity)]


async def _home(folder: Path, relay: str, agents: int, real: set[str]) -> Path:
    """A home with so many agents that hibernate. Only those that are woken or heard have their real keys: deriving
    takes most of a millisecond each, and nobody asks for the others'."""
    home = folder / f"home-{agents}"
    homes.create(home, relays=[relay], mints=[], port=0, name="bench", owner=Key.generate().npub)
    (home / "agents").mkdir(exist_ok=True, mode=0o700)
    (home / "agents" / "sleeper.py").write_text(PROGRAM, encoding="utf-8")
    keyring: Keyring = homes.open_keyring(home)
    now = int(time.time())
    base = await open_database(home / homes.DATABASE, seal=ledger_seal(keyring.node), clock=SystemClock())
    for begin in range(0, agents, _ROWS):
        writes: list[Write] = []
        for number in range(begin, min(begin + _ROWS, agents)):
            name = _name(number)
            pubkey = keyring.agent(name).pubkey if name in real else secrets.token_hex(32)
            writes += _rows(name, pubkey, now)
        await base.commit(writes)
    await base.aclose()
    return home


async def _said(child: Child, name: str, within: float) -> Any:
    assert child.process.stdout is not None
    async with asyncio.timeout(within):
        while line := await child.process.stdout.readline():
            if name in (found := json.loads(line)):
                return found[name]
    child.check()
    return None


async def _run(folder: Path, home: Path, names: Sequence[str], turn: int) -> dict[str, Any]:
    """One start: seconds until it was ready, MiB once it rested, ms of each wake."""
    listed = folder / f"names-{home.name}"
    listed.write_text(json.dumps(list(names)), encoding="utf-8")
    async with Children(folder) as children:
        begun = time.monotonic()
        node = await children.start(f"{home.name}-{turn}", "bench.sleeper", str(home), str(listed), start_s=START_S)
        ready = time.monotonic() - begun
        await _said(node, "rested", WAKE_S)
        rss = node.rss_mb()
        wakes = await _said(node, "wakes", WAKE_S)
        return {"start": ready, "rss": rss, "wakes": wakes, "rss after": node.rss_mb()}


async def run(rounds: int, folder: Path, say: Say, agents: int = AGENTS) -> list[Section]:
    """Alternating starts with one agent and with all of them."""
    choose = random.Random(4)
    woken = [_name(number) for number in sorted(choose.sample(range(1, agents), min(agents - 1, WAKES * rounds)))]
    choose.shuffle(woken)
    real = {*woken, *(_name(number) for number in range(WINDOW))}
    runs: dict[int, list[dict[str, Any]]] = {1: [], agents: []}
    async with AsyncExitStack() as stack:
        peer = await open_peer(VENDO, stack, folder)
        for count in runs:
            say(f"a home with {count:,} agents that hibernate")
        found = {count: await _home(folder, peer.url, count, real) for count in runs}
        for turn in range(rounds):
            for count, home in found.items():
                say(f"start {turn + 1} with {count:,}")
                names = woken[turn * WAKES : (turn + 1) * WAKES] if count > 1 else []
                runs[count].append(await _run(folder, home, names, turn))
    return [_section(agents, runs)]


def _section(agents: int, runs: dict[int, list[dict[str, Any]]]) -> Section:
    section = Section(f"{agents:,} agents that hibernate (SQLite, full durability)")
    best = {count: {what: min(one[what] for one in ones) for what in ("start", "rss")} for count, ones in runs.items()}
    wakes = [ms for one in runs[agents] for ms in one["wakes"]]
    for count, ones in runs.items():
        section.rows.append(
            {
                "agents": count, "start s": best[count]["start"], "MiB at rest": best[count]["rss"],
                "woken": sum(len(one["wakes"]) for one in ones),
                "wake p50 ms": quantile(wakes, 0.5) if count > 1 else None,
                "wake p99 ms": quantile(wakes, 0.99) if count > 1 else None,
                "MiB after": min(one["rss after"] for one in ones),
            }
        )  # fmt: skip
    more_s = round(best[agents]["start"] - best[1]["start"], 2)
    more_mb = round(best[agents]["rss"] - best[1]["rss"], 1)
    section.targets = [
        Target(f"start with {agents:,} hibernated agents, more than with one", 2, more_s, at_least=False, unit=" s"),
        Target("resident memory, more than with one", 10, more_mb, at_least=False, unit=" MiB"),
        Target("waking a random one, p50", 3, round(quantile(wakes, 0.5), 2), at_least=False, unit=" ms"),
        Target("waking a random one, p99", 10, round(quantile(wakes, 0.99), 2), at_least=False, unit=" ms"),
    ]
    section.notes.append(f"{WINDOW} of those that hibernate are heard at the relay at once, the others in their turn")
    return section
