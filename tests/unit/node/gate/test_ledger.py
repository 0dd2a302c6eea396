"""What an entry looks like."""

from core.unit import Append
from node.gate.ledger import body, ledger_seal
from node.storage.chain import Head
from relays.event import parse_json, verify
from tests.gate_part import KEY


def test_an_entry_is_a_signed_event_that_names_the_one_before() -> None:
    row = ledger_seal(KEY)(Head("run", 3, "aa" * 32, 1_000), Append("run", "begin", "e", '{"a":1}'))
    event = parse_json(row["raw"])
    verify(event)
    assert (event.kind, event.pubkey, event.created_at, event.content) == (2790, KEY.pubkey, 1_000, '{"a":1}')
    assert event.tags == (("r", "run"), ("s", "3"), ("e", "aa" * 32, "", "prev"), ("t", "begin"), ("k", "e"))
    assert (row["id"], row["seq"], row["prev"], row["type"], row["effect_id"]) == (event.id, 3, "aa" * 32, "begin", "e")


def test_the_first_entry_names_none() -> None:
    row = ledger_seal(KEY)(Head("run", 0, "", 1_000), Append("run", "root", "", "{}"))
    assert parse_json(row["raw"]).value("e") is None


def test_a_secret_does_not_get_into_an_entry() -> None:
    row = ledger_seal(KEY)(Head("run", 0, "", 1), Append("run", "root", "", f'{{"a":"{KEY.nsec}"}}'))
    assert KEY.nsec not in row["raw"]
    assert KEY.nsec not in body({"detail": {"reason": f"x {KEY.nsec}"}})


def test_long_and_broken_texts_are_cut_to_size() -> None:
    made = body({"detail": {"reason": "x" * 5_000, "other": "\ud800"}})
    assert len(made) < 1_200
    made.encode()
