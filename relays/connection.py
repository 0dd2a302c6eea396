"""The client of one relay without any I/O: frames and ticks go in, frames come out in `out`. Pure.

Rules: a fresh subscription id on each REQ; resume from the cursor; page past limits; CLOSED by its prefix
(`auth-required` → authenticate once, ask once more; `blocked restricted invalid unsupported pow mute` → stop and
report; anything else → ask again after a back-off); never trust that an EOSE or an OK comes; NOTICE means nothing;
no more open REQs than the relay says it serves. Times: `now` is Unix seconds, `mono` monotonic seconds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from core.identifier import PubKey
from relays.authentication import Ask, Authentication, Keys, Settled
from relays.backoff import Backoff, Jitter, pause
from relays.comparison import Comparison, Held
from relays.crowd import CHALLENGE_S, PROBE, Crowd
from relays.event import Event
from relays.filter import Filter
from relays.limitation import Traits, fitted, refuse_event, refuse_request, slots, sub_prefix
from relays.message import Answered, Challenged, Closed, Compared, Ended, Uncompared, encode, encode_raw, prefix
from relays.nip11 import Information
from relays.publication import Done, Publications
from relays.shard import Shards
from relays.subscription import Spec, Stream, resume_point
from relays.verdict import Verdict, VerdictState, lost

EOSE_S = 30.0
HEALTHY_SUB_S = 30.0
_STOP = frozenset({"blocked", "restricted", "invalid", "unsupported", "pow", "mute"})


def _nobody() -> Sequence[PubKey]:
    return ()


def _nothing(name: str, since: int, until: int) -> list[tuple[int, str]]:
    return []


class Connection:
    """What we say to one relay, over all of its connections.

    Args:
        url: the relay's address.
        token: makes the random beginning of subscription ids.
        jitter: for pauses.
        keys: the keys that may be shown to this relay, over this connection.
        traits: what was found out about the relay before; changed as more is found.
        held: what was handled of a subscription within a time, for comparing (NIP-77).

    Attributes:
        information: what the relay says of itself.
        out: frames to send.
        asks: what is to be signed; answered by `signed` or `listed`.
        anew: the connection should be made anew, since the relay took it for somebody else's.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[], str],
        jitter: Jitter,
        keys: Keys = _nobody,
        traits: Traits | None = None,
        held: Held = _nothing,
    ) -> None:
        self.url = url
        self.up = False
        self.information = Information()
        self.traits = Traits() if traits is None else traits
        self.out: deque[str] = deque()
        self.asks: deque[Ask] = deque()
        self.streams: dict[str, Stream] = {}
        self.publications = Publications()
        self.auth = Authentication(keys, jitter)
        self.anew = False
        self._routes: dict[str, Stream] = {}
        self._queue: deque[Stream] = deque()
        self._pages: deque[tuple[Stream, Filter]] = deque()
        self._backoff = Backoff(jitter)
        self._jitter = jitter
        self._token = token
        self._session = ""
        self._serial = 0
        self._opened_mono = 0.0
        self._crowd = Crowd(self)
        self._comparison = Comparison(self, held)

    # ---- the connection's life

    def opened(self, now: int, mono: float) -> None:
        """Connected: ask for everything."""
        self.up = True
        self._opened_mono = mono
        self._backoff.up(mono)
        self.auth.reset()
        self._session = sub_prefix(self.information, self._token())
        self._serial = 0
        self._comparison.opened()
        for stream in self.streams.values():
            self.ask(stream, now, mono)
        self._crowd.opened(now, mono)

    def closed(self, mono: float) -> float:
        """The connection ended, or did not come about: seconds to wait before the next try."""
        self.up = self.anew = False
        self.out.clear()
        self.asks.clear()
        self._routes.clear()
        self._queue.clear()
        self._pages.clear()
        self._comparison.closed()
        for name in [name for name, stream in self.streams.items() if stream.spec.owner]:
            del self.streams[name]
        for stream in self.streams.values():
            stream.reset()
        self._crowd.closed()
        self.publications.lost()
        return self._backoff.down(mono)

    @property
    def failures(self) -> int:
        """Tries in a row without a connection that lived."""
        return self._backoff.tries

    @property
    def open_requests(self) -> int:
        """REQs that are open now, with those that read pages."""
        return len(self._routes)

    @property
    def queued(self) -> int:
        """Subscriptions that wait since the relay serves no more at a time."""
        return len(self._queue)

    def tick(self, now: int, mono: float) -> list[Stream]:
        """Time passes. Returns the subscriptions that are given up waiting for an EOSE and count as read."""
        self.publications.overdue(mono)
        self._settled(self.auth.overdue(mono), now, mono)
        if not self.auth.accepted and mono - self._opened_mono > CHALLENGE_S:
            self._crowd.give_up_guard(now, mono)
        ended = []
        for stream in list(self.streams.values()):
            if stream.retry_at is not None and mono >= stream.retry_at:
                self.ask(stream, now, mono)
            elif stream.page_id and not stream.whole and stream.walk is not None and self._is_late(stream, mono):
                stream.asked_mono = mono
                ended.append(stream)
        self._comparison.tick(now, mono)
        self.progress(now, mono)
        return ended

    @staticmethod
    def _is_late(stream: Stream, mono: float) -> bool:
        return mono - stream.asked_mono > EOSE_S

    def progress(self, now: int, mono: float) -> None:
        """Whatever may go on now, goes on."""
        if not self.up:
            return
        self._crowd.probe(now, mono)
        self.asks.extend(self.auth.take(mono))
        for shards in self._crowd.all.values():
            self._crowd.go_on(shards, now, mono)
        self._admit(now, mono)

    # ---- subscriptions

    @property
    def shards(self) -> dict[str, Shards]:
        """The audiences by name."""
        return self._crowd.all

    def attend(self, shards: Shards, now: int, mono: float) -> None:
        """Subscribe for an audience."""
        self._crowd.attend(shards, now, mono)

    def leave(self, name: str) -> None:
        """Unsubscribe an audience."""
        self._crowd.leave(name)

    def plan(self, name: str, now: int, mono: float) -> None:
        """Keys came to an audience, or went."""
        self.auth.refresh()
        self._crowd.plan(name, now, mono)

    def checks(self, now: int) -> list[str]:
        """The subscriptions for which it is time to look whether anything was missed."""
        return self._comparison.due(now, self._crowd.all)

    def check(self, name: str, now: int, mono: float) -> None:
        """Look whether live delivery has missed anything of a subscription."""
        self._comparison.check(name, now, mono)

    def compared(self, frame: Compared, now: int, mono: float) -> Stream | None:
        """NEG-MSG. Returns the subscription if all was read now."""
        return self._comparison.compared(frame, now, mono)

    def uncompared(self, frame: Uncompared, now: int, mono: float) -> None:
        """NEG-ERR: then it is read by pages."""
        self._comparison.uncompared(frame, now, mono)

    def add(self, spec: Spec, high: int | None, now: int, mono: float) -> None:
        """Subscribe, or replace the subscription of this name."""
        self.remove(spec.name)
        stream = self.streams[spec.name] = Stream(spec, high)
        if self.up:
            self.ask(stream, now, mono)

    def remove(self, name: str) -> None:
        """Unsubscribe."""
        stream = self.streams.pop(name, None)
        if stream is not None:
            self._shut(stream)
            stream.queued = False
            self._comparison.removed(name)

    def again(self, stream: Stream, mono: float) -> None:
        """Begin anew from the cursor, soon, since something was missed. A relay that floods is asked ever less."""
        if not self.up or self.streams.get(stream.spec.name) is not stream or not stream.sub_id:
            return
        if mono - stream.asked_mono > HEALTHY_SUB_S:
            stream.closes = 0
        stream.closes += 1
        stream.missed = False
        stream.retry_at = mono + pause(stream.closes, self._jitter)
        stream.whole = False  # the cursor must not move before it was asked again
        stream.walk = None

    def ask(self, stream: Stream, now: int, mono: float) -> None:
        """Send the REQ of a subscription, or have it wait for its turn."""
        self._shut(stream)
        stream.retry_at = None
        if len(self._routes) >= slots(self.information)[0]:
            if not stream.queued:
                stream.queued = True
                self._queue.append(stream)
            return
        stream.queued = False
        compared = self._comparison.may_compare(stream)
        sub_id = self.fresh()
        filters = stream.begin(sub_id, now, mono, live=compared or (stream.spec.live and stream.high is not None))
        request = encode("REQ", sub_id, *fitted(self.information, filters))
        reason = refuse_request(self.information, len(filters), len(request))
        if reason:
            stream.sub_id = stream.page_id = ""
            stream.stopped = reason
            return
        self._routes[sub_id] = stream
        self.out.append(request)
        if compared:
            stream.syncing = True
            self._comparison.compare(stream, resume_point(stream.spec, stream.high or 0, now), now, mono, first=True)

    def _ask_page(self, stream: Stream, page: Filter, mono: float) -> None:
        self.shut_page(stream)
        if len(self._routes) >= slots(self.information)[1]:
            self._pages.append((stream, page))
            return
        stream.page_id = self.fresh()
        self._routes[stream.page_id] = stream
        stream.asked_mono = mono
        self.out.append(encode("REQ", stream.page_id, page))

    def _admit(self, now: int, mono: float) -> None:
        """Places may have become free."""
        most, all_in_all = slots(self.information)
        while self._pages and len(self._routes) < all_in_all:
            stream, page = self._pages.popleft()
            if self.streams.get(stream.spec.name) is stream and stream.walk is not None and not stream.whole:
                self._ask_page(stream, page, mono)
        while self._queue and len(self._routes) < most:
            stream = self._queue.popleft()
            if stream.queued and self.streams.get(stream.spec.name) is stream:
                self.ask(stream, now, mono)

    def fresh(self) -> str:
        """A subscription id that was not used on this connection."""
        self._serial += 1
        return f"{self._session}{self._serial}"

    def shut_page(self, stream: Stream) -> None:
        """Close the REQ that read the last page."""
        if stream.page_id not in ("", stream.sub_id):
            self._close(stream.page_id)
        stream.page_id = ""

    def _shut(self, stream: Stream) -> None:
        self.shut_page(stream)
        if stream.sub_id:
            self._close(stream.sub_id)
            stream.sub_id = ""

    def _close(self, sub_id: str) -> None:
        if self._routes.pop(sub_id, None) is not None and self.up:
            self.out.append(encode("CLOSE", sub_id))

    def route(self, sub_id: str) -> Stream | None:
        """Whose events these are; None if nobody asked, or no longer."""
        return self._routes.get(sub_id)

    def ended(self, frame: Ended, now: int, mono: float) -> Stream | None:
        """EOSE, after all events before it were handled. Returns the subscription if all was read now."""
        stream = self._routes.get(frame.sub)
        if stream is None or frame.sub != stream.page_id or stream.whole or stream.walk is None:
            return None
        following = stream.turn(frame.finish)
        if following is not None:
            self._ask_page(stream, following, mono)
            return None
        if stream.syncing:
            stream.walk = None  # what is compared and fetched ends it
            return None
        self.shut_page(stream)
        self.finished(stream, now, mono)
        return stream

    def finished(self, stream: Stream, now: int, mono: float) -> None:
        """All that was stored has been read for a subscription."""
        spec = stream.spec
        if spec.name == PROBE:
            self._crowd.probe_ended(stream)
        elif self._comparison.is_fetch(spec.name):
            self._comparison.fetched(spec.name, now, mono)
        elif spec.passing:
            self.remove(spec.name)
            if stream.found:
                self._comparison.ask_anew(spec.name.removesuffix("?"), mono)
        elif spec.owner in self._crowd.all:
            for name in self._crowd.all[spec.owner].read(stream):
                self.remove(name)
        self.progress(now, mono)

    def refused(self, frame: Closed, now: int, mono: float) -> str:
        """CLOSED. Returns the reason if the subscription is stopped for good on this connection."""
        stream = self._routes.pop(frame.sub, None)
        if stream is None or frame.sub not in (stream.sub_id, stream.page_id):
            return ""
        if mono - stream.asked_mono > HEALTHY_SUB_S:
            stream.closes = 0
        if frame.sub == stream.sub_id:
            stream.sub_id = ""
            if stream.page_id == frame.sub:
                stream.page_id = ""
        else:
            stream.page_id = ""
        self._shut(stream)  # a page without its subscription, or the other way round, is of no use
        stream.whole = False
        reason = self._judge(stream, frame.reason, now, mono)
        self.progress(now, mono)
        return reason

    def _judge(self, stream: Stream, reason: str, now: int, mono: float) -> str:
        word, spec = prefix(reason), stream.spec
        if spec.name == PROBE:
            self._crowd.settle_probe("one")
            return ""
        shards = self._crowd.of(stream)
        if shards is not None:
            if word == "auth-required":
                return self._crowd.guard(shards, stream, reason)
            if self._crowd.halve(shards, stream, word):
                return ""
            if spec.live and word not in _STOP:
                shards.lost(stream)  # what it was to take the place of is still open
                self.streams.pop(spec.name, None)
                return ""
        if word == "auth-required" and not stream.authenticated and self._park(stream, mono):
            return ""
        if word in _STOP or word == "auth-required":
            return self._stop(stream, reason, now, mono)
        stream.closes += 1
        stream.retry_at = mono + pause(stream.closes, self._jitter)
        return ""

    def _stop(self, stream: Stream, reason: str, now: int, mono: float) -> str:
        spec = stream.spec
        stream.stopped = reason
        if self._comparison.is_fetch(spec.name):
            self._comparison.fetched(spec.name, now, mono)
        elif spec.passing:
            self.streams.pop(spec.name, None)
        return "" if spec.passing else reason

    # ---- authentication and publishing

    def _keys_for(self, stream: Stream) -> list[PubKey]:
        named = {key for one in stream.spec.filters for key in one.tags.get("p", ())}
        named |= {key for one in stream.spec.filters for key in one.authors or ()}
        first = self.auth.any_key()
        return self.auth.usable(named) or ([first] if first is not None else [])

    def _park(self, stream: Stream, mono: float) -> bool:
        keys = self._keys_for(stream)
        if not keys:
            return False
        stream.parked, stream.awaits = True, frozenset(keys)
        self.auth.want(keys)
        if not any(self.auth.is_pending(key) for key in keys):  # they were accepted before it was asked
            stream.parked, stream.authenticated = False, True
            stream.retry_at = mono
        return True

    def challenged(self, frame: Challenged, now: int, mono: float) -> None:
        """AUTH from the relay."""
        self.auth.challenged(frame.challenge)
        self.progress(now, mono)

    def signed(self, ask: Ask, event: Event | None, now: int, mono: float) -> None:
        """The answer to one of `asks`; None if there is none."""
        answer, settled = self.auth.signed(ask, event, mono)
        if answer is not None and self.up:
            self.out.append(encode("AUTH", answer))
        self._settled(settled, now, mono)
        self.progress(now, mono)

    def listed(self, events: Sequence[Event], now: int, mono: float) -> None:
        """The key lists that were asked for."""
        self.auth.listed(events, mono)
        if self.up:
            self.out.extend(encode("AUTH", event) for event in events)
        self._crowd.lists_may_be_refused()
        self.progress(now, mono)

    def _settled(self, settled: Settled, now: int, mono: float) -> None:
        for keys, good in ((settled.accepted, True), (settled.failed, False)):
            for key in keys:
                self.out.extend(self.publications.release(key, good, mono))
        if not settled:
            return
        self._crowd.settled(settled)
        for stream in list(self.streams.values()):
            if not stream.parked or any(self.auth.is_pending(PubKey(key)) for key in stream.awaits):
                continue
            if any(key in self.auth.accepted for key in stream.awaits):
                stream.authenticated = True
                self.ask(stream, now, mono)
            else:
                stream.parked, stream.stopped = False, "auth-required: authentication failed"

    def publish(self, event: Event, done: Done, now: int, mono: float) -> None:
        """Send an event; `done` is called once, with the verdict."""
        self.publish_raw(event.id, event.to_json(), done, now, mono)

    def publish_raw(self, event_id: str, raw: str, done: Done, now: int, mono: float) -> None:
        """Send an event that is JSON text of ours already, byte for byte, unless the relay says it takes no such."""
        if not self.up:
            done(lost("the relay is not connected"))
            return
        reason = refuse_event(self.information, event_id, raw, now)
        if reason:
            final = prefix(reason) != "error"
            done(Verdict(VerdictState.REFUSED if final else VerdictState.UNKNOWN, reason))
            return
        frame = encode_raw("EVENT", None, raw)
        if self.publications.add(event_id, frame, done, mono):
            self.out.append(frame)

    def answered(self, frame: Answered, now: int, mono: float) -> None:
        """OK from the relay."""
        settled = self.auth.answered(frame.event_id, frame.accepted, frame.reason, mono)
        if settled is not None:
            self._settled(settled, now, mono)
            self._crowd.lists_may_be_refused()
            if self.auth.waiting and self.traits.keys == "many":  # not each of thousands is worth a look at all
                self.asks.extend(self.auth.take(mono))
            else:
                self.progress(now, mono)
            return
        author = self.publications.answered(frame.event_id, frame.accepted, frame.reason, mono)
        if author is not None:
            self._authenticate_for(frame.event_id, author, now, mono)

    def _authenticate_for(self, event_id: str, author: str, now: int, mono: float) -> None:
        keys: Iterable[PubKey] = self.auth.usable({author}) or [key for key in [self.auth.any_key()] if key is not None]
        key = next(iter(keys), None)
        if key is None:
            self.publications.release(None, False, mono)
            return
        self.publications.await_key(event_id, key)
        self.auth.want([key])
        if not self.auth.is_pending(key):
            self.out.extend(self.publications.release(key, key in self.auth.accepted, mono))
        self.progress(now, mono)
