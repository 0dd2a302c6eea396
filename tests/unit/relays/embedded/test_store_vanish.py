import pytest

from relays.embedded import store_write
from relays.embedded.store_write import DELETED, VANISHED, VANISHED_RECEIVER
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note
from tests.unit.relays.embedded.test_store_query import Parts

URL = "wss://relay.example"


@pytest.fixture
def parts(tmp_path):
    made = Parts(tmp_path / "relay.db")
    made.writer.urls = frozenset({URL})
    yield made
    made.close()


def request(*relays, by=ALICE, at=NOW + 50):
    return note(by, 62, "forget me", at, [("relay", relay) for relay in relays])


def everything(parts):
    return parts.ask(Filter(limit=5_000))


def traces(parts, key):
    """Rows that still speak of a key's events."""
    hashed = parts.writer.keyed(key.pubkey)
    sql = "SELECT count(*) FROM event WHERE author=? AND kind<>62"
    orphans = "SELECT count(*) FROM {} WHERE seq NOT IN (SELECT seq FROM event)"
    counts = [parts.db.execute(sql, (hashed,)).fetchone()[0]]
    return [*counts, *(parts.db.execute(orphans.format(table)).fetchone()[0] for table in ("tag", "body", "slot"))]


@pytest.mark.parametrize("named", [URL, URL + "/", "WSS://Relay.Example", "wss://relay.example:443", "ALL_RELAYS"])
def test_everything_of_the_author_goes_and_nothing_comes_back(parts, named):
    mine = [
        note(),
        note(kind=0),
        note(kind=30_000, with_tags=[("d", "x"), ("t", "y")]),
        note(kind=5, with_tags=[("e", "a" * 64)]),
    ]
    theirs = note(BOB)
    parts.store([*mine, theirs])
    asked = request("wss://other.example", named)
    assert parts.store([asked])[0].seq
    assert set(everything(parts)) == {asked.id, theirs.id}
    assert traces(parts, ALICE) == [0, 0, 0, 0]
    assert parts.store(mine) == [VANISHED] * 4
    assert parts.store([note(at=NOW + 100)]) == [VANISHED]
    assert parts.writer.total == 2


def test_gift_wraps_to_the_author_go_and_are_refused_and_those_to_others_stay(parts):
    to_alice = note(BOB, 1059, with_tags=[("p", ALICE.pubkey)])
    to_bob = note(BOB, 1059, with_tags=[("p", BOB.pubkey)])
    mention = note(BOB, 1, with_tags=[("p", ALICE.pubkey)])
    asked = request("ALL_RELAYS")
    parts.store([to_alice, to_bob, mention, asked])
    assert set(everything(parts)) == {to_bob.id, mention.id, asked.id}
    assert parts.store([to_alice]) == [VANISHED_RECEIVER]


@pytest.mark.parametrize(
    "relays", [(), ("wss://other.example",), ("all_relays",), ("relay.example",), ("wss://relay.example/x",)]
)
def test_a_request_to_other_relays_does_nothing_here(parts, relays):
    mine, asked = note(), request(*relays)
    parts.store([mine, asked])
    assert set(everything(parts)) == {mine.id, asked.id}
    assert parts.store([note(content="more")])[0].seq


def test_a_request_cannot_be_deleted_and_a_second_one_is_taken(parts):
    asked = request(URL)
    parts.store([asked])
    assert parts.store([note(kind=5, at=NOW + 60, with_tags=[("e", asked.id)])]) == [VANISHED]
    assert parts.store([request("ALL_RELAYS", at=NOW + 70)])[0].seq
    assert asked.id in everything(parts)


def test_somebody_elses_deletion_of_a_request_does_nothing(parts):
    asked = request(URL)
    parts.store([asked, note(BOB, 5, with_tags=[("e", asked.id)])])
    assert asked.id in everything(parts)
    assert parts.store([note()]) == [VANISHED]


def test_a_vanished_author_stays_away_after_a_restart(parts, tmp_path):
    parts.store([note(), request(URL)])
    again = Parts(tmp_path / "relay.db")
    try:
        assert again.store([note()]) == [VANISHED]
    finally:
        again.close()


def test_words_of_a_vanished_author_are_found_no_more(parts):
    parts.store([note(content="kiwi")])
    parts.words.catch_up(100)
    parts.store([request(URL)])
    parts.words.catch_up(100)
    assert parts.ask(Filter(search="kiwi")) == []
    assert len(parts.ask(Filter(search="forget"))) == 1


def test_a_prolific_author_vanishes_bit_by_bit_and_is_unseen_at_once(parts, monkeypatch, tmp_path):
    monkeypatch.setattr(store_write, "_VANISHED_AT_ONCE", 10)
    mine = [note(content=str(n), at=NOW + n) for n in range(45)]
    wraps = [note(BOB, 1059, str(n), with_tags=[("p", ALICE.pubkey)]) for n in range(5)]
    asked = request(URL, at=NOW + 99)
    parts.store([*mine, *wraps, asked])
    assert parts.writer.is_vanishing
    assert everything(parts) == [asked.id]
    assert parts.reader.vector([Filter()]) == [(asked.created_at, asked.id)]
    assert [seq for seq, _ in parts.reader.after(0, 100, NOW)] == [51]
    again = Parts(tmp_path / "relay.db")  # as after a crash
    try:
        assert again.writer.is_vanishing
        assert again.sweeper.vanished(30) == 30
        assert again.sweeper.vanished(30) == 10
        assert not again.writer.is_vanishing
        assert again.sweeper.vanished(30) == 0
        assert everything(again) == [asked.id]
        assert traces(again, ALICE) == [0, 0, 0, 0]
        assert again.store(wraps[:1] + mine[:1]) == [VANISHED_RECEIVER, VANISHED]
    finally:
        again.close()


def test_requests_and_deletions_in_one_group_keep_their_order(parts):
    mine, deletion = note(), note(kind=5, at=NOW + 1, with_tags=[("e", note().id)])
    outcomes = parts.store([mine, deletion, mine, request(URL), mine])
    assert [outcome.accepted for outcome in outcomes] == [True, True, False, True, False]
    assert outcomes[2] == DELETED
