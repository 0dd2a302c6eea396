"""The client of one relay without any I/O: frames and ticks go in, frames come out in `out`. Pure.

Rules: a fresh subscription id on each REQ; resume from the cursor; page past limits; CLOSED by its prefix
(`auth-required` → authenticate once, ask once more; `blocked restricted invalid unsupported pow mute` → stop and
report; anything else → ask again after a back-off); never trust that an EOSE or an OK comes; NOTICE means nothing;
no more open REQs than the relay says it serves. Times: `now` is Unix seconds, `mono` monotonic seconds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from core.identifier import PubKey
from relays.authentication import Ask, Authentication, Keys, Settled
from relays.backoff import Backoff, Jitter, pause
from relays.error import MalformedSync
from relays.event import Event
from relays.filter import Filter
from relays.limitation import (
    Traits,
    fitted,
    key_capacity,
    refuse_event,
    refuse_request,
    slots,
    sub_prefix,
)
from relays.message import Answered, Challenged, Closed, Compared, Ended, Uncompared, encode, encode_raw, prefix
from relays.nip11 import Information
from relays.publication import Done, Publications
from relays.reconciliation import SILENCE_S, Reconciliation
from relays.shard import Shards
from relays.subscription import Spec, Stream, resume_point
from relays.verdict import Verdict, VerdictState, lost

EOSE_S = 30.0
HEALTHY_SUB_S = 30.0
CHALLENGE_S = 5.0
PROBE = "?probe"
NIP_77 = 77
MAX_REFUSED_KEYS = 3  # so many refusals in a row, after one key was accepted, mean "one key a connection"
MAX_RECONCILIATIONS = 4  # at a time
SYNC_S = 300
SYNC_OVERLAP_S = 120
SWEEP_S = 1_800  # as `SYNC_S`, where two days have to be read again to find what was missed
RESTORE_KEYS = 100  # a refused request of more keys is tried again with half as many
_STOP = frozenset({"blocked", "restricted", "invalid", "unsupported", "pow", "mute"})

Held = Callable[[str, int, int], list[tuple[int, str]]]  # (subscription, from, until) -> (created_at, id) handled


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
        self.shards: dict[str, Shards] = {}
        self.publications = Publications()
        self.auth = Authentication(keys, jitter)
        self.anew = False
        self._routes: dict[str, Stream] = {}
        self._queue: deque[Stream] = deque()
        self._pages: deque[tuple[Stream, Filter]] = deque()
        self._syncs: dict[str, list[Reconciliation]] = {}  # by the stream's name
        self._fetches: dict[str, Reconciliation] = {}  # by the name of the request by ids
        self._no_sync = False
        self._held = held
        self._backoff = Backoff(jitter)
        self._jitter = jitter
        self._token = token
        self._session = ""
        self._serial = 0
        self._opened_mono = 0.0
        self._refused_keys = 0
        self._probed = False

    # ---- the connection's life

    def opened(self, now: int, mono: float) -> None:
        """Connected: ask for everything."""
        self.up = True
        self._opened_mono = mono
        self._backoff.up(mono)
        self.auth.reset()
        self._session = sub_prefix(self.information, self._token())
        self._serial = 0
        self._no_sync = self._probed = False
        self._refused_keys = 0
        for stream in self.streams.values():
            self._ask(stream, now, mono)
        for shards in self.shards.values():
            self._start_shards(shards, now, mono)

    def closed(self, mono: float) -> float:
        """The connection ended, or did not come about: seconds to wait before the next try."""
        self.up = self.anew = False
        self.out.clear()
        self.asks.clear()
        self._routes.clear()
        self._queue.clear()
        self._pages.clear()
        self._syncs.clear()
        self._fetches.clear()
        for name in [name for name, stream in self.streams.items() if stream.spec.owner]:
            del self.streams[name]
        for stream in self.streams.values():
            stream.reset()
        for shards in self.shards.values():
            shards.restart()
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
            self._give_up_guard(now, mono)
        ended = []
        for stream in list(self.streams.values()):
            if stream.retry_at is not None and mono >= stream.retry_at:
                self._ask(stream, now, mono)
            elif stream.page_id and not stream.whole and stream.walk is not None and self._is_late(stream, mono):
                stream.asked_mono = mono
                ended.append(stream)
        for name, syncs in list(self._syncs.items()):
            if any(sync.is_silent and mono - sync.heard_at > SILENCE_S for sync in syncs):
                self._forgo(name, now, mono)
        self._progress(now, mono)
        return ended

    @staticmethod
    def _is_late(stream: Stream, mono: float) -> bool:
        return mono - stream.asked_mono > EOSE_S

    def _progress(self, now: int, mono: float) -> None:
        """Whatever may go on now, goes on."""
        if not self.up:
            return
        self._probe(now, mono)
        self.asks.extend(self.auth.take(mono))
        for shards in self.shards.values():
            self._plan(shards, now, mono)
        self._admit(now, mono)

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
            stream.queued = False
            for sync in self._syncs.pop(name, ()):
                self._end_sync(sync)

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
        stream.retry_at = None
        if len(self._routes) >= slots(self.information)[0]:
            if not stream.queued:
                stream.queued = True
                self._queue.append(stream)
            return
        stream.queued = False
        compared = self._may_compare(stream)
        sub_id = self._fresh()
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
            self._compare(stream, resume_point(stream.spec, stream.high or 0, now), now, mono, first=True)

    def _ask_page(self, stream: Stream, page: Filter, mono: float) -> None:
        self._shut_page(stream)
        if len(self._routes) >= slots(self.information)[1]:
            self._pages.append((stream, page))
            return
        stream.page_id = self._fresh()
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
                self._ask(stream, now, mono)

    def _fresh(self) -> str:
        self._serial += 1
        return f"{self._session}{self._serial}"

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
        if stream.syncing:
            stream.walk = None  # what is compared and fetched ends it
            return None
        self._shut_page(stream)
        self._read(stream, now, mono)
        return stream

    def _read(self, stream: Stream, now: int, mono: float) -> None:
        """All that was stored has been read for a subscription."""
        spec = stream.spec
        if spec.name == PROBE:
            self._probe_ended(stream, now, mono)
        elif spec.name in self._fetches:
            self._fetched(spec.name, now, mono)
        elif spec.passing:
            self.remove(spec.name)
            if stream.found:
                self._ask_anew(spec.name.removesuffix("?"), mono)
        elif spec.owner in self.shards:
            for name in self.shards[spec.owner].read(stream):
                self.remove(name)
        self._progress(now, mono)

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
        self._progress(now, mono)
        return reason

    def _judge(self, stream: Stream, reason: str, now: int, mono: float) -> str:
        word, spec = prefix(reason), stream.spec
        if spec.name == PROBE:
            self._settle_probe("one", now, mono)
            return ""
        shards = self.shards.get(spec.owner)
        if shards is not None and not spec.passing:
            if word == "auth-required":
                return self._guard(shards, stream, reason)
            if self._halve(shards, stream, word):
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
        if spec.name in self._fetches:
            self._fetched(spec.name, now, mono)
        elif spec.passing:
            self.streams.pop(spec.name, None)
        return "" if spec.passing else reason

    # ---- many keys in few requests

    def attend(self, shards: Shards, now: int, mono: float) -> None:
        """Subscribe for an audience."""
        self.shards[shards.audience.name] = shards
        if self.up:
            self._start_shards(shards, now, mono)
            self._progress(now, mono)

    def leave(self, name: str) -> None:
        """Unsubscribe an audience."""
        self.shards.pop(name, None)
        for one in [one for one, stream in self.streams.items() if stream.spec.owner == name]:
            self.remove(one)

    def plan(self, name: str, now: int, mono: float) -> None:
        """Keys came to an audience, or went."""
        shards = self.shards.get(name)
        if shards is not None and self.up:
            if shards.guarded:
                self._want_keys(shards)
            self._progress(now, mono)

    def _start_shards(self, shards: Shards, now: int, mono: float) -> None:
        shards.guarded = self.traits.guarded and self.auth.any_key() is not None
        if shards.guarded:
            self._want_keys(shards)
        self._plan(shards, now, mono)

    def _plan(self, shards: Shards, now: int, mono: float) -> None:
        accepted: set[str] = set(self.auth.accepted)
        may = accepted.__contains__ if shards.guarded else None
        plan = shards.plan(key_capacity(self.information, self.traits), may)
        for name in plan.shut:
            self.remove(name)
        for spec, high in plan.open:
            self.add(spec, high, now, mono)
            stream = self.streams[spec.name]
            stream.authenticated = shards.guarded
            shards.opened(stream)

    def _guard(self, shards: Shards, stream: Stream, reason: str) -> str:
        """The relay shows these events only to who has authenticated."""
        if shards.guarded and stream.authenticated:
            if len(self.auth.accepted) > 1 and self.traits.keys != "many":
                self._settle_one()
                return ""
            stream.stopped = reason
            return reason
        if self.auth.any_key() is None:
            stream.stopped = reason
            return reason
        shards.guarded = self.traits.guarded = True
        for name in shards.release():
            self.remove(name)
        self._want_keys(shards)
        return ""

    def _give_up_guard(self, now: int, mono: float) -> None:
        """It asked for authentication once, and now sends no challenge: ask as anybody would."""
        for shards in self.shards.values():
            if shards.guarded and not self.auth.challenge and not len(shards):
                shards.guarded = False
                self._plan(shards, now, mono)

    def _want_keys(self, shards: Shards) -> None:
        first = self.auth.any_key()
        if first is None:
            return
        if (self.information.max_listed_keys and not self.auth.list_refused) or self.traits.keys == "one":
            self.auth.want([first])
            if first in self.auth.accepted and self.information.max_listed_keys:
                self.auth.show_lists()
            return
        self.auth.want(self.auth.usable(shards.audience))

    def _halve(self, shards: Shards, stream: Stream, word: str) -> bool:
        """A big request was refused: try smaller ones."""
        size = max((len(values) for values in stream.spec.filters[0].tags.values()), default=0)
        if size <= RESTORE_KEYS or word == "restricted" or stream.spec.live:
            return False
        self.traits.values = size // 2
        shards.lost(stream)
        self.streams.pop(stream.spec.name, None)
        return True

    # ---- whether one connection may be several keys

    def _probe(self, now: int, mono: float) -> None:
        if self.traits.keys or (self.information.max_listed_keys and not self.auth.list_refused):
            return
        guarded = next((shards for shards in self.shards.values() if shards.guarded), None)
        if guarded is None:
            return
        known = len(self.auth.accepted)
        if known == 0:
            self.auth.at_once = 1
        elif known == 1:
            self.auth.at_once = 1 if guarded.whole else 0
        else:
            self.auth.at_once = 0
            if not self._probed and guarded.whole:
                self._ask_probe(guarded, now, mono)

    def _ask_probe(self, shards: Shards, now: int, mono: float) -> None:
        """The first key's messages, after a second one was accepted."""
        self._probed = True
        first = next((key for key in shards.keys), "")
        wanted = Filter(kinds=shards.audience.kinds, tags={shards.audience.tag: frozenset({first})}, limit=1)
        self.add(Spec(PROBE, (wanted,), durable=False), None, now, mono)
        self.streams[PROBE].authenticated = True

    def _probe_ended(self, stream: Stream, now: int, mono: float) -> None:
        had = any(one.got for one in self.streams.values() if one.spec.owner in self.shards)
        if had and not stream.got:
            self._settle_probe("one", now, mono)
        else:
            self._settle_probe("many" if had else "", now, mono)

    def _settle_probe(self, keys: str, now: int, mono: float) -> None:
        self.remove(PROBE)
        if keys == "one":
            self._settle_one()
            return
        # Served, though perhaps only since nothing is there for the first key: then it is tried again next time
        self.traits.keys = keys
        self.auth.at_once = 8

    def _settle_one(self) -> None:
        self.traits.keys = "one"
        self.anew = True

    # ---- comparing instead of reading (NIP-77)

    def check(self, name: str, now: int, mono: float) -> None:
        """Look whether live delivery has missed anything of a subscription: compare, or read the last while again."""
        stream = self.streams.get(name)
        if stream is None or not stream.whole or stream.missed or stream.spec.passing or stream.high is None:
            return
        since = resume_point(stream.spec, stream.high, now)
        if self._can_compare and len(self._syncs) < MAX_RECONCILIATIONS and name not in self._syncs:
            self._compare(stream, since, now, mono, first=False)
        elif not self._can_compare and f"{name}?" not in self.streams:
            if not stream.spec.backdated:
                since = min(since, stream.checked_at - SYNC_OVERLAP_S)
            spec = replace(
                stream.spec,
                name=f"{name}?",
                filters=tuple(replace(one, since=max(one.since, since)) for one in stream.spec.filters),
                owner=stream.spec.delivery,
                durable=False,
                live=False,
                passing=True,
                checking=True,
            )
            self.add(spec, None, now, mono)
        stream.checked_at = now

    def _ask_anew(self, name: str, mono: float) -> None:
        """Live delivery has missed something: the relay may have forgotten the subscription."""
        stream = self.streams.get(name)
        if stream is not None and stream.whole:
            self.again(stream, mono)

    def checks(self, now: int) -> list[str]:
        """The subscriptions for which it is time to look whether anything was missed."""
        compare = self._can_compare
        return [
            name
            for name, stream in self.streams.items()
            if stream.whole
            and (stream.spec.durable or stream.spec.owner in self.shards)
            and not stream.spec.passing
            and now - stream.checked_at >= (SYNC_S if compare or not stream.spec.backdated else SWEEP_S)
        ]

    @property
    def _can_compare(self) -> bool:
        return NIP_77 in self.information.supported_nips and not self._no_sync

    def _may_compare(self, stream: Stream) -> bool:
        spec = stream.spec
        return self._can_compare and spec.backdated and stream.high is not None and not spec.live and not spec.passing

    def _compare(self, stream: Stream, since: int, now: int, mono: float, *, first: bool) -> None:
        syncs = self._syncs.setdefault(stream.spec.name, [])
        held = self._held(stream.spec.delivery, since, now)
        for one in stream.spec.filters:
            wanted = replace(one, since=max(one.since, since))
            sync = Reconciliation(stream, self._fresh(), wanted, held, mono, first=first)
            syncs.append(sync)
            asked, message = sync.start()
            self.out.append(encode("NEG-OPEN", sync.sub_id, asked, message))

    def _sync(self, sub_id: str) -> Reconciliation | None:
        return next((one for syncs in self._syncs.values() for one in syncs if one.sub_id == sub_id), None)

    def compared(self, frame: Compared, now: int, mono: float) -> Stream | None:
        """NEG-MSG. Returns the subscription if all was read now."""
        sync = self._sync(frame.sub) if frame.sub else None
        if sync is None:
            return None
        try:
            reply = sync.receive(frame.message, mono)
        except MalformedSync:
            self._forgo(sync.stream.spec.name, now, mono)
            return None
        if reply is not None:
            self.out.append(encode("NEG-MSG", sync.sub_id, reply))
            return None
        self._end_sync(sync)
        return self._fetch(sync, now, mono)

    def uncompared(self, frame: Uncompared, now: int, mono: float) -> None:
        """NEG-ERR: then it is read by pages."""
        sync = self._sync(frame.sub) if frame.sub else None
        if sync is not None:
            sync.sub_id = ""
            self._forgo(sync.stream.spec.name, now, mono)

    def _end_sync(self, sync: Reconciliation) -> None:
        if sync.sub_id and self.up:
            self.out.append(encode("NEG-CLOSE", sync.sub_id))
        sync.sub_id = ""
        if sync.fetching:
            self._fetches.pop(sync.fetching, None)
            self.remove(sync.fetching)

    def _fetch(self, sync: Reconciliation, now: int, mono: float) -> Stream | None:
        """The next hundred of what the relay has and we have not; at the end, the subscription that is whole now."""
        wanted = sync.following()
        stream = sync.stream
        if wanted is not None:
            self._serial += 1
            sync.fetching = f"{stream.spec.name}!{self._serial}"
            self._fetches[sync.fetching] = sync
            spec = Spec(
                sync.fetching, (wanted,), durable=False, owner=stream.spec.delivery, passing=True,
                checking=not sync.first,
            )  # fmt: skip
            self.add(spec, None, now, mono)
            return None
        syncs = self._syncs.get(stream.spec.name, [])
        if sync in syncs:
            syncs.remove(sync)
        if syncs:
            return None
        self._syncs.pop(stream.spec.name, None)
        if not sync.first or not stream.syncing:
            return None
        if stream.walk is not None:  # its EOSE is still to come, and ends it
            stream.syncing = False
            return None
        self._shut_page(stream)
        stream.finish()
        self._read(stream, now, mono)
        return stream

    def _fetched(self, name: str, now: int, mono: float) -> None:
        sync = self._fetches.pop(name)
        sync.fetching = ""
        stream = self.streams.get(name)
        if stream is not None:
            sync.stream.peak = max(sync.stream.peak, stream.peak)
            if stream.found:
                self._ask_anew(sync.stream.spec.name, mono)
        self.remove(name)
        self._fetch(sync, now, mono)

    def _forgo(self, name: str, now: int, mono: float) -> None:
        """Comparing does not work with this relay now."""
        self._no_sync = True
        syncs = self._syncs.pop(name, [])
        for sync in syncs:
            self._end_sync(sync)
        stream = self.streams.get(name)
        if stream is not None and stream.syncing and any(sync.first for sync in syncs):
            stream.syncing = False
            self._ask(stream, now, mono)

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
        self._progress(now, mono)

    def signed(self, ask: Ask, event: Event | None, now: int, mono: float) -> None:
        """The answer to one of `asks`; None if there is none."""
        answer, settled = self.auth.signed(ask, event, mono)
        if answer is not None and self.up:
            self.out.append(encode("AUTH", answer))
        self._settled(settled, now, mono)
        self._progress(now, mono)

    def listed(self, events: Sequence[Event], now: int, mono: float) -> None:
        """The key lists that were asked for."""
        self.auth.listed(events, mono)
        if self.up:
            self.out.extend(encode("AUTH", event) for event in events)
        self._list_may_be_refused()
        self._progress(now, mono)

    def _list_may_be_refused(self) -> None:
        if self.auth.list_refused:
            for shards in self.shards.values():
                if shards.guarded:
                    self._want_keys(shards)

    def _settled(self, settled: Settled, now: int, mono: float) -> None:
        for keys, good in ((settled.accepted, True), (settled.failed, False)):
            for key in keys:
                self.out.extend(self.publications.release(key, good, mono))
        if not settled:
            return
        self._count_refusals(settled)
        for stream in list(self.streams.values()):
            if not stream.parked or any(self.auth.is_pending(PubKey(key)) for key in stream.awaits):
                continue
            if any(key in self.auth.accepted for key in stream.awaits):
                stream.authenticated = True
                self._ask(stream, now, mono)
            else:
                stream.parked, stream.stopped = False, "auth-required: authentication failed"
        guarded = any(shards.guarded for shards in self.shards.values())
        takes_lists = self.information.max_listed_keys and not self.auth.list_refused
        if takes_lists and guarded and self.auth.any_key() in settled.accepted:
            self.auth.show_lists()

    def _count_refusals(self, settled: Settled) -> None:
        if settled.accepted:
            self._refused_keys = 0
        elif self.auth.accepted and not self.traits.keys:
            self._refused_keys += len(settled.failed)
            if len(self.auth.accepted) == 1 and self._refused_keys >= MAX_REFUSED_KEYS:
                self.traits.keys = "one"

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
            self._list_may_be_refused()
            self._progress(now, mono)
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
        self._progress(now, mono)
