"""Rows examined: every common shape stays within the bound and reads no table; what cannot is refused."""

import json
import random
from pathlib import Path

import pytest

from bench.store import build
from relays.embedded.error import QueryTooBroad
from relays.embedded.store_query import EventReader
from relays.embedded.store_scan import EXAMINED_PER_ROW
from relays.embedded.store_schema import connect, hashing
from relays.filter import Filter, parse_filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note
from tests.unit.relays.embedded.test_store_query import Parts

SHAPES = json.loads((Path(__file__).parents[4] / "bench/filters.json").read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    home = tmp_path_factory.mktemp("store")
    people = build(home, 6_000)
    db = connect(home / "relay.db")
    kinds = frozenset(row[0] for row in db.execute("SELECT DISTINCT kind FROM event"))
    reader = EventReader(home / "relay.db", hashing(db), lambda: kinds)
    yield reader, people
    reader.close()
    db.close()


def test_there_are_twelve_shapes():
    assert len({shape["shape"] for shape in SHAPES}) == 12


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["shape"])
def test_a_common_shape_examines_no_more_than_its_bound(store, shape):
    reader, people = store
    rng = random.Random(shape["shape"])
    returned = 0
    for limit in (1, 10, 100):
        for _ in range(25):
            wanted = parse_filter(people.fill(shape["filter"], rng) | {"limit": limit})
            snapshot = reader.snapshot([wanted], 0)
            assert snapshot.examined <= EXAMINED_PER_ROW * (len(snapshot.seqs) + 1)
            returned += len(snapshot.seqs)
    assert returned > 20


@pytest.mark.parametrize("shape", SHAPES[1:11], ids=lambda shape: shape["shape"])
def test_a_shape_is_answered_from_an_index_and_the_plan_sorts_nothing(store, shape):
    reader, people = store
    statements = []
    reader._db.set_trace_callback(statements.append)
    reader.snapshot([parse_filter(people.fill(shape["filter"], random.Random(1)))], 0)
    reader._db.set_trace_callback(None)
    selects = [one for one in statements if "place" in one and one.startswith("SELECT")]
    assert selects
    for one in selects:
        plan = " ".join(row[3] for row in reader._db.execute("EXPLAIN QUERY PLAN " + one))
        assert "SCAN event" not in plan, plan
        assert "SCAN tag" not in plan, plan
        assert "SCAN x " not in plan.replace("SCAN x USING COVERING INDEX event_place", ""), plan
        assert "TEMP B-TREE FOR ORDER BY" not in plan, plan


@pytest.fixture
def parts(tmp_path):
    made = Parts(tmp_path / "relay.db")
    yield made
    made.close()


def test_what_an_index_cannot_decide_is_refused_when_it_would_examine_too_much(parts):
    many = [note(at=NOW + n, with_tags=[("t", "x"), ("p", f"{n:064x}")]) for n in range(600)]
    both = note(at=NOW + 300, with_tags=[("t", "x"), ("l", "y")])
    parts.store([*many, both, *(note(BOB, at=NOW + n, with_tags=[("l", "y")]) for n in range(600))])
    wanted = Filter(tags={"t": frozenset("x"), "l": frozenset("y")}, limit=5)
    with pytest.raises(QueryTooBroad):
        parts.ask(wanted)
    assert parts.reader.count([wanted]) == 1


def test_the_rarer_of_two_tags_is_read(parts):
    hot = [note(at=NOW + n, with_tags=[("t", "hot")]) for n in range(500)]
    rare = note(with_tags=[("t", "hot"), ("l", "rare")])
    parts.store([*hot, rare])
    assert parts.ask(Filter(tags={"t": frozenset({"hot"}), "l": frozenset({"rare"})}, limit=5)) == [rare.id]


def test_an_author_among_many_with_a_tag_among_many_is_one_look(parts):
    parts.store([note(BOB, at=NOW + n, with_tags=[("t", "x")]) for n in range(400)])
    parts.store([note(ALICE, at=NOW + n, with_tags=[("t", "y")]) for n in range(400)])
    one = note(ALICE, with_tags=[("t", "x")])
    parts.store([one])
    snapshot = parts.reader.snapshot([Filter(authors=frozenset({ALICE.pubkey}), tags={"t": frozenset("x")})], NOW)
    assert (len(snapshot.seqs), snapshot.examined) == (1, 2)  # once as the newest, once in the answer


def test_a_thousand_authors_without_events_cost_nothing(parts):
    parts.store([note(BOB, at=NOW + n) for n in range(50)])
    nobody = frozenset(f"{n:064x}" for n in range(1_000))
    snapshot = parts.reader.snapshot([Filter(authors=nobody), Filter(authors=nobody, kinds=frozenset({1, 7}))], NOW)
    assert (len(snapshot.seqs), snapshot.examined) == (0, 0)


def test_more_authors_than_may_be_looked_up_are_read_in_the_order_of_time(parts):
    from relays.key import Key

    crowd = [Key(bytes([1, n]) * 16) for n in range(1, 90)]
    events = [note(key, at=NOW + n) for n, key in enumerate(crowd)]
    parts.store(events)
    wanted = Filter(authors=frozenset(key.pubkey for key in crowd), kinds=frozenset({1}), limit=2)
    snapshot = parts.reader.snapshot([wanted], NOW)
    assert parts.ask(wanted) == [events[-1].id, events[-2].id]
    assert snapshot.examined <= EXAMINED_PER_ROW * 3


def test_events_of_one_second_and_one_start_of_the_id_are_all_found(parts):
    """`place` holds 30 bits of the id only: two events may share it."""
    from core.identifier import EventId, PubKey
    from relays.event import Event

    same = [
        Event(EventId("abcdef01" + f"{n:056x}"), PubKey(f"{n % 3:064x}"), NOW, kind, (("t", "x"),), "", "0" * 128)
        for n in range(12)
        for kind in (1,)
    ]
    parts.store(same)
    for wanted in (
        Filter(),
        Filter(kinds=frozenset({1, 2})),
        Filter(authors=frozenset(f"{n:064x}" for n in range(3))),
        Filter(tags={"t": frozenset({"x", "y"})}),
        Filter(tags={"t": frozenset({"x", "y"})}, limit=4),
    ):
        found = parts.ask(wanted)
        assert len(found) == len(set(found)) == min(12, wanted.limit)
