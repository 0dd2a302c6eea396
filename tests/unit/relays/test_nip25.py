"""Reactions as acknowledgements."""

import pytest

from relays.event import Draft
from relays.key import Key
from relays.nip17 import Rumor, rumor_id
from relays.nip25 import TICK, reacted_to, reaction_draft

ALICE, BOB = Key.generate(), Key.generate()


def _rumor(draft: Draft) -> Rumor:
    return Rumor(ALICE.pubkey, draft.kind, draft.content, draft.tags, draft.created_at, rumor_id(ALICE.pubkey, draft))


def test_a_reaction_names_the_message_its_author_and_its_kind() -> None:
    draft = reaction_draft("a" * 64, BOB.pubkey, 5)
    assert (draft.kind, draft.content) == (7, TICK)
    assert draft.tags == (("e", "a" * 64), ("p", BOB.pubkey), ("k", "14"))
    assert reacted_to(_rumor(draft)) == "a" * 64
    assert reacted_to(ALICE.sign(draft)) == "a" * 64


def test_the_last_e_tag_is_meant() -> None:
    draft = Draft(7, "+", (("e", "a" * 64), ("e", "b" * 64)), 1)
    assert reacted_to(_rumor(draft)) == "b" * 64


@pytest.mark.parametrize(
    "draft",
    [
        Draft(7, "-", (("e", "a" * 64),), 1),
        Draft(7, "+", (), 1),
        Draft(7, "+", (("e", "short"),), 1),
        Draft(7, "+" * 100, (("e", "a" * 64),), 1),
        Draft(14, "+", (("e", "a" * 64),), 1),
    ],
)
def test_what_does_not_acknowledge_is_none(draft: Draft) -> None:
    assert reacted_to(_rumor(draft)) is None
