"""NIP-42 for several keys on one connection."""

from core.identifier import PubKey
from relays.authentication import ANSWER_S, MAX_AT_ONCE, SIGN_S, Authentication, Settled
from relays.event import Draft, Event
from relays.key import Key

KEYS = [Key.generate() for _ in range(20)]
NAMES = [key.pubkey for key in KEYS]


def authentication() -> Authentication:
    return Authentication(lambda: NAMES, lambda most: most)


def show(part: Authentication, mono: float = 0.0) -> list[Event]:
    """Sign what is asked for; the events that go to the relay."""
    by_name = dict(zip(NAMES, KEYS, strict=True))
    sent = []
    for ask in part.take(mono):
        assert ask.pubkey is not None
        event = by_name[ask.pubkey].sign(Draft(22242, "", (("challenge", ask.challenge),), 1))
        shown, _ = part.signed(ask, event, mono)
        if shown is not None:
            sent.append(shown)
    return sent


def test_nothing_is_signed_before_it_is_wanted_and_nothing_before_a_challenge() -> None:
    part = authentication()
    part.challenged("c")
    assert part.take(0.0) == []
    part = authentication()
    part.want(NAMES[:1])
    assert part.take(0.0) == []
    part.challenged("c")
    assert [ask.pubkey for ask in part.take(0.0)] == NAMES[:1]


def test_each_key_is_shown_once_and_only_so_many_at_a_time() -> None:
    part = authentication()
    part.challenged("c")
    part.want(NAMES)
    part.want(NAMES)
    shown: list[str] = []
    while sent := show(part):
        assert len(sent) <= MAX_AT_ONCE
        for event in sent:
            shown.append(event.pubkey)
            assert part.answered(event.id, True, "", 0.0) == Settled((event.pubkey,))
    assert shown == NAMES
    assert part.accepted == set(NAMES)


def test_a_key_that_is_refused_fails_and_the_others_go_on() -> None:
    part = authentication()
    part.challenged("c")
    part.want(NAMES[:2])
    one, two = show(part)
    assert part.answered(one.id, False, "restricted: no", 0.0) == Settled(failed=(NAMES[0],))
    assert part.answered(two.id, True, "", 0.0) == Settled((NAMES[1],))
    part.want(NAMES[:1])
    assert part.take(1.0) == []
    assert part.usable(set(NAMES[:2])) == [NAMES[1]]


def test_a_relay_that_is_asked_too_fast_gets_time() -> None:
    part = authentication()
    part.challenged("c")
    part.want(NAMES[:1])
    (event,) = show(part)
    assert part.answered(event.id, False, "rate-limited: slowly", 0.0) == Settled()
    assert part.take(1.0) == []
    assert [ask.pubkey for ask in part.take(60.0)] == NAMES[:1]


def test_an_answer_that_a_new_challenge_overtook_is_given_again() -> None:
    part = authentication()
    part.challenged("old")
    part.want(NAMES[:1])
    (event,) = show(part)
    part.challenged("new")
    assert part.answered(event.id, False, "invalid: wrong challenge", 0.0) == Settled()
    (ask,) = part.take(0.0)
    assert ask.challenge == "new"


def test_what_takes_too_long_is_given_up() -> None:
    part = authentication()
    part.challenged("c")
    part.want(NAMES[:1])
    show(part)
    assert part.overdue(ANSWER_S) == Settled()
    assert part.overdue(ANSWER_S + 1) == Settled(failed=(NAMES[0],))
    part.want(NAMES[1:2])
    part.take(20.0)
    assert part.overdue(20.0 + SIGN_S + 1) == Settled(failed=(NAMES[1],))


def test_a_list_makes_its_keys_known_and_a_refused_one_leaves_them_to_speak_for_themselves() -> None:
    part = authentication()
    part.challenged("c")
    part.show_lists()
    (ask,) = part.take(0.0)
    assert ask.pubkey is None
    listed = KEYS[0].sign(Draft(22243, "", tuple(("key", name) for name in NAMES[1:5]), 1))
    part.listed([listed], 0.0)
    assert part.answered(listed.id, True, "", 0.0) == Settled(tuple(NAMES[1:5]))
    assert part.accepted == set(NAMES[1:5])
    part.reset()
    part.challenged("c")
    part.show_lists()
    part.take(0.0)
    part.listed([listed], 0.0)
    assert part.answered(listed.id, False, "restricted: no", 0.0) == Settled()
    assert part.list_refused == "restricted: no"
    assert part.failed == set()


def test_without_keys_nothing_can_be_shown() -> None:
    part = Authentication(lambda: (), lambda most: most)
    assert part.any_key() is None
    assert part.usable({PubKey("a" * 64)}) == []
