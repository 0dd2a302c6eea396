import random

import pytest

from relays.embedded.index import LiveIndex
from relays.filter import Filter
from relays.key import Key
from tests.unit.relays.embedded.event_part import ALICE, note
from tests.unit.relays.embedded.random_part import some_events, some_filter


@pytest.mark.parametrize("seed", range(6))
def test_the_index_finds_exactly_what_asking_each_filter_finds(seed):
    rng = random.Random(seed)
    events = some_events(rng, 60)
    asked = {number: [some_filter(rng, events) for _ in range(rng.randint(1, 3))] for number in range(150)}
    index = LiveIndex[int]()
    for owner, filters in asked.items():
        index.add(owner, filters)
    for owner in rng.sample(sorted(asked), 50):
        index.remove(owner)
        del asked[owner]
    for event in events:
        wanted = [owner for owner, filters in asked.items() if any(one.matches(event) for one in filters)]
        assert sorted(index.find(event)) == wanted


def test_nothing_is_left_when_every_owner_has_gone():
    rng = random.Random(7)
    events = some_events(rng, 20)
    index = LiveIndex[int]()
    for owner in range(40):
        wanted = some_filter(rng, events)
        index.add(owner, [wanted, wanted])
    for owner in range(40):
        index.remove(owner)
    index.remove(99)
    assert len(index) == 0
    assert not index._postings
    assert not index._groups


def test_a_filter_with_very_many_pairs_still_matches():
    authors = frozenset({ALICE.pubkey, *(f"{number:064x}" for number in range(100))})
    index = LiveIndex[str]()
    index.add("wide", [Filter(authors=authors, kinds=frozenset(range(100)))])
    assert index.find(note(kind=7)) == ["wide"]
    assert index.find(note(kind=100)) == []
    assert index.find(note(Key(b"\7" * 32))) == []
    assert len(index._postings) == 101
