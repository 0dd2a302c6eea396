"""What a relay says it takes is kept to before anything is sent."""

import pytest

from core.identifier import EventId
from relays.connection import Connection
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key
from relays.limitation import Traits, key_capacity, leading_zeros, parse_traits, refuse_event
from relays.nip11 import Information
from relays.subscription import Spec
from relays.verdict import Verdict, VerdictState

NOW = 1_800_000_000
KEY = Key.generate()


def event(content: str = "x", tags: int = 0, at: int = NOW) -> Event:
    return KEY.sign(Draft(1, content, (("t", "y"),) * tags, at))


@pytest.mark.parametrize(
    ("information", "bad", "good", "word"),
    [
        (Information(max_message_length=1_000), event("x" * 900), event(), "invalid"),
        (Information(max_content_length=100), event("x" * 101), event("x" * 100), "invalid"),
        (Information(max_event_tags=3), event(tags=4), event(tags=3), "invalid"),
        (Information(created_at_lower_limit=100), event(at=NOW - 101), event(at=NOW - 100), "invalid"),
        (Information(created_at_upper_limit=10), event(at=NOW + 11), event(at=NOW + 10), "error"),
        (Information(created_at_lower_limit=NOW - 50), event(at=NOW - 51), event(at=NOW - 50), "invalid"),
    ],
)
def test_an_event_that_the_relay_would_refuse_is_not_sent(
    information: Information, bad: Event, good: Event, word: str
) -> None:
    assert refuse_event(information, bad.id, bad.to_json(), NOW).startswith(f"{word}: ")
    assert refuse_event(information, good.id, good.to_json(), NOW) == ""


def test_an_event_without_the_work_that_the_relay_wants_is_not_sent() -> None:
    easy = EventId("0000f" + "f" * 59)
    assert leading_zeros(easy) == 16
    assert leading_zeros("1" * 64) == 3
    assert refuse_event(Information(min_pow_difficulty=16), easy, "", NOW) == ""
    assert refuse_event(Information(min_pow_difficulty=17), easy, "", NOW).startswith("pow: ")


def test_a_refusal_of_our_own_is_told_like_the_relays() -> None:
    part = Connection("ws://r", token=lambda: "s.", jitter=lambda most: most)
    part.information = Information(max_content_length=1, created_at_upper_limit=0)
    part.opened(NOW, 0.0)
    verdicts: list[Verdict] = []
    part.publish(event("xx"), verdicts.append, NOW, 0.0)
    part.publish(event(at=NOW + 5), verdicts.append, NOW, 0.0)
    assert [one.state for one in verdicts] == [VerdictState.REFUSED, VerdictState.UNKNOWN]  # the second one later
    assert not part.out


def test_a_request_with_more_filters_than_the_relay_takes_is_reported_and_not_sent() -> None:
    part = Connection("ws://r", token=lambda: "s.", jitter=lambda most: most)
    part.information = Information(max_filters=1)
    part.add(Spec("two", (Filter(kinds=frozenset({1})), Filter(kinds=frozenset({2})))), None, NOW, 0.0)
    part.opened(NOW, 0.0)
    assert not part.out
    assert part.streams["two"].stopped.startswith("unsupported: ")


def test_no_filter_asks_for_more_than_the_relay_serves_and_no_id_is_too_long() -> None:
    part = Connection("ws://r", token=lambda: "abcdefgh.", jitter=lambda most: most)
    part.information = Information(max_limit=50, max_subid_length=8)
    part.add(Spec("notes", (Filter(kinds=frozenset({1}), limit=70),)), None, NOW, 0.0)
    part.opened(NOW, 0.0)
    assert part.out[0] == '["REQ","ab1",{"kinds":[1],"limit":50}]'


def test_no_more_is_open_than_the_relay_serves_and_what_waits_comes_in_turn() -> None:
    part = Connection("ws://r", token=lambda: "s.", jitter=lambda most: most)
    part.information = Information(max_subscriptions=5)
    for n in range(9):
        part.add(Spec(str(n), (Filter(kinds=frozenset({n})),)), None, NOW, 0.0)
    part.opened(NOW, 0.0)
    assert (part.open_requests, part.queued) == (4, 5)
    part.remove("0")
    part.tick(NOW, 1.0)
    assert (part.open_requests, part.queued) == (4, 4)
    assert part.streams["4"].sub_id


def test_how_many_keys_fit_a_request() -> None:
    assert 1_900 <= key_capacity(Information(), Traits()) <= 2_000
    assert key_capacity(Information(max_message_length=8_192), Traits()) < 8_192 // 64
    assert key_capacity(Information(), Traits(values=250)) == 250


def test_traits_survive_the_database_and_junk_does_not_hurt() -> None:
    traits = Traits("many", True, False, 500)
    assert parse_traits(traits.to_json()) == traits
    for junk in ("", "[]", "{}", '{"keys":5,"values":-1,"guarded":"x"}', "nonsense"):
        assert parse_traits(junk) == Traits()
