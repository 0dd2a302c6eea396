from dataclasses import FrozenInstanceError, dataclass

import pytest

from core.change import replace


@dataclass(frozen=True)
class Thing:
    name: str
    size: int = 1


def test_a_changed_copy_is_equal_to_one_that_was_made_so() -> None:
    assert replace(Thing("a"), size=2) == Thing("a", 2)


def test_the_original_stays_as_it_was() -> None:
    thing = Thing("a")
    replace(thing, name="b", size=9)
    assert thing == Thing("a", 1)


def test_a_copy_is_as_frozen_and_hashable_as_its_original() -> None:
    copy = replace(Thing("a"), size=2)
    assert hash(copy) == hash(Thing("a", 2))
    with pytest.raises(FrozenInstanceError):
        copy.size = 3


def test_a_class_with_slots_is_copied_as_well() -> None:
    @dataclass(frozen=True, slots=True)
    class Slotted:
        name: str
        size: int = 1

    assert replace(Slotted("a"), size=2) == Slotted("a", 2)


def test_a_field_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="no field colour"):
        replace(Thing("a"), colour="red")
