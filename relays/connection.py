"""The client of one relay without any I/O: frames and ticks go in, frames come out in `out`. Pure.

Rules: a fresh subscription id on each REQ; resume from the cursor; page past limits; CLOSED by its prefix
(`auth-required` → authenticate once, ask once more; `blocked restricted invalid unsupported pow mute` → stop and
report; anything else → ask again after a back-off); never trust that an EOSE or an OK comes; NOTICE means nothing.
Times: `now` is Unix seconds, `mono` monotonic seconds.
"""

from collections import deque
from collections.abc import Callable

from relays.authentication import Authentication, Signer
from relays.backoff import Backoff, Jitter, pause
from relays.event import Event
from relays.filter import Filter
from relays.message import MAX_SUB_CHARS, Answered, Challenged, Closed, Ended, encode, encode_raw, prefix
from relays.publication import Done, Publications
from relays.subscription import Spec, Stream
from relays.verdict import lost

EOSE_S = 30.0
HEALTHY_SUB_S = 30.0
_STOP = frozenset({"blocked", "restricted", "invalid", "unsupported", "pow", "mute"})


class Connection:
    """What we say to one relay, over all of its connections."""

    def __init__(self, url: str, *, token: Callable[[], str], jitter: Jitter, auth: Signer | None = None) -> None:
        self.url = url
        self.up = False
        self.out: deque[str] = deque()
        self.streams: dict[str, Stream] = {}
        self.publications = Publications()
        self._routes: dict[str, Stream] = {}
        self._backoff = Backoff(jitter)
        self._jitter = jitter
        self._token = token
        self._session = ""
        self._serial = 0
        self._auth = Authentication(url, auth)

    # ---- the connection's life

    def opened(self, now: int, mono: float) -> None:
        """Connected: ask for everything."""
        self.up = True
        self._backoff.up(mono)
        self._auth.reset()
        self._session = self._token()[: MAX_SUB_CHARS // 2]
        self._serial = 0
        for stream in self.streams.values():
            self._ask(stream, now, mono)

    def closed(self, mono: float) -> float:
        """The connection ended, or did not come about: seconds to wait before the next try."""
        self.up = False
        self.out.clear()
        self._routes.clear()
        for stream in self.streams.values():
            stream.reset()
        self.publications.lost()
        return self._backoff.down(mono)

    @property
    def failures(self) -> int:
        """Tries in a row without a connection that lived."""
        return self._backoff.tries

    def tick(self, now: int, mono: float) -> list[Stream]:
        """Time passes. Returns the subscriptions that are given up waiting for an EOSE and count as read."""
        self.publications.overdue(mono)
        if self._auth.overdue(mono):
            self._release(now, mono)
        ended = []
        for stream in self.streams.values():
            if stream.retry_at is not None and mono >= stream.retry_at:
                self._ask(stream, now, mono)
            elif stream.page_id and not stream.whole and mono - stream.asked_mono > EOSE_S:
                stream.asked_mono = mono
                ended.append(stream)
        return ended

    # ---- subscriptions

    def add(self, spec: Spec, high: int | None, now: int, mono: float) -> None:
        """Subscribe, or replace the subscription of this name."""
        self.remove(spec.name)
        stream = self.streams[spec.name] = Stream(spec, high)
        if self.up:
            self._ask(stream, now, mono)

    def remove(self, name: str) -> None:
        """Unsubscribe."""
        stream = self.streams.pop(name, None)
        if stream is not None:
            self._shut(stream)

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

    def _ask(self, stream: Stream, now: int, mono: float) -> None:
        self._shut(stream)
        sub_id = self._fresh(stream)
        self.out.append(encode("REQ", sub_id, *stream.begin(sub_id, now, mono)))

    def _ask_page(self, stream: Stream, page: Filter, mono: float) -> None:
        self._shut_page(stream)
        stream.page_id = self._fresh(stream)
        stream.asked_mono = mono
        self.out.append(encode("REQ", stream.page_id, page))

    def _fresh(self, stream: Stream) -> str:
        self._serial += 1
        sub_id = f"{self._session}{self._serial}"
        self._routes[sub_id] = stream
        return sub_id

    def _shut_page(self, stream: Stream) -> None:
        if stream.page_id not in ("", stream.sub_id):
            self._close(stream.page_id)
        stream.page_id = ""

    def _shut(self, stream: Stream) -> None:
        self._shut_page(stream)
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
        self._shut_page(stream)
        return stream

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
        word = prefix(frame.reason)
        if word == "auth-required" and not stream.authenticated and not self._auth.hopeless:
            return self._park(stream, frame.reason, now, mono)
        if word in _STOP or word == "auth-required":
            stream.stopped = frame.reason
            return frame.reason
        stream.closes += 1
        stream.retry_at = mono + pause(stream.closes, self._jitter)
        return ""

    # ---- authentication and publishing

    def _park(self, stream: Stream, reason: str, now: int, mono: float) -> str:
        stream.parked = True
        self._want(now, mono)
        return reason if stream.stopped else ""

    def _want(self, now: int, mono: float) -> None:
        event = self._auth.want(mono)
        if event is not None:
            self.out.append(encode("AUTH", event))
        elif self._auth.state in ("accepted", "failed"):
            self._release(now, mono)

    def challenged(self, frame: Challenged, now: int, mono: float) -> None:
        """AUTH from the relay."""
        event = self._auth.challenged(frame.challenge, mono)
        if event is not None:
            self.out.append(encode("AUTH", event))
        elif self._auth.state == "failed":
            self._release(now, mono)

    def _release(self, now: int, mono: float) -> None:
        good = self._auth.state == "accepted"
        self.out.extend(self.publications.release(good, mono))
        for stream in self.streams.values():
            if stream.parked and good:
                stream.authenticated = True
                self._ask(stream, now, mono)
            elif stream.parked:
                stream.parked, stream.stopped = False, "auth-required: authentication failed"

    def publish(self, event: Event, done: Done, mono: float) -> None:
        """Send an event; `done` is called once, with the verdict."""
        self.publish_raw(event.id, event.to_json(), done, mono)

    def publish_raw(self, event_id: str, raw: str, done: Done, mono: float) -> None:
        """Send an event that is JSON text of ours already, byte for byte."""
        if not self.up:
            done(lost("the relay is not connected"))
            return
        frame = encode_raw("EVENT", None, raw)
        if self.publications.add(event_id, frame, done, mono):
            self.out.append(frame)

    def answered(self, frame: Answered, now: int, mono: float) -> None:
        """OK from the relay."""
        if self._auth.answered(frame.event_id, frame.accepted):
            self._release(now, mono)
        elif self.publications.answered(frame.event_id, frame.accepted, frame.reason):
            if self._auth.hopeless:
                self._release(now, mono)
            else:
                self._want(now, mono)
