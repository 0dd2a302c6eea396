"""How relay pools fail in the field, each as a scenario and as the fault that causes it, planted in ours.

A scenario passes on the product and must fail with its fault. The faults are those that other pools really had
(DESIGN §11, nostr.md §6).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from node.storage.memory import MemoryDatabase
from relays import backoff, connection, delivery, link, subscription
from relays.authentication import Authentication
from relays.backoff import Backoff
from relays.connection import Connection
from relays.delivery import Delivery
from relays.event import Event
from relays.filter import Filter
from relays.key import Key
from relays.link import Link
from relays.message import Noticed
from relays.publication import Publications
from relays.subscription import Stream
from relays.verdict import Verdict, VerdictState
from tests.integration.relays.hostile_part import (
    PERMIT,
    Collector,
    Keychain,
    Session,
    make_pool,
    note,
    relay,
    serving,
    until,
)

KEY = Key.generate()
NOTES = [Filter(kinds=frozenset({1}))]
SHORT_S = 15.0


@dataclass(frozen=True)
class Failure:
    """A scenario, and the fault that must show in it."""

    name: str
    scenario: Callable[[], Awaitable[None]]
    plant: Callable[[MonkeyPatch], None]


def now() -> int:
    return int(time.time())


def wire(event: Event) -> dict[str, Any]:
    return event.to_dict() | {"tags": [list(tag) for tag in event.tags]}


# ---- an id that is remembered before it was verified hides the genuine event


async def squatting() -> None:
    async with relay() as bad, relay() as good:
        genuine, got = note(KEY, "genuine", now()), Collector()
        pool = make_pool(MemoryDatabase(), bad.url, good.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            await until(lambda: bool(bad.requests and good.requests))
            await bad.broadcast(wire(genuine) | {"content": "forged"})
            await until(lambda: sum(one.forged for one in pool.health()) == 1, SHORT_S)
            await good.broadcast(genuine)
            await until(lambda: got.ids == [genuine.id], SHORT_S)


def remembers_first(patch: MonkeyPatch) -> None:
    parsed = Delivery._parsed

    def remembering(self: Delivery, item: Any) -> Event | None:
        event = parsed(self, item)
        if event is not None and not delivery._is_genuine(event):
            self._seen.add(event.id, event.created_at)
        return event

    patch.setattr(Delivery, "_parsed", remembering)


# ---- the resume point follows an event from the future


async def poisoned() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.broadcast(wire(note(KEY, "2099", 4_070_908_800)) | {"sig": "0" * 128})
            await part.broadcast(note(KEY, "ahead", now() + 800))
            await until(lambda: len(got.events) == 1)
            await part.stop()
            missed = note(KEY, "missed", now())
            part.keep(missed)
            await part.start()
            await until(lambda: missed.id in got.ids, SHORT_S)


def follows_the_future(patch: MonkeyPatch) -> None:
    def note_it(self: Stream, sub_id: str, created_at: int, at: int, *, handled: bool = True) -> None:
        self.peak = max(self.peak, created_at)

    def resumed(spec: Any, high: int | None, at: int, *, live: bool = False) -> Any:
        return spec.filters if high is None else tuple(replace(one, since=high - 60) for one in spec.filters)

    patch.setattr(Stream, "note", note_it)
    patch.setattr(subscription, "resumed", resumed)


# ---- since = last + 1 loses what is of the same second, and all that is dated back


async def same_second() -> None:
    async with relay() as part:
        got, second = Collector(), now() - 20
        part.keep(note(KEY, "first", second))
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.stop()
            twin = note(KEY, "twin", second)
            part.keep(twin)
            await part.start()
            await until(lambda: twin.id in got.ids, SHORT_S)


async def dated_back() -> None:
    async with relay() as part:
        got, wraps = Collector(), [Filter(kinds=frozenset({1059}))]
        part.keep(note(KEY, "first", now(), kind=1059))
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("dm", wraps, got, backdated=True)
        async with serving(pool):
            assert await pool.caught_up("dm", 5)
            await part.stop()
            late = note(KEY, "late", now() - 2 * 86_400, kind=1059)
            part.keep(late)
            await part.start()
            await until(lambda: late.id in got.ids, SHORT_S)


async def skewed() -> None:
    """The author's clock is half a minute behind ours, and its event comes while we are away."""
    async with relay() as part:
        got = Collector()
        part.keep(note(KEY, "ours", now()))
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await part.stop()
            late = note(KEY, "theirs", now() - 30)
            part.keep(late)
            await part.start()
            await until(lambda: late.id in got.ids, SHORT_S)


