"""The client of one relay, without any I/O."""

import orjson

from relays.connection import EOSE_S, Connection
from relays.event import Draft
from relays.filter import Filter
from relays.key import Key
from relays.message import Answered, Challenged, Closed, Ended
from relays.publication import OK_S
from relays.subscription import BACKDATE_S, OVERLAP_S, Spec
from relays.verdict import Verdict, VerdictState

NOW = 1_800_000_000
KEY = Key.generate()
SPEC = Spec("notes", (Filter(kinds=frozenset({1})),))


def sign(part: Connection, mono: float = 0.0) -> None:
    """What the link does with `asks`."""
    while part.asks:
        ask = part.asks.popleft()
        tags = (("relay", part.url), ("challenge", ask.challenge))
        part.signed(ask, KEY.sign(Draft(22242, "", tags, NOW)), NOW, mono)


def connection(auth: bool = False) -> Connection:
    names = iter(f"s{n}." for n in range(100))
    return Connection(
        "ws://r",
        token=lambda: next(names),
        jitter=lambda most: most,
        **({"keys": lambda: (KEY.pubkey,)} if auth else {}),
    )


def said(part: Connection) -> list[list[object]]:
    frames = [orjson.loads(frame) for frame in part.out]
    part.out.clear()
    return frames


def opened(spec: Spec = SPEC, high: int | None = None, auth: bool = False) -> tuple[Connection, list[list[object]]]:
    part = connection(auth)
    part.add(spec, high, NOW, 0.0)
    assert said(part) == []
    part.opened(NOW, 0.0)
    return part, said(part)


def test_a_first_request_is_asked_as_it_is() -> None:
    _, (request,) = opened(Spec("notes", (Filter(kinds=frozenset({1}), limit=7),)))
    assert request == ["REQ", "s0.1", {"kinds": [1], "limit": 7}]


def test_a_resumed_request_begins_a_minute_before_the_cursor_and_has_no_limit() -> None:
    _, (request,) = opened(Spec("notes", (Filter(kinds=frozenset({1}), limit=0),)), NOW - 500)
    assert request == ["REQ", "s0.1", {"kinds": [1], "since": NOW - 500 - OVERLAP_S}]


def test_a_cursor_in_the_future_counts_as_now() -> None:
    _, (request,) = opened(SPEC, NOW + 10**9)
    assert request[2] == {"kinds": [1], "since": NOW - OVERLAP_S}


def test_a_backdated_request_resumes_two_days_and_an_hour_before_the_cursor() -> None:
    _, (request,) = opened(Spec("dm", SPEC.filters, backdated=True), NOW - 10)
    assert request[2] == {"kinds": [1], "since": NOW - 10 - BACKDATE_S}


def test_ids_are_fresh_on_each_connection_and_each_request() -> None:
    part, (first,) = opened()
    part.closed(1.0)
    part.opened(NOW, 2.0)
    (second,) = said(part)
    part.add(SPEC, None, NOW, 2.0)
    close, third = said(part)
    assert close == ["CLOSE", second[1]]
    assert len({first[1], second[1], third[1]}) == 3
    assert part.route(str(second[1])) is None


def test_the_cursor_moves_only_when_all_was_read() -> None:
    part, (request,) = opened(high=NOW - 1_000)
    stream, sub = part.streams["notes"], str(request[1])
    for at in (NOW - 10, NOW - 20):
        stream.note(sub, at, NOW)
    assert stream.high == NOW - 1_000
    assert part.ended(Ended(sub, None), NOW, 1.0) is None
    ((_, page, asked),) = said(part)
    assert asked == {"kinds": [1], "since": NOW - 1_060, "until": NOW - 20}
    stream.note(str(page), NOW - 20, NOW)
    part.ended(Ended(str(page), None), NOW, 1.0)
    (close, (_, page, asked)) = said(part)
    assert close[0] == "CLOSE"
    assert asked["until"] == NOW - 21
    assert stream.high == NOW - 1_000
    assert part.ended(Ended(str(page), None), NOW, 1.0) is stream
    assert stream.high == NOW - 10
    stream.note(sub, NOW + 500, NOW)
    assert stream.high == NOW - 10  # another event may wait that is older
    stream.settle()
    assert stream.high == NOW


def test_nip_67_ends_the_walk_at_once() -> None:
    part, (request,) = opened(high=NOW - 1_000)
    part.streams["notes"].note(str(request[1]), NOW - 10, NOW)
    assert part.ended(Ended(str(request[1]), True), NOW, 1.0) is part.streams["notes"]
    assert said(part) == []


def test_a_subscription_without_any_event_resumes_from_when_it_was_asked() -> None:
    part, (request,) = opened()
    part.ended(Ended(str(request[1]), None), NOW + 7, 7.0)
    assert part.streams["notes"].high == NOW


def test_a_lost_connection_takes_back_what_was_not_read_to_its_end() -> None:
    part, (request,) = opened(high=NOW - 1_000)
    part.streams["notes"].note(str(request[1]), NOW - 10, NOW)
    part.closed(1.0)
    part.opened(NOW, 2.0)
    assert said(part)[0][2] == {"kinds": [1], "since": NOW - 1_060}


def test_what_was_missed_is_asked_again_before_the_cursor_moves() -> None:
    part, (request,) = opened(high=NOW - 1_000)
    stream, sub = part.streams["notes"], str(request[1])
    part.ended(Ended(sub, None), NOW, 0.1)
    stream.missed = True
    stream.note(sub, NOW - 5, NOW)
    stream.settle()
    assert stream.high == NOW - 1_000
    part.again(stream, 1.0)
    stream.note(sub, NOW - 4, NOW)
    stream.settle()
    assert stream.high == NOW - 1_000
    part.tick(NOW, 100.0)
    assert said(part)[-1][2] == {"kinds": [1], "since": NOW - 1_060}


