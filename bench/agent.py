"""Very many agents on one node: how many REQs and sockets that takes, and how long a DM is on its way to an inbox.

Messages are made and sent from outside, to agents drawn at random, while other events flow: half of them letters from
strangers to these agents (each has to be opened to be refused), half notes that the node does not ask for.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.peer import VENDO, Peer, open_peer
from bench.process import Child, Children
from bench.target import Section, Target, quantile
from bench.wire import Client, offer, signed
from node import home as homes
from relays.event import Draft
from relays.key import Key
from relays.nip17 import wrap

AGENTS = 10_000
MESSAGES, MESSAGE_HZ, OTHER_HZ = 300, 20, 200
START_S, SETTLE_S = 300.0, 5.0
DM = 14
Say = Callable[[str], None]


def _home(folder: Path, relay: str, owner: Key, agents: int) -> tuple[Path, list[str]]:
    """A home with so many agents; also their public keys."""
    home = folder / "node"
    homes.create(home, relays=[relay], mints=[], port=0, name="bench", owner=owner.npub)
    names = [f"a{number}" for number in range(agents)]
    config = home / "config.toml"
    text = config.read_text(encoding="utf-8")
    tables = "".join(f'\n[[agent]]\nname = "{name}"\nprogram = "buyer"\ncontacts = []\n' for name in names)
    config.write_text(text + tables, encoding="utf-8")
    keyring = homes.open_keyring(home)
    return home, [keyring.agent(name).pubkey for name in names]


def _letters(keys: Sequence[str], sender: Key, count: int, mark: str) -> list[bytes]:
    choose = random.Random(7)
    now = int(time.time())
    return [
        offer(wrap(sender, choose.choice(keys), Draft(DM, f"{mark}{number}", (), now)))  # type: ignore[arg-type]
        for number in range(count)
    ]


async def _paced(client: Client, frames: Sequence[bytes], hz: float) -> list[float]:
    started, sent = time.monotonic(), []
    for number, frame in enumerate(frames):
        await asyncio.sleep(max(0.0, started + number / hz - time.monotonic()))
        sent.append(time.monotonic())
        client.transport.write(frame)
    return sent


def sockets(pid: int, port: int) -> int:
    """Established connections of a process to a port of this machine."""
    mine = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            mine.add(str(one.readlink()))
        except OSError:
            continue
    count = 0
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            count += (
                fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in mine
            )
    return count


async def _measure(peer: Peer, node: Child, frames: Sequence[bytes], other: Sequence[bytes]) -> tuple[list[float], int]:
    publisher, noise = await Client.connect(peer.url), await Client.connect(peer.url)
    flow = asyncio.ensure_future(_paced(noise, other, OTHER_HZ))
    sent = await _paced(publisher, frames, MESSAGE_HZ)
    connected = sockets(node.pid, int(peer.url.rpartition(":")[2]))
    await asyncio.sleep(2.0)
    flow.cancel()
    await asyncio.wait([flow])
    publisher.close()
    noise.close()
    return sent, connected


async def _start(
    folder: Path, stack: AsyncExitStack, say: Say, agents: int, relay: str
) -> tuple[Peer, Child, list[bytes], list[bytes]]:
    peer = await open_peer(relay, stack, folder)
    owner, stranger = Key.generate(), Key.generate()
    say(f"a home with {agents:,} agents")
    home, keys = await asyncio.to_thread(_home, folder, peer.url, owner, agents)
    say("letters")
    letters = _letters(keys, owner, MESSAGES, "letter ")
    seconds = MESSAGES // MESSAGE_HZ + 2
    strange = _letters(keys, stranger, OTHER_HZ // 2 * seconds, "strange ")
    other = [frame for pair in zip(strange, map(offer, signed(len(strange))), strict=True) for frame in pair]
    children = await stack.enter_async_context(Children(folder))
    say("starting the node")
    node = await children.start("node-log", "bench.crowd", str(home), str(folder / "found"), start_s=START_S)
    return peer, node, letters, other


async def run(rounds: int, folder: Path, say: Say, agents: int = AGENTS, relay: str = VENDO) -> list[Section]:
    """One long run; the number of messages takes the place of rounds."""
    del rounds
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        peer, node, letters, other = await _start(folder, stack, say, agents, relay)
        ready = time.monotonic() - begun
        await asyncio.sleep(SETTLE_S)
        say("messages")
        before = node.cpu_s()
        sent, connected = await _measure(peer, node, letters, other)
        spent, rss = node.cpu_s() - before, node.rss_mb()
        node.check()
        await node.stop()
        found = json.loads((folder / "found").read_text(encoding="utf-8"))
    texts = {f"letter {number}": at for number, at in enumerate(sent)}
    took = {
        text: 1e3 * (at - texts[text])
        for at, payload in found["arrived"]
        if (text := json.loads(payload).get("text", "")) in texts
    }
    return [_section(agents, relay, sent, list(took.values()), found, connected, (ready, spent, rss))]


def _section(
    agents: int,
    relay: str, sent: Sequence[float], took: Sequence[float], found: dict[str, int], connected: int,
    cost: tuple[float, float, float],
) -> Section:  # fmt: skip
    requests = found["most_open"] or None
    p99 = quantile(took, 0.99) if len(took) == len(sent) else None
    ready, spent, rss = cost
    section = Section(f"{agents:,} agents on one node, one relay ({relay}), {OTHER_HZ} other events a second")
    section.rows = [
        {
            "agents": agents, "REQs, most": requests, "sockets": connected, "DMs sent": len(sent),
            "in an inbox": len(took), "p50 ms": quantile(took, 0.5) if took else None,
            "p99 ms": quantile(took, 0.99) if took else None, "max ms": max(took, default=None),
            "node CPU s": spent, "MiB": rss, "start s": ready,
        }
    ]  # fmt: skip
    section.targets = [
        Target(f"REQs per relay for {agents:,} keys", 12, requests, at_least=False, unit=""),
        Target(f"sockets per relay for {agents:,} keys", 2, connected or None, at_least=False, unit=""),
        Target("DM to durable inbox, p99", 50, None if p99 is None else round(p99, 1), at_least=False, unit=" ms"),
    ]
    return section