def resumes_after_the_last(patch: MonkeyPatch) -> None:
    patch.setattr(subscription, "resume_point", lambda spec, high, at: high + 1)


# ---- subscriptions that die in silence


async def closed_once() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            session = part.sessions[0]
            for sub in list(session.subs):
                del session.subs[sub]
                await session.say("CLOSED", sub, "error: shutting down idle subscription")
            await until(lambda: bool(session.subs), SHORT_S)
            await part.broadcast(note(KEY, "after", now()))
            await until(lambda: len(got.events) == 1, SHORT_S)


def one_closed_ends_it(patch: MonkeyPatch) -> None:
    patch.setattr(connection, "pause", lambda *a, **k: 1e9)


async def id_used_again() -> None:
    """A relay that drops a REQ under an id which it has seen before, even from another connection."""
    async with relay() as part:
        used: set[str] = set()

        async def choosy(session: Session, sub: str, filters: list[Filter]) -> bool:
            if sub in used:
                session.subs.pop(sub)
                return True
            used.add(sub)
            return False

        part.on_req = choosy
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            part.abort()
            await until(lambda: len(part.requests) == 2)
            await until(lambda: any(one.subs for one in part.sessions), SHORT_S)


def one_id_for_ever(patch: MonkeyPatch) -> None:
    patch.setattr(Connection, "fresh", lambda self: "notes")


async def restarted() -> None:
    async with relay() as part:
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, got)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            part.abort()
            await until(lambda: part.connections == 2)
            await until(lambda: any(one.subs for one in part.sessions), SHORT_S)


def forgets_to_ask(patch: MonkeyPatch) -> None:
    opened = Connection.opened

    def only_once(self: Connection, at: int, mono: float) -> None:
        if self._backoff.tries:
            self.up = True
        else:
            opened(self, at, mono)

    patch.setattr(Connection, "opened", only_once)


# ---- a half-open socket


async def half_open() -> None:
    async with relay() as part:

        async def freeze(session: Session, value: dict[str, Any]) -> bool:
            await part.frozen.wait()
            return True

        part.on_event = freeze
        pool = make_pool(MemoryDatabase(), part.url, heartbeat_s=0.2)
        async with serving(pool):
            await until(lambda: pool.is_up(part.url))
            talk = asyncio.create_task(pool.send(part.url, note(KEY, "x", now()), PERMIT))
            await until(lambda: bool(part.published))
            part.on_event = None
            await until(lambda: part.connections >= 2, SHORT_S)
            await talk


def never_pings(patch: MonkeyPatch) -> None:
    init = Link.__init__

    def deaf(self: Link, *args: Any, **more: Any) -> None:
        init(self, *args, **{**more, "heartbeat_s": 3_600.0})

    patch.setattr(Link, "__init__", deaf)


# ---- what a slow reader loses when a queue overflows


async def overflowing() -> None:
    async with relay() as part:
        gate, got = asyncio.Event(), Collector()

        async def slow(event: Event, url: str) -> None:
            await gate.wait()
            await got(event, url)

        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, slow)
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            events = [note(KEY, str(n), now() - 30) for n in range(60)]
            part.keep(*events)
            for event in events:
                await part.broadcast(event)
            await until(lambda: pool.health()[0].dropped > 0)
            delivery.MAX_WAITING = 5_000
            gate.set()
            await until(lambda: len(set(got.ids)) == 60, 2 * SHORT_S)


def skips_what_lagged(patch: MonkeyPatch) -> None:
    patch.setattr(Connection, "again", lambda self, stream, mono: None)


# ---- a NOTICE is taken for a reason to reconnect


async def noticed() -> None:
    async with relay() as part:
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            for _ in range(20):
                for session in list(part.sessions):
                    await session.say("NOTICE", "restricted: try another relay")
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert (part.connections, len(part.sessions)) == (1, 1)


def reconnects_on_notice(patch: MonkeyPatch) -> None:
    on_word = Link._on_word

    def nervous(self: Link, frame: Any) -> None:
        on_word(self, frame)
        if type(frame) is Noticed:
            self._faults = link.MAX_FAULTS + 1

    patch.setattr(Link, "_on_word", nervous)


# ---- a relay that kicks us at once is asked again without end


