"""Random events (unsigned: the store and the index do not look) and filters that hit some of them."""

import random
from dataclasses import replace

from core.identifier import EventId, PubKey
from relays.event import Event
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import NOW

_AUTHORS = [PubKey(f"{number:02x}" * 32) for number in range(12)]
_KINDS = [1, 1, 1, 4, 5_001, 6_001, 7_000, 1_059, 42, 43]
_NAMES = "eptx"


def some_events(rng: random.Random, count: int) -> list[Event]:
    """Ordinary events in few seconds, so that there are many ties."""
    events = []
    for _ in range(count):
        tags = tuple((rng.choice(_NAMES), f"value {rng.randrange(8)}") for _ in range(rng.randrange(5)))
        event_id = EventId(f"{rng.getrandbits(256):064x}")
        at, kind = NOW + rng.randrange(count // 4 + 1), rng.choice(_KINDS)
        events.append(
            Event(event_id, rng.choice(_AUTHORS), at, kind, tags, "x\n\u2028\0é" * rng.randrange(3), "0" * 128)
        )
    return events


def some_filter(rng: random.Random, events: list[Event]) -> Filter:
    """Each condition is there or not; empty sets and windows that hold nothing come up as well."""
    wanted = Filter(limit=rng.choice([0, 1, 3, 10, 100, 500, 5_000]))
    if rng.random() < 0.15:
        wanted = replace(wanted, ids=frozenset(event.id for event in rng.sample(events, rng.randrange(8))))
    if rng.random() < 0.4:
        wanted = replace(wanted, authors=frozenset(rng.sample(_AUTHORS, rng.randrange(5) if rng.random() < 0.1 else 3)))
    if rng.random() < 0.5:
        wanted = replace(wanted, kinds=frozenset(rng.sample(_KINDS, rng.randint(0, 4))))
    if rng.random() < 0.5:
        names = rng.sample(_NAMES, rng.randint(1, 2))
        wanted = replace(wanted, tags={name: _values(rng) for name in names})
    if rng.random() < 0.3:
        wanted = replace(wanted, since=NOW + rng.randrange(len(events) // 4 + 1))
    if rng.random() < 0.3:
        wanted = replace(wanted, until=NOW + rng.randrange(len(events) // 4 + 1))
    return wanted


def _values(rng: random.Random) -> frozenset[str]:
    return frozenset(f"value {rng.randrange(10)}" for _ in range(rng.randint(1, 3)))


def brute_force(events: list[Event], filters: list[Filter]) -> list[str]:
    """The ids that NIP-01 asks for, in its order."""
    ordered = sorted(events, key=lambda event: (-event.created_at, event.id))
    found: dict[str, Event] = {}
    for wanted in filters:
        found.update({event.id: event for event in [one for one in ordered if wanted.matches(one)][: wanted.limit]})
    return [event.id for event in ordered if event.id in found]