def test_an_eose_that_does_not_come_is_taken_as_given() -> None:
    part, _ = opened()
    assert part.tick(NOW, EOSE_S) == []
    assert part.tick(NOW, EOSE_S + 1) == [part.streams["notes"]]
    assert part.tick(NOW, EOSE_S + 2) == []


def test_closed_for_a_passing_reason_is_asked_again_after_ever_longer_pauses() -> None:
    part, (request,) = opened()
    sub, mono, pauses = str(request[1]), 0.0, []
    for _ in range(8):
        assert part.refused(Closed(sub, "rate-limited: x"), NOW, mono) == ""
        at = part.streams["notes"].retry_at
        assert at is not None
        pauses.append(at - mono)
        part.tick(NOW, at - 0.01)
        assert said(part) == []
        part.tick(NOW, at)
        sub, mono = str(said(part)[0][1]), at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    part.refused(Closed(sub, ""), NOW, mono + 31)  # it had lived
    assert part.streams["notes"].retry_at == mono + 32


def test_closed_for_good_is_stopped_until_the_next_connection() -> None:
    part, (request,) = opened()
    assert part.refused(Closed(str(request[1]), "blocked: go"), NOW, 0.0) == "blocked: go"
    part.tick(NOW, 1_000.0)
    assert said(part) == []
    part.closed(1_001.0)
    part.opened(NOW, 1_002.0)
    assert len(said(part)) == 1


def test_closed_under_an_unknown_id_means_nothing() -> None:
    part, _ = opened()
    assert part.refused(Closed("other", "blocked: x"), NOW, 0.0) == ""
    assert part.streams["notes"].stopped == ""


def test_a_challenge_alone_is_not_answered() -> None:
    part, _ = opened(auth=True)
    part.challenged(Challenged("riddle"), NOW, 0.0)
    sign(part)
    assert said(part) == []


def test_a_challenge_that_comes_late_is_answered_when_it_comes() -> None:
    part, (request,) = opened(auth=True)
    part.refused(Closed(str(request[1]), "auth-required: x"), NOW, 0.0)
    assert said(part) == []
    part.challenged(Challenged("riddle"), NOW, 0.0)
    sign(part)
    ((label, event),) = said(part)
    assert label == "AUTH"
    part.answered(Answered(event["id"], True, ""), NOW, 0.0)
    assert said(part)[0][0] == "REQ"


def test_failed_authentication_stops_what_waited_for_it() -> None:
    part, (request,) = opened(auth=True)
    verdicts: list[Verdict] = []
    event = KEY.sign(Draft(1, "x", (), NOW))
    part.publish(event, verdicts.append, NOW, 0.0)
    part.challenged(Challenged("riddle"), NOW, 0.0)
    part.refused(Closed(str(request[1]), "auth-required: x"), NOW, 0.0)
    part.answered(Answered(event.id, False, "auth-required: x"), NOW, 0.0)
    sign(part)
    answer = said(part)[-1][1]
    part.answered(Answered(answer["id"], False, "restricted: no"), NOW, 0.0)
    assert part.streams["notes"].stopped
    assert [verdict.state for verdict in verdicts] == [VerdictState.REFUSED]


def test_authentication_that_is_never_answered_fails_in_time() -> None:
    part, (request,) = opened(auth=True)
    part.challenged(Challenged("riddle"), NOW, 0.0)
    part.refused(Closed(str(request[1]), "auth-required: x"), NOW, 0.0)
    sign(part)
    part.tick(NOW, 11.0)
    assert part.streams["notes"].stopped


def test_an_ok_that_does_not_come_is_unknown_and_so_is_a_lost_connection() -> None:
    part, _ = opened()
    verdicts: list[Verdict] = []
    for text in ("a", "b"):
        part.publish(KEY.sign(Draft(1, text, (), NOW)), verdicts.append, NOW, 0.0)
    part.tick(NOW, OK_S - 0.1)
    assert verdicts == []
    part.tick(NOW, OK_S)
    part.publish(KEY.sign(Draft(1, "c", (), NOW)), verdicts.append, NOW, OK_S)
    part.closed(OK_S + 1)
    part.publish(KEY.sign(Draft(1, "d", (), NOW)), verdicts.append, NOW, OK_S + 2)
    assert [(verdict.state, verdict.answered) for verdict in verdicts] == [(VerdictState.UNKNOWN, False)] * 4


def test_one_event_published_twice_at_once_is_sent_once_and_answered_to_both() -> None:
    part, _ = opened()
    verdicts: list[Verdict] = []
    event = KEY.sign(Draft(1, "x", (), NOW))
    part.publish(event, verdicts.append, NOW, 0.0)
    part.publish(event, verdicts.append, NOW, 0.0)
    assert len(said(part)) == 1
    part.answered(Answered(event.id, True, ""), NOW, 0.0)
    part.answered(Answered(event.id, True, ""), NOW, 0.0)
    assert len(verdicts) == 2


def test_only_a_connection_that_lived_resets_the_back_off() -> None:
    part = connection()
    pauses = []
    for n in range(10):
        part.opened(NOW, n * 100.0)
        pauses.append(part.closed(n * 100.0 + 5))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    part.opened(NOW, 5_000.0)
    assert part.closed(5_030.0) == 0.5