async def kicked() -> None:
    async with relay() as part:

        async def kick(session: Session, sub: str, filters: list[Filter]) -> bool:
            await session.ws.close()
            return True

        part.on_req = kick
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            with contextlib.suppress(TimeoutError):
                await until(lambda: part.connections > 12, 4.0)
            assert part.connections <= 12


def forgives_at_once(patch: MonkeyPatch) -> None:
    def down(self: Backoff, mono: float) -> float:
        return backoff.pause(0, lambda most: 0.0)

    patch.setattr(Backoff, "down", down)


# ---- everything is read anew after each reconnection


async def replayed() -> None:
    async with relay() as part:
        part.keep(*(note(KEY, str(n), now() - 5_000 - n) for n in range(100)), note(KEY, "last", now()))
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            before = pool.health()[0].duplicates
            for n in range(2):
                part.abort()
                await until(lambda n=n: part.connections == n + 2)
                assert await pool.caught_up("notes", 5)
            assert pool.health()[0].duplicates - before <= 10


def reads_all_again(patch: MonkeyPatch) -> None:
    patch.setattr(subscription, "resumed", lambda spec, high, at, live=False: spec.filters)


# ---- authentication


async def proved_already() -> None:
    """The relay asks for authentication once more, after it has had it."""
    async with relay() as part:

        async def guard(session: Session, value: dict[str, Any]) -> bool:
            if part.auths and len(part.published) != 3:
                return False
            if not part.auths:
                await session.say("AUTH", "riddle")
            await session.say("OK", value["id"], False, "auth-required: who are you?")
            return True

        part.on_event = guard
        pool = make_pool(MemoryDatabase(), part.url, auth=Keychain(KEY))
        async with serving(pool):
            for n in range(2):
                sent = pool.send(part.url, note(KEY, str(n), now()), PERMIT)
                assert (await asyncio.wait_for(sent, SHORT_S)).state is VerdictState.STORED
            assert len(part.auths) == 1


def waits_for_ever(patch: MonkeyPatch) -> None:
    release = Publications.release

    def held(self: Publications, key: Any, good: bool, mono: float) -> list[str]:
        if getattr(self, "_released_once", None) is not None:
            return []
        _released.append(self)
        return release(self, key, good, mono) if _released.count(self) == 1 else []

    _released: list[Publications] = []
    patch.setattr(Publications, "release", held)


async def asked_again_and_again() -> None:
    async with relay() as part:

        async def guard(session: Session, sub: str, filters: list[Filter]) -> bool:
            await session.say("AUTH", f"riddle {len(part.requests)}")
            await session.say("CLOSED", sub, "auth-required: once more")
            return True

        part.on_req = guard
        pool = make_pool(MemoryDatabase(), part.url, auth=Keychain(KEY))
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            await until(lambda: len(part.requests) >= 2)
            await asyncio.sleep(0.3)
            assert (len(part.auths), len(part.requests)) == (1, 2)


def never_terminal(patch: MonkeyPatch) -> None:
    judge = Connection._judge

    def forgetful(self: Connection, stream: Stream, reason: str, at: int, mono: float) -> str:
        stream.authenticated = False
        return judge(self, stream, reason, at, mono)

    patch.setattr(Connection, "_judge", forgetful)


async def shown_to_all() -> None:
    """A challenge alone, and even a refusal for another reason, must not make us say who we are."""
    async with relay() as part:

        async def curious(session: Session, sub: str, filters: list[Filter]) -> bool:
            await session.say("AUTH", "who are you?")
            return False

        part.on_req = curious
        pool = make_pool(MemoryDatabase(), part.url, auth=Keychain(KEY))
        pool.subscribe("notes", NOTES, Collector())
        async with serving(pool):
            assert await pool.caught_up("notes", 5)
            await asyncio.sleep(0.3)
            assert part.auths == []


def answers_every_challenge(patch: MonkeyPatch) -> None:
    challenged = Authentication.challenged

    def eager(self: Authentication, challenge: str) -> None:
        challenged(self, challenge)
        key = self.any_key()
        if key is not None:
            self.want([key])

    patch.setattr(Authentication, "challenged", eager)


