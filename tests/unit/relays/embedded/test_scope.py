"""Private messages: the answer through filters equals what a party may see, by brute force."""

from hypothesis import given
from hypothesis import strategies as st

from relays.embedded import scope
from relays.filter import Filter
from relays.key import Key
from tests.unit.relays.embedded.event_part import note

KEYS = [Key(bytes([number]) * 32) for number in range(1, 5)]
NAMES = [key.pubkey for key in KEYS]
EVENTS = [
    note(author, kind, with_tags=[("p", receiver.pubkey)] if receiver else [])
    for author in KEYS
    for receiver in [None, *KEYS]
    for kind in (1, 4, 7, 1059, 21_059)
]
KNOWN = frozenset(event.kind for event in EVENTS)
some_keys = st.frozensets(st.sampled_from(NAMES), max_size=4)
wanted = st.builds(
    lambda kinds, authors, p: Filter(kinds=kinds, authors=authors, tags={} if p is None else {"p": p}),
    st.none() | st.frozensets(st.sampled_from([1, 4, 7, 1059, 21_059]), max_size=4),
    st.none() | some_keys,
    st.none() | some_keys,
)


def seen(event, readers):
    return event.kind not in scope.PRIVATE or scope.is_party(event, readers)


@given(st.lists(wanted, min_size=1, max_size=3), some_keys)
def test_what_the_narrowed_filters_find_is_what_the_readers_may_see(filters, readers):
    if scope.refuse(filters, readers):
        return
    asked = {event.id for event in EVENTS if any(one.matches(event) for one in filters)}
    allowed = {event.id for event in EVENTS if seen(event, readers)}
    exact = scope.narrow(filters, readers, KNOWN, exact=True)
    found = {event.id for event in EVENTS if any(one.matches(event) for one in exact)}
    assert found <= allowed, "a count or a reconciliation tells about others' messages"
    # A wrap's author is a throw-away key, so wraps are found by receiver; nothing else is missing.
    wraps = {event.id for event in EVENTS if event.kind in (1059, 21_059) and not set(event.values("p")) & readers}
    assert found | wraps >= (asked & allowed)
    loose = scope.narrow(filters, readers, KNOWN, exact=False)
    sent = {e.id for e in EVENTS if any(one.matches(e) for one in loose)} & {
        e.id for e in EVENTS if scope.may_get(e.to_json().encode(), readers)
    }
    assert sent <= allowed
    assert sent | wraps >= (asked & allowed)


@given(st.lists(wanted, min_size=1, max_size=3))
def test_without_a_key_no_private_event_is_asked_for_or_found(filters):
    private = any(one.kinds is not None and one.kinds & scope.PRIVATE for one in filters)
    assert scope.refuse(filters, ()).startswith("auth-required:") == private
    if not private:
        for exact in (True, False):
            narrowed = scope.narrow(filters, (), KNOWN, exact=exact)
            assert not any(one.matches(event) for one in narrowed for event in EVENTS if event.kind in scope.PRIVATE)


def test_asking_for_a_stranger_is_refused_by_name():
    alice, bob = NAMES[:2]
    asked = [Filter(kinds=frozenset({1059}), tags={"p": frozenset({alice, bob})})]
    assert scope.refuse(asked, {alice}).startswith("auth-required:")
    assert bob in scope.refuse(asked, {alice})
    assert scope.refuse(asked, {alice, bob}) == ""
    talk = [Filter(kinds=frozenset({4}), authors=frozenset({alice}), tags={"p": frozenset({bob})})]
    assert scope.refuse(talk, {alice}) == scope.refuse(talk, {bob}) == ""
    assert scope.refuse(talk, {NAMES[2]}).startswith("auth-required:")


def test_text_that_only_looks_like_a_private_event_is_sent():
    event = note(content='{"kind":1059,"tags":[]}', with_tags=[("x", '"kind":4,"tags":')])
    assert scope.may_get(event.to_json().encode(), ())


def test_too_many_kinds_to_name_leave_counts_short_and_never_tell():
    narrowed = scope.narrow([Filter()], (), None, exact=True)
    assert narrowed == []
    assert scope.narrow([Filter()], (), None, exact=False) == [Filter()]
