"""The rows of the bench's ticks: what waits for an agent, and what a tick of a trivial agent writes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import orjson

from core.unit import Insert, UnitOfWork

STATE = orjson.dumps({"seen": 17, "last": "x" * 64, "topics": {f"topic-{n}": n for n in range(12)}}).decode()
PAYLOAD = orjson.dumps({"text": "Would you summarise this for me, please? " * 3, "from": "f" * 64}).decode()
EVENT = orjson.dumps(
    {
        "id": "0" * 64, "pubkey": "1" * 64, "created_at": 1_700_000_000, "kind": 30_090,
        "tags": [["r", "run"], ["seq", "1"], ["type", "begin"], ["prev", "2" * 64]], "content": "y" * 120,
        "sig": "3" * 128,
    }
).decode()  # fmt: skip
ENTRY_BODY = orjson.dumps({"path": "/nostr/dm", "digest": "d" * 64, "cost": 0}).decode()
LETTER = orjson.dumps({"kind": 1059, "content": "z" * 400, "pubkey": "1" * 64, "sig": "3" * 128}).decode()
RELAY = "wss://relay.example"
NOW = 1_700_000_000
_GROUP = 500


def mark(kind: str, number: int) -> str:
    """An id as they all are here: a hash, so that rows of one time lie all over an index."""
    return hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def names(count: int) -> list[str]:
    """So many agents."""
    return [f"agent-{number:05}" for number in range(count)]


def agent(name: str, program: str = "trivial") -> Insert:
    """An agent that was there before."""
    return Insert(
        "agent",
        {
            "name": name, "program": program, "pubkey": "a" * 64, "status": "active", "state_version": 1,
            "state": STATE, "created_at": NOW,
        },
    )  # fmt: skip


def message(name: str, number: int) -> Insert:
    """What waits for it."""
    return Insert(
        "inbox",
        {
            "agent": name, "envelope_id": mark("envelope", number), "cause": "message", "source": "nostr",
            "sender": mark("sender", number % 97), "payload": PAYLOAD, "at": NOW,
        },
    )  # fmt: skip


def messages(agents: Sequence[str], count: int, first: int = 0) -> Iterator[Insert]:
    """So many for all of them in turn."""
    for number in range(first, first + count):
        yield message(agents[number % len(agents)], number)


async def fill(unit: UnitOfWork, rows: Iterable[Insert]) -> None:
    """Write them in large units, as nobody who is waited for would."""
    group: list[Insert] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP:
            await unit.commit(group)
            group = []
    await unit.commit(group)
