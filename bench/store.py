"""A store of a million events, written straight into a relay's file, and what its filters may ask for.

The events look like a relay's after a year: a few authors write most, a few topics and words are everywhere, answers
name earlier events, and there are jobs, private messages, profiles and articles. Their signatures are random bytes,
since signing a million takes minutes and no query looks at one.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from core.identifier import EventId, PubKey
from relays.embedded.store_schema import VERSION, connect, prepare
from relays.embedded.store_search import WordIndex
from relays.embedded.store_write import Entry, EventWriter
from relays.event import Event, Tags

YEAR_S, START = 31_536_000, 1_700_000_000
AUTHORS, TOPICS, WORDS = 5_000, 1_000, 30_000
KINDS = {1: 50, 7: 15, 1059: 10, 5050: 4, 6050: 4, 7000: 6, 1111: 5, 30_023: 2, 30_078: 2, 0: 1, 10_002: 1}
_GROUP = 5_000
_KEPT = 4_000


@dataclass(slots=True)
class Population:
    """What is in the store: all authors, topics and words, the most frequent first; some ids and addresses."""

    authors: list[str]
    topics: list[str]
    words: list[str]
    ids: list[str]
    addresses: list[str]

    def fill(self, template: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        """A filter with its `$names` replaced by values that occur, frequent ones more often."""
        day = START + rng.randrange(YEAR_S - 86_400)
        out = {name: self._value(value, day, rng) for name, value in template.items() if name != "#$ad"}
        if "#$ad" in template:
            address = rng.choice(self.addresses)
            out.update({"#a": [address]} if rng.random() < 0.5 else {"#d": [address.rpartition(":")[2]]})
        return out

    def _value(self, value: Any, day: int, rng: random.Random) -> Any:
        if isinstance(value, list):
            return list(dict.fromkeys(self._value(one, day, rng) for one in value))
        if not isinstance(value, str) or "$" not in value:
            return value
        if value.startswith("$day"):
            return day + int(value.partition("+")[2] or 0)
        if "$word" in value:
            return " ".join(_often(self.words, rng) for _ in value.split())
        if value == "$kind":
            return rng.choice([1, 7, 1059, 7000, 1111])
        return (
            rng.choice(self.ids)
            if value == "$id"
            else _often({"$author": self.authors, "$topic": self.topics}[value], rng)
        )


def _often(values: list[str], rng: random.Random) -> str:
    """The first most often, as in life (Zipf's law, nearly)."""
    return values[int(len(values) ** rng.random()) - 1]


def _events(people: Population, count: int, rng: random.Random) -> Iterator[Event]:
    kinds, weights = list(KINDS), list(accumulate(KINDS.values()))
    recent: list[str] = []
    for number in range(count):
        kind = rng.choices(kinds, cum_weights=weights)[0]
        author, at = _often(people.authors, rng), START + number * YEAR_S // count
        tags: list[tuple[str, ...]] = []
        content = " ".join(_often(people.words, rng) for _ in range(rng.randrange(10, 60)))
        if kind in (7, 6050, 7000, 1111) and recent:
            tags += [("e", rng.choice(recent)), ("p", _often(people.authors, rng))]
        if kind in (1059, 5050):
            tags.append(("p", _often(people.authors, rng)))
        if kind == 1:
            tags += [("t", _often(people.topics, rng)) for _ in range(rng.randrange(3))]
            if recent and rng.random() < 0.4:
                tags += [("e", rng.choice(recent)), ("p", _often(people.authors, rng))]
        if kind in (30_023, 30_078):
            tags += [("d", f"d{number}"), ("t", _often(people.topics, rng))]
            people.addresses.append(f"{kind}:{author}:d{number}")
        if kind == 1111 and people.addresses:
            tags.append(("a", rng.choice(people.addresses[-2_000:])))
        event_id = EventId(f"{rng.getrandbits(256):064x}")
        recent.append(event_id)
        if len(recent) > 20_000:
            del recent[:10_000]
        given: Tags = tuple(tags)
        yield Event(event_id, PubKey(author), at, kind, given, content, f"{rng.getrandbits(512):0128x}")


def build(home: Path, count: int) -> Population:
    """Write the store into `home/relay.db`; minutes for a million."""
    rng = random.Random(7)
    hexes = [f"{rng.getrandbits(256):064x}" for _ in range(AUTHORS)]
    words = ["".join(rng.choices("aeiourstlnmdkpbg", k=rng.randrange(3, 9))) for _ in range(WORDS)]
    people = Population(hexes, [f"topic{n}" for n in range(TOPICS)], words, [], [])
    db = connect(home / "relay.db", synchronous="OFF", cache_kib=1 << 20, write=True)
    writer = EventWriter(db, prepare(db, home / "relay.db", 64 << 30))
    index, group = WordIndex(writer), list[Entry]()
    for number, event in enumerate(_events(people, count, rng), 1):
        group.append(Entry(event, event.to_json().encode(), None))
        if rng.random() < _KEPT / count:
            people.ids.append(event.id)
        if len(group) == _GROUP or number == count:
            writer.commit(group)
            group = []
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            if number % (count // 10 or 1) == 0:
                print(f"  {number:,} events", file=sys.stderr, flush=True)
    while index.catch_up(20_000):
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    while index.settle():  # as a relay does when it has nothing else to do
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    (home / "population.json").write_text(json.dumps(asdict(people)), encoding="utf-8")
    return people


def stored(count: int) -> tuple[Path, Population]:
    """A home with such a store. It is made once for this format and kept in the folder for temporary files."""
    home = Path(tempfile.gettempdir()) / f"vendo-bench-store-{VERSION}-{count}"
    known = home / "population.json"
    if known.exists():
        return home, Population(**json.loads(known.read_text(encoding="utf-8")))
    home.mkdir(exist_ok=True)
    for left in home.glob("relay.db*"):
        left.unlink()
    begun = time.monotonic()
    people = build(home, count)
    print(f"  built in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return home, people
