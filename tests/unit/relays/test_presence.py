import orjson
import pytest

from relays.error import MalformedEvent
from relays.event import Draft
from relays.key import Key
from relays.kind import HEARTBEAT
from relays.presence import HEARTBEAT_S, MAX_TEXT_CHARS, Profile, heartbeat_draft, profile_draft, read_profile

KEY = Key(b"\x06" * 32)


def profile_of(content: object) -> Profile:
    return read_profile(KEY.sign(Draft(0, orjson.dumps(content).decode(), (), 5)))


def test_a_profile_is_read_back_as_it_was_written() -> None:
    profile = Profile(name="vendo", about="sells", nip05="a@b.example", lud16="x@y.example", bot=True)
    assert read_profile(KEY.sign(profile_draft(profile, 5))) == profile


def test_empty_texts_are_left_out() -> None:
    assert orjson.loads(profile_draft(Profile(name="x"), 5).content) == {"name": "x"}


def test_a_strangers_profile_loses_what_is_of_the_wrong_type_or_too_long() -> None:
    found = profile_of({"name": 5, "about": "a" * 9_000, "bot": "yes", "nip05": None, "other": "x"})
    assert found == Profile(about="a" * MAX_TEXT_CHARS)


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "5"])
def test_what_is_no_object_is_no_profile(content: str) -> None:
    with pytest.raises(MalformedEvent):
        read_profile(KEY.sign(Draft(0, content, (), 5)))


def test_a_note_is_no_profile() -> None:
    with pytest.raises(MalformedEvent):
        read_profile(KEY.sign(Draft(1, "{}", (), 5)))


def test_a_heartbeat_outlives_the_next_one_and_then_vanishes() -> None:
    event = KEY.sign(heartbeat_draft("vendo", 1_000, queue=3, capacity=4))
    assert (event.kind, event.value("d"), event.value("status")) == (HEARTBEAT, "vendo", "online")
    assert (event.value("queue"), event.value("load")) == ("3", "0.75")
    assert HEARTBEAT_S < int(event.value("expiration") or 0) - 1_000 < 3 * HEARTBEAT_S


def test_without_a_capacity_there_is_no_load() -> None:
    assert KEY.sign(heartbeat_draft("vendo", 1_000)).value("load") is None
