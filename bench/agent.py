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

from bench.crowd import PROBE
from bench.peer import VENDO, Peer, open_peer
from bench.process import Child, ChildFailed, Children
from bench.target import Section, Target, quantile
from bench.wire import Client, offer, signed
from core.identifier import PubKey
from node import home as homes
from relays.event import Draft
from relays.key import Key
from relays.nip17 import wrap

AGENTS = 10_000
MESSAGES, MESSAGE_HZ, OTHER_HZ = 300, 20, 200
START_S, READY_S, QUIET_S = 300.0, 120.0, 240.0
IDLE_CPU = 0.15
DM = 14
Say = Callable[[str], None]


def _home(folder: Path, relay: str, owner: Key, agents: int) -> tuple[Path, list[PubKey]]:
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


def _letters(keys: Sequence[PubKey], sender: Key, count: int, mark: str) -> list[bytes]:
    choose = random.Random(7)
    now = int(time.time())
    return [offer(wrap(sender, choose.choice(keys), Draft(DM, f"{mark}{number}", (), now))) for number in range(count)]


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


async def _heard(peer: Peer, node: Child, probes: Sequence[bytes]) -> None:
    """Letters to some agents have arrived, so the relay has let the node read for its keys.

    Raises:
        ChildFailed: they did not arrive in time.
    """
    client = await Client.connect(peer.url)
    client.transport.write(b"".join(probes))
    assert node.process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            for _ in probes:
                await node.process.stdout.readline()
    except TimeoutError as error:
        raise ChildFailed(f"letters did not reach the node's agents: {node.tail()}") from error
    finally:
        client.close()


async def _quiet(node: Child) -> None:
    """Ten thousand first ticks are behind it: that happens once in the life of an agent, and is not what is timed."""
    for _ in range(int(QUIET_S)):
        before = node.cpu_s()
        await asyncio.sleep(1.0)
        if node.cpu_s() - before < IDLE_CPU:
            return


async def _start(
    folder: Path, stack: AsyncExitStack, say: Say, agents: int, relay: str
) -> tuple[Peer, Child, list[bytes], list[bytes], list[bytes]]:
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
    return peer, node, _letters(keys, owner, 20, PROBE), letters, other


async def run(rounds: int, folder: Path, say: Say, agents: int = AGENTS, relay: str = VENDO) -> list[Section]:
    """One long run; the number of messages takes the place of rounds."""
    del rounds
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        peer, node, probes, letters, other = await _start(folder, stack, say, agents, relay)
        ready = time.monotonic() - begun
        say("waiting until its agents hear")
        await _heard(peer, node, probes)
        say("waiting until its agents have had their first tick")
        await _quiet(node)
        say("messages")
        before = node.cpu_s()
        sent, connected = await _measure(peer, node, letters, other)
        spent, rss = node.cpu_s() - before, node.rss_mb()
        node.check()
        await node.stop()
        found = json.loads((folder / "found").read_text(encoding="utf-8"))
    texts = {f"letter {number}": at for number, at in enumerate(sent)}
    took = {text: 1e3 * (at - texts[text]) for at, text in found["arrived"] if text in texts}
    return [_section(agents, relay, sent, list(took.values()), found, connected, (ready, spent, rss))]


def _section(
    agents: int, relay: str, sent: Sequence[float], took: Sequence[float], found: dict[str, list[tuple[float, float]]],
    connected: int, cost: tuple[float, float, float],
) -> Section:  # fmt: skip
    before = [count for at, count in found["requests"] if at <= sent[-1]]
    p99 = quantile(took, 0.99) if len(took) == len(sent) else None
    ready, spent, rss = cost
    section = Section(f"{agents:,} agents on one node, one relay ({relay}), {OTHER_HZ} other events a second")
    section.rows = [
        {
            "agents": agents, "REQs": before[-1], "at most": max(before), "sockets": connected, "DMs sent": len(sent),
            "in an inbox": len(took), "p50 ms": quantile(took, 0.5) if took else None,
            "p99 ms": quantile(took, 0.99) if took else None, "max ms": max(took, default=None),
            "longest GC ms": max((ms for at, ms in found["pauses"] if sent[0] <= at <= sent[-1]), default=0.0),
            "node CPU s": spent, "MiB": rss, "start s": ready,
        }
    ]  # fmt: skip
    section.targets = [
        Target(f"REQs per relay for {agents:,} keys", 12, before[-1] or None, at_least=False, unit=""),
        Target(f"sockets per relay for {agents:,} keys", 2, connected or None, at_least=False, unit=""),
        Target("DM to durable inbox, p99", 50, None if p99 is None else round(p99, 1), at_least=False, unit=" ms"),
    ]
    return section
