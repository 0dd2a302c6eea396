import pytest

from relays.embedded.limit import Limits
from relays.embedded.policy import RelayPolicy
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, NOW, note

POLICY = RelayPolicy(Limits(event_tags=20, indexed_tags=10))


@pytest.mark.parametrize(
    ("event", "word"),
    [
        (note(at=NOW + 901), "invalid:"),
        (note(with_tags=[("expiration", str(NOW))]), "invalid:"),
        (note(with_tags=[("-",)]), "auth-required:"),
        (note(kind=1059), "invalid:"),
        (note(kind=22_242), "blocked:"),
        (note(with_tags=[("x" * 2, "")] * 21), "invalid:"),
        (note(with_tags=[("t", str(number)) for number in range(11)]), "invalid:"),
    ],
)
def test_a_refusal_begins_with_a_word_of_nip_01(event, word):
    assert POLICY.refuse_event(event, NOW, ()).startswith(word)


@pytest.mark.parametrize(
    "event",
    [
        note(at=NOW + 900),
        note(at=0),
        note(with_tags=[("expiration", str(NOW + 1))]),
        note(with_tags=[("expiration", "junk")]),
        note(with_tags=[("t", str(number)) for number in range(10)]),
        note(with_tags=[("t", "same")] * 20),
        note(kind=20_001),
        note(kind=1059, with_tags=[("p", ALICE.pubkey)]),
    ],
)
def test_an_ordinary_event_is_taken(event):
    assert POLICY.refuse_event(event, NOW, ()) == ""


def test_a_protected_event_is_taken_from_its_proven_author():
    assert POLICY.refuse_event(note(with_tags=[("-",)]), NOW, {ALICE.pubkey}) == ""


def test_a_search_is_refused_rather_than_answered_with_everything():
    assert POLICY.refuse_filters((Filter(), Filter(search="x")), ()).startswith("unsupported:")
    assert POLICY.refuse_filters((Filter(),), ()) == ""
