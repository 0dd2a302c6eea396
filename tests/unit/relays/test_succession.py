"""Two notes prove that one key follows another, and neither does alone."""

import pytest

from relays.error import MalformedEvent
from relays.key import Key
from relays.succession import Succession, predecessor_draft, read_succession, successor_draft

OLD, NEW, THIEF = (Key.generate() for _ in range(3))
FIRST = OLD.sign(successor_draft(NEW.pubkey, "agent", 10))
SECOND = NEW.sign(predecessor_draft(OLD.pubkey, FIRST.id, "agent", 11))


def test_both_notes_together_prove_it():
    assert read_succession(FIRST, SECOND) == Succession(OLD.pubkey, NEW.pubkey, 11)


def test_the_old_key_alone_cannot_name_a_successor_that_does_not_know_of_it():
    to_thief = OLD.sign(successor_draft(THIEF.pubkey, "agent", 10))
    for first, second in ((to_thief, SECOND), (FIRST, FIRST), (SECOND, FIRST), (SECOND, SECOND)):
        with pytest.raises(MalformedEvent):
            read_succession(first, second)


def test_the_new_key_alone_cannot_take_somebody_s_place():
    usurping = THIEF.sign(predecessor_draft(OLD.pubkey, FIRST.id, "agent", 11))
    with pytest.raises(MalformedEvent):
        read_succession(FIRST, usurping)


def test_the_new_key_means_one_note_and_no_other():
    again = OLD.sign(successor_draft(NEW.pubkey, "agent", 12))
    with pytest.raises(MalformedEvent):
        read_succession(again, SECOND)
    itself = OLD.sign(successor_draft(OLD.pubkey, "agent", 12))
    with pytest.raises(MalformedEvent):
        read_succession(itself, OLD.sign(predecessor_draft(OLD.pubkey, itself.id, "agent", 13)))
