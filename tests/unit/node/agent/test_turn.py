"""A turn's one end: taken or refused, known to all who ask, and known again when it is asked for again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import SystemClock
from core.error import InvalidInput, Paused, VendoError
from fs.error import BodyTooLarge
from node.agent.outside import host
from node.agent.outside.act import ABORT, COMMIT, STATE, TURN, Act, Closing, Reply, reason_of, verdict
from node.agent.outside.error import (
    NodeStopping,
    TurnAborted,
    TurnBusy,
    TurnExpired,
    TurnFull,
    TurnLingers,
    TurnOver,
    WebhookFailed,
)
from node.agent.outside.host import PREFIX, Turns
from node.agent.outside.program import patience
from node.agent.outside.turn import MAX_ACTS, MAX_BYTES, MAX_WAITING, Door, Turn

LOOK = Act("GET", "/goals")
END = Act("POST", COMMIT)


async def _settled(turn: Turn, error: VendoError | None = None, seconds: float = 60) -> None:
    """A tick: answers everything, until a commit is asked for; then it ends so."""
    while True:
        asked = await turn.next(seconds)
        if asked.act.asks_for(COMMIT):
            break
        asked.reply(Reply(asked.act.path.encode()))
    turn.leave(None)
    turn.settle(error)


async def test_acts_are_answered_in_order_and_a_commit_when_it_is_durable() -> None:
    turn = Turn("a", "t1")
    asked = [asyncio.create_task(turn.ask(Act("GET", f"/{number}"))) for number in range(5)]
    commit = asyncio.create_task(turn.ask(END))
    await asyncio.sleep(0)
    for number in range(5):
        one = await turn.next(1)
        assert one.act.path == f"/{number}"
        one.reply(Reply(one.act.path.encode()))
    assert (await turn.next(1)).act == END
    turn.leave(None)
    assert [(await one).body for one in asked] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    await asyncio.sleep(0.01)
    assert not commit.done(), "the tick has not been committed yet"
    turn.settle(None)
    assert b'"committed"' in (await commit).body


async def test_a_commit_that_is_sent_again_is_answered_the_same() -> None:
    turn = Turn("a", "t1")
    both = asyncio.gather(turn.ask(END), turn.ask(END))
    await _settled(turn)
    first, second = await both
    assert first == second == await turn.ask(END)


async def test_another_commit_than_the_one_that_was_taken_is_not_answered_as_if_it_were() -> None:
    turn = Turn("a", "t1")
    taken, other = Act("POST", COMMIT, b'{"state": {"n": 1}}'), Act("POST", COMMIT, b'{"state": {"n": 2}}')
    both = asyncio.gather(turn.ask(taken), turn.ask(other), return_exceptions=True)
    await _settled(turn)
    first, second = await both
    assert isinstance(first, Reply)
    assert isinstance(second, TurnOver)
    assert await turn.ask(taken) == first
    for wrong in (other, END):
        with pytest.raises(TurnOver, match="other words"):
            await turn.ask(wrong)


async def test_after_an_answer_that_committed_no_other_commit_is_answered_as_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turn, answer = Turn("a", "t1"), b'{"commit": true, "state": {"n": 1}}'
    turn.put(Act("POST", COMMIT, answer, strict=True))
    await _settled(turn)
    with pytest.raises(TurnOver):
        await turn.ask(Act("POST", COMMIT, b'{"state": {"n": 2}}'))
    turn.put(Act("POST", COMMIT, answer, strict=True))
    turn.put(Act("POST", COMMIT, strict=True))
    assert not caplog.records
    turn.put(Act("POST", COMMIT, b'{"commit": true}', strict=True))
    assert [record.__dict__["action"] for record in caplog.records] == ["turn_answered_late"]


async def test_what_made_a_commit_fail_is_said_again() -> None:
    turn = Turn("a", "t1")
    both = asyncio.gather(turn.ask(END), turn.ask(END), return_exceptions=True)
    await _settled(turn, InvalidInput("The state is too long."))
    assert {str(error) for error in await both if isinstance(error, InvalidInput)} == {
        "The state is too long. Nothing was changed. Correct it and send it again."
    }
    with pytest.raises(InvalidInput, match="too long"):
        await turn.ask(END)


async def test_after_a_commit_nothing_is_taken_and_no_abort_helps() -> None:
    turn = Turn("a", "t1")
    late = asyncio.create_task(turn.ask(END))
    behind = asyncio.create_task(turn.ask(Act("PUT", "/goals/x", b"{}")))
    await _settled(turn)
    await late
    with pytest.raises(TurnOver):
        await behind
    for act in (Act("PUT", "/goals/x", b"{}"), Act("POST", ABORT), LOOK):
        with pytest.raises(TurnOver):
            await turn.ask(act)


async def test_past_the_time_limit_everything_is_refused_as_expired() -> None:
    turn = Turn("a", "t1")
    with pytest.raises(TurnExpired) as raised:
        await turn.next(0.01)
    waiting = asyncio.create_task(turn.ask(END))
    await asyncio.sleep(0)
    turn.leave(raised.value)
    turn.settle(raised.value)
    with pytest.raises(TurnExpired):
        await waiting
    for act in (LOOK, END, Act("POST", ABORT)):
        with pytest.raises(TurnExpired):
            await turn.ask(act)


async def test_time_that_passes_before_its_holder_was_heard_fails_the_turn_as_what_brings_the_trigger_says() -> None:
    silent, heard = Turn("a", "t1"), Turn("a", "t2")
    for turn in (silent, heard):
        turn.away = WebhookFailed("It did not answer.")
    with pytest.raises(WebhookFailed) as raised:
        await silent.next(0.01)
    silent.leave(raised.value)
    silent.settle(raised.value)
    for act in (LOOK, END):
        with pytest.raises(TurnExpired):
            await silent.ask(act)
    asking = asyncio.create_task(heard.ask(LOOK))
    (await heard.next(1)).reply(Reply(b""))
    await asking
    with pytest.raises(TurnExpired):
        await heard.next(0.01)


@pytest.mark.parametrize("delay_ms", [0, 5, 9, 10, 11, 15])
async def test_a_commit_that_races_the_time_limit_is_taken_or_refused_and_never_both(delay_ms: int) -> None:
    for _ in range(10):
        turn, committed = Turn("a", "t1"), False

        async def late(turn: Turn = turn) -> Reply:
            await asyncio.sleep(delay_ms / 1_000)
            return await turn.ask(END)

        asking = asyncio.create_task(late())
        error: VendoError | None = None
        try:
            await turn.next(0.01)
            committed = True
        except TurnExpired as expired:
            error = expired
        turn.leave(error)
        turn.settle(error)
        answered = (await asyncio.gather(asking, return_exceptions=True))[0]
        assert isinstance(answered, Reply) is committed
        assert isinstance(answered, TurnExpired) is not committed


async def test_an_abort_is_answered_when_the_failure_is_known() -> None:
    turn = Turn("a", "t1")
    giving_up = asyncio.create_task(turn.ask(Act("POST", ABORT)))
    await asyncio.sleep(0)
    assert (await turn.next(1)).act.asks_for(ABORT)
    error = TurnAborted()
    turn.leave(error)
    await asyncio.sleep(0)
    assert not giving_up.done()
    turn.settle(error)
    assert b'"aborted"' in (await giving_up).body
    assert b'"aborted"' in (await turn.ask(Act("POST", ABORT))).body
    with pytest.raises(TurnAborted):
        await turn.ask(END)


async def test_a_holder_that_goes_away_in_the_middle_holds_up_nobody() -> None:
    turn = Turn("a", "t1")
    gone = asyncio.create_task(turn.ask(LOOK))
    stays = asyncio.create_task(turn.ask(LOOK))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    for _ in range(2):
        (await turn.next(1)).reply(Reply(b"x"))
    assert (await stays).body == b"x"


async def test_a_turn_is_bounded() -> None:
    turn = Turn("a", "t1")
    waiting = [asyncio.create_task(turn.ask(LOOK)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TurnBusy):
        await turn.ask(LOOK)
    for _ in waiting:
        (await turn.next(1)).reply(Reply(b""))
    await asyncio.gather(*waiting)
    serving = asyncio.create_task(_settled(turn))
    for _ in range(MAX_ACTS - MAX_WAITING):
        await turn.ask(LOOK)
    for _ in range(200):
        with pytest.raises(TurnFull):
            await turn.ask(LOOK)
    assert b"committed" in (await turn.ask(END)).body, "it can still be ended"
    await serving


async def test_what_is_sent_in_one_turn_is_bounded() -> None:
    turn = Turn("a", "t1", state_bytes=10)
    with pytest.raises(BodyTooLarge):
        await turn.ask(Act("PUT", STATE, b"x" * 11))
    serving = asyncio.create_task(_settled(turn))
    body = b"x" * (1 << 20)
    for _ in range(MAX_BYTES // len(body)):
        await turn.ask(Act("PUT", "/goals/x", body))
    with pytest.raises(TurnFull):
        await turn.ask(Act("PUT", "/goals/x", b"x"))
    serving.cancel()


@pytest.mark.parametrize("end", [Act("POST", COMMIT, b"x" * (1 << 20)), Act("POST", ABORT)])
async def test_a_turn_in_which_all_was_sent_that_may_be_can_still_be_ended(end: Act) -> None:
    turn = Turn("a", "t1")
    body = b"x" * (1 << 20)

    async def tick() -> None:
        while not (asked := await turn.next(5)).act.path.startswith(TURN):
            asked.reply(Reply(b""))
        error = TurnAborted() if asked.act.asks_for(ABORT) else None
        turn.leave(error)
        turn.settle(error)

    serving = asyncio.create_task(tick())
    for _ in range(MAX_BYTES // len(body)):
        await turn.ask(Act("PUT", "/goals/x", body))
    for _ in range(3):
        with pytest.raises(TurnFull):
            await turn.ask(Act("PUT", "/goals/x", body))
    async with asyncio.timeout(60):
        assert b'"status"' in (await turn.ask(end)).body
    await serving


# --- all turns of a process -----------------------------------------------------------------------------------------


async def _nothing(turn: Turn, door: Door) -> Act | None:
    return None


@asynccontextmanager
async def hosted() -> AsyncIterator[tuple[Turns, list[Door], Callable[..., Awaitable[Turn]]]]:
    turns, doors = Turns(SystemClock(), lambda: "http://127.0.0.1:1", 1_000, 0.1), list[Door]()
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(turns.run(ready, stop))

    async def open_one(agent: str = "a", reach: host.Reach = _nothing) -> Turn:
        async def kept(turn: Turn, door: Door) -> Act | None:
            doors.append(door)
            return await reach(turn, door)

        turn = await turns.open(agent, f"tick of {agent}", kept)
        await asyncio.sleep(0.001)
        return turn

    try:
        yield turns, doors, open_one
    finally:
        for turn in turns.open_turns:
            turn.settle(TurnOver())
        stop.set()
        await asyncio.wait_for(task, 60)


async def test_a_token_is_256_bits_and_only_its_digest_is_kept() -> None:
    async with hosted() as (turns, doors, open_one):
        turn = await open_one()
        (door,) = doors
        assert door.url == "http://127.0.0.1:1/agents/a"
        assert door.token.startswith(PREFIX)
        assert len(door.token) == len(PREFIX) + 43
        assert turns.find(f"Bearer {door.token}") is turn
        for wrong in (None, "", door.token, f"Basic {door.token}", f"Bearer {door.token}x", f"Bearer {PREFIX}"):
            assert turns.find(wrong) is None
        kept = repr(vars(turns)) + repr(vars(turn)) + repr(door)
        assert door.token not in kept
        assert door.token.removeprefix(PREFIX) not in kept


async def test_an_ended_turn_is_known_for_a_while_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosted() as (turns, doors, open_one):
        turn = await open_one()
        asking = asyncio.create_task(turn.ask(END))
        await _settled(turn)
        await asking
        await asyncio.sleep(0.02)
        assert turns.find(f"Bearer {doors[0].token}") is turn
        monkeypatch.setattr(host, "MAX_KEPT", 0)
        assert turns.find(f"Bearer {doors[0].token}") is None


async def test_what_brings_a_trigger_may_end_the_turn_or_fail_it() -> None:
    async def answers(turn: Turn, door: Door) -> Act:
        return Act("POST", COMMIT, strict=True)

    async def fails(turn: Turn, door: Door) -> Act:
        raise WebhookFailed("It answered 500.")

    async def breaks(turn: Turn, door: Door) -> Act:
        raise ZeroDivisionError

    async with hosted() as (_, __, open_one):
        turn = await open_one("a", answers)
        assert (await turn.next(1)).act.asks_for(COMMIT)
        turn = await open_one("b", fails)
        with pytest.raises(WebhookFailed):
            await turn.next(1)
        turn = await open_one("c", breaks)
        with pytest.raises(VendoError):
            await turn.next(1)


async def test_what_brings_a_trigger_is_ended_with_its_turn_and_the_next_turn_waits_for_that() -> None:
    order: list[str] = []

    async def lasts(turn: Turn, door: Door) -> None:
        order.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            order.append("ended")

    async with hosted() as (_, __, open_one):
        turn = await open_one("a", lasts)
        turn.settle(TurnExpired())
        turn = await open_one("a", lasts)
        assert order == ["begun", "ended", "begun"]
        turn.settle(TurnExpired())


async def test_what_still_runs_of_a_turn_before_is_waited_for_only_so_long_and_costs_no_try() -> None:
    ends = asyncio.Event()

    async def lasts(turn: Turn, door: Door) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await ends.wait()

    async with hosted() as (turns, _, open_one):
        (await open_one("a", lasts)).settle(TurnExpired())
        with pytest.raises(TurnLingers) as raised:
            await turns.open("a", "t2", _nothing, 0.01)
        assert isinstance(raised.value, Paused)
        ends.set()
        (await turns.open("a", "t2", _nothing, 5)).settle(TurnOver())


async def test_a_node_that_does_not_run_yet_is_waited_for_only_so_long() -> None:
    with pytest.raises(NodeStopping):
        await asyncio.wait_for(Turns(SystemClock(), lambda: "", 1_000).open("a", "t", _nothing, 0.01), 2)


def test_waits_before_an_agent_is_reached_are_a_part_of_what_is_left_of_its_tick() -> None:
    assert [patience(left_ms, 5.0) for left_ms in (-1, 0, 800, 60_000)] == [0.0, 0.0, 0.2, 5.0]


async def test_a_node_that_stops_fails_open_turns_without_blaming_them_and_opens_no_more() -> None:
    turns = Turns(SystemClock(), lambda: "", 1_000, 0.1)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(turns.run(ready, stop))
    turn = await turns.open("a", "t", _nothing)

    async def tick() -> None:
        with pytest.raises(NodeStopping) as raised:
            await turn.next(30)
        assert isinstance(raised.value, Paused), "no try is used up"
        turn.settle(raised.value)

    ticking = asyncio.create_task(tick())
    stop.set()
    await asyncio.sleep(0.01)
    with pytest.raises(NodeStopping):
        await turns.open("b", "t", _nothing)
    await ticking
    await asyncio.wait_for(task, 60)


# --- the words ------------------------------------------------------------------------------------------------------


@given(
    method=st.sampled_from(["GET", "PUT", "POST"]),
    path=st.text(min_size=1, max_size=50).map(lambda text: "/" + text),
    body=st.binary(max_size=200),
    key=st.none() | st.text(alphabet=st.characters(codec="ascii"), max_size=50),
    strict=st.booleans(),
)
def test_an_act_is_recorded_whole(method: str, path: str, body: bytes, key: str | None, strict: bool) -> None:
    act = Act(method, path.encode("utf-8", "replace").decode(), body, key, strict)
    assert Act.from_bytes(act.to_bytes()) == act


def test_a_commit_brings_state_and_writes() -> None:
    body = (
        b'{"commit": true, "state": {"n": 1}, "writes": [{"path": "/nostr/dm/npub1", "body": "hi", "key": "k"},'
        b' {"method": "PUT", "path": "/goals/x", "body": {"a": 1}}, {"path": "/turn/hibernate"}]}'
    )
    assert Closing.parse(body).acts == (
        Act("PUT", f"{TURN}/state", b'{"n":1}'),
        Act("POST", "/nostr/dm/npub1", b"hi", "k"),
        Act("PUT", "/goals/x", b'{"a":1}'),
        Act("POST", f"{TURN}/hibernate", b""),
    )
    assert Closing.parse(b"").acts == Closing.parse(b" ").acts == Closing.parse(b"{}").acts == ()


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"{", b"\xff", b'{"more": 1}', b'{"state": []}', b'{"state": null}', b'{"writes": {}}',
        b'{"writes": [1]}', b'{"writes": [{}]}', b'{"writes": [{"path": 1}]}',
        b'{"writes": [{"path": "/x", "method": "GET"}]}',
        b'{"writes": [{"path": "/turn/commit"}]}', b'{"writes": [{"path": "/x", "key": 1}]}',
        b'{"writes": [{"path": "/x", "more": 1}]}', b'{"writes": [' + b",".join([b'{"path":"/x"}'] * 201) + b"]}",
    ],
)  # fmt: skip
def test_a_commit_that_is_none_says_so(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        Closing.parse(body)


def test_an_answer_ends_a_turn_only_if_it_says_so() -> None:
    done = b'{"commit": true, "state": {"n": 1}}'
    assert verdict(done) == Act("POST", COMMIT, done, strict=True)
    assert verdict(b'{"commit": false, "reason": "no"}') == Act("POST", ABORT, b'{"reason":"no"}', strict=True)
    for none in (b"", b"ok", b"{", b"[]", b'{"commit": 1}', b'{"commit": "true"}', b'{"state": {}}', b"null"):
        assert verdict(none) is None


def test_a_reason_is_a_text() -> None:
    assert reason_of(b"") == ""
    assert reason_of(b'{"reason": "no"}') == "no"
    assert len(reason_of(b'{"reason": "' + b"x" * 10_000 + b'"}')) == 500
    with pytest.raises(InvalidInput):
        reason_of(b'{"reason": 1}')