async def restricted_without_challenge() -> None:
    """A relay that says `restricted:` and never challenges: the word is final, and nothing hangs."""
    async with relay() as part:

        async def refuse(session: Session, value: dict[str, Any]) -> bool:
            await session.say("OK", value["id"], False, "restricted: members only")
            return True

        part.on_event = refuse
        pool = make_pool(MemoryDatabase(), part.url, auth=Keychain(KEY))
        async with serving(pool):
            verdict = await asyncio.wait_for(pool.send(part.url, note(KEY, "x", now()), PERMIT), SHORT_S)
            assert verdict == Verdict(VerdictState.REFUSED, "restricted: members only")


def takes_restricted_for_auth(patch: MonkeyPatch) -> None:
    from relays import publication

    prefix = publication.prefix
    patch.setattr(publication, "prefix", lambda text: "auth-required" if prefix(text) == "restricted" else prefix(text))


# ---- more subscriptions than the relay serves


async def too_many() -> None:
    async with relay() as part:
        part.information = {"limitation": {"max_subscriptions": 10}}
        most = 0

        async def strict(session: Session, sub: str, filters: list[Filter]) -> bool:
            nonlocal most
            most = max(most, len(session.subs))
            if len(session.subs) <= 10:
                return False
            session.subs.pop(sub)
            await session.say("CLOSED", sub, "rate-limited: too many subscriptions")
            return True

        part.on_req = strict
        pool = make_pool(MemoryDatabase(), part.url)
        for n in range(30):
            pool.subscribe(f"notes {n}", [Filter(kinds=frozenset({n}))], Collector())
        async with serving(pool):
            await until(lambda: pool.is_up(part.url))
            await asyncio.sleep(0.5)
            assert most <= 10
            assert pool.health()[0].queued >= 20
            for n in range(25):
                pool.unsubscribe(f"notes {n}")
            assert await pool.caught_up("notes 29", SHORT_S)


def ignores_limits(patch: MonkeyPatch) -> None:
    patch.setattr(connection, "slots", lambda information: (1_000, 1_000))


# ---- one bad relay delays all


async def one_is_slow() -> None:
    async with relay() as slow, relay() as quick:

        async def silent(session: Session, value: dict[str, Any]) -> bool:
            return True  # no OK, ever

        slow.on_event = silent
        pool = make_pool(MemoryDatabase(), slow.url, quick.url, "ws://127.0.0.1:9")
        async with serving(pool):
            await until(lambda: pool.is_up(slow.url) and pool.is_up(quick.url))
            waiting = asyncio.create_task(pool.send(slow.url, note(KEY, "a", now()), PERMIT))
            sent = await asyncio.wait_for(pool.send(quick.url, note(KEY, "b", now()), PERMIT), SHORT_S)
            assert sent.state is VerdictState.STORED
            waiting.cancel()


def one_at_a_time(patch: MonkeyPatch) -> None:
    from relays.pool import Pool

    send, busy = Pool.send, asyncio.Lock()

    async def queued(self: Pool, url: str, event: Event, permit: Any) -> Verdict:
        async with busy:
            return await send(self, url, event, permit)

    patch.setattr(Pool, "send", queued)


FAILURES = [
    Failure("an id is squatted by a forgery", squatting, remembers_first),
    Failure("an event from the future poisons the resume point", poisoned, follows_the_future),
    Failure("what is of the same second as the last event is lost", same_second, resumes_after_the_last),
    Failure("what is dated back is lost", dated_back, resumes_after_the_last),
    Failure("what a slow clock dated is lost", skewed, resumes_after_the_last),
    Failure("one CLOSED ends the subscription for good", closed_once, one_closed_ends_it),
    Failure("a subscription id is used twice", id_used_again, one_id_for_ever),
    Failure("a new connection goes unused", restarted, forgets_to_ask),
    Failure("a half-open socket goes unnoticed", half_open, never_pings),
    Failure("a slow reader skips what it had no room for", overflowing, skips_what_lagged),
    Failure("a NOTICE starts a storm of connections", noticed, reconnects_on_notice),
    Failure("a relay that kicks us is asked without end", kicked, forgives_at_once),
    Failure("everything is read again after each connection", replayed, reads_all_again),
    Failure("an event waits for an authentication that has happened", proved_already, waits_for_ever),
    Failure("authentication is tried without end", asked_again_and_again, never_terminal),
    Failure("we say who we are to whoever asks", shown_to_all, answers_every_challenge),
    Failure("restricted is taken for auth-required", restricted_without_challenge, takes_restricted_for_auth),
    Failure("more is asked than the relay serves", too_many, ignores_limits),
    Failure("one bad relay holds up the others", one_is_slow, one_at_a_time),
]
