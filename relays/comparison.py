"""Comparing with a relay instead of reading it all again (NIP-77), and looking for what live delivery missed. Pure."""

from collections.abc import Callable, Container
from dataclasses import replace

from relays.crowd import Port
from relays.error import MalformedSync
from relays.message import Compared, Uncompared, encode
from relays.reconciliation import SILENCE_S, Reconciliation
from relays.subscription import Spec, Stream, resume_point

NIP_77 = 77
MAX_OPEN = 4  # exchanges at a time, of those that look for losses
SYNC_S = 300
SYNC_OVERLAP_S = 120
SWEEP_S = 1_800  # as `SYNC_S`, where two days have to be read again to find what was missed

Held = Callable[[str, int, int], list[tuple[int, str]]]  # (subscription, from, until) -> (created_at, id) handled


class Comparison:
    """The exchanges of one connection. `held` says what was handled of a subscription within a time."""

    def __init__(self, port: Port, held: Held) -> None:
        self._port = port
        self._held = held
        self._open: dict[str, list[Reconciliation]] = {}  # by the stream's name
        self._fetches: dict[str, Reconciliation] = {}  # by the name of the request by ids
        self._no_sync = False

    def opened(self) -> None:
        """A new connection."""
        self._no_sync = False

    def closed(self) -> None:
        """The connection is gone."""
        self._open.clear()
        self._fetches.clear()

    def is_fetch(self, name: str) -> bool:
        """Whether a subscription is one of our requests by ids."""
        return name in self._fetches

    def removed(self, name: str) -> None:
        """A subscription ended."""
        for sync in self._open.pop(name, ()):
            self._end(sync)

    def tick(self, now: int, mono: float) -> None:
        """Time passes."""
        for name, syncs in list(self._open.items()):
            if any(sync.is_silent and mono - sync.heard_at > SILENCE_S for sync in syncs):
                self.forgo(name, now, mono)

    def check(self, name: str, now: int, mono: float) -> None:
        """Look whether live delivery has missed anything of a subscription: compare, or read the last while again."""
        stream = self._port.streams.get(name)
        if stream is None or not stream.whole or stream.missed or stream.spec.passing or stream.high is None:
            return
        since = resume_point(stream.spec, stream.high, now)
        if self._can_compare and len(self._open) < MAX_OPEN and name not in self._open:
            hole, stream.hole = stream.hole, None
            self.compare(stream, since if hole is None else min(since, hole), now, mono, first=False)
        elif not self._can_compare and f"{name}?" not in self._port.streams:
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
            self._port.add(spec, None, now, mono)
        stream.checked_at = now

    def ask_anew(self, name: str, mono: float) -> None:
        """Live delivery has missed something: the relay may have forgotten the subscription."""
        stream = self._port.streams.get(name)
        if stream is not None and stream.whole:
            self._port.again(stream, mono)

    def due(self, now: int, audiences: Container[str]) -> list[str]:
        """The subscriptions for which it is time to look whether anything was missed."""
        compare = self._can_compare
        return [
            name
            for name, stream in self._port.streams.items()
            if stream.whole
            and (stream.spec.durable or stream.spec.owner in audiences)
            and not stream.spec.passing
            and now - stream.checked_at >= (SYNC_S if compare or not stream.spec.backdated else SWEEP_S)
        ]

    @property
    def _can_compare(self) -> bool:
        return NIP_77 in self._port.information.supported_nips and not self._no_sync

    def may_compare(self, stream: Stream) -> bool:
        """Whether comparing may take the place of reading what is stored."""
        spec = stream.spec
        return self._can_compare and spec.backdated and stream.high is not None and not spec.live and not spec.passing

    def compare(self, stream: Stream, since: int, now: int, mono: float, *, first: bool) -> None:
        """Begin to compare what is dated from `since`. `first`: in place of reading it."""
        syncs = self._open.setdefault(stream.spec.name, [])
        held = self._held(stream.spec.delivery, since, now)
        for one in stream.spec.filters:
            wanted = replace(one, since=max(one.since, since))
            sync = Reconciliation(stream, self._port.fresh(), wanted, held, mono, first=first)
            syncs.append(sync)
            asked, message = sync.start()
            self._port.out.append(encode("NEG-OPEN", sync.sub_id, asked, message))

    def _sync(self, sub_id: str) -> Reconciliation | None:
        return next((one for syncs in self._open.values() for one in syncs if one.sub_id == sub_id), None)

    def compared(self, frame: Compared, now: int, mono: float) -> Stream | None:
        """NEG-MSG. Returns the subscription if all was read now."""
        sync = self._sync(frame.sub) if frame.sub else None
        if sync is None:
            return None
        try:
            reply = sync.receive(frame.message, mono)
        except MalformedSync:
            self.forgo(sync.stream.spec.name, now, mono)
            return None
        if reply is not None:
            self._port.out.append(encode("NEG-MSG", sync.sub_id, reply))
            return None
        self._end(sync)
        return self._fetch(sync, now, mono)

    def uncompared(self, frame: Uncompared, now: int, mono: float) -> None:
        """NEG-ERR: then it is read by pages."""
        sync = self._sync(frame.sub) if frame.sub else None
        if sync is not None:
            sync.sub_id = ""
            self.forgo(sync.stream.spec.name, now, mono)

    def _end(self, sync: Reconciliation) -> None:
        if sync.sub_id and self._port.up:
            self._port.out.append(encode("NEG-CLOSE", sync.sub_id))
        sync.sub_id = ""
        if sync.fetching:
            self._fetches.pop(sync.fetching, None)
            self._port.remove(sync.fetching)

    def _fetch(self, sync: Reconciliation, now: int, mono: float) -> Stream | None:
        """The next hundred of what the relay has and we have not; at the end, the subscription that is whole now."""
        wanted = sync.following()
        stream = sync.stream
        if wanted is not None:
            sync.fetching = f"{stream.spec.name}!{self._port.fresh()}"
            self._fetches[sync.fetching] = sync
            spec = Spec(
                sync.fetching, (wanted,), durable=False, owner=stream.spec.delivery, passing=True,
                checking=not sync.first,
            )  # fmt: skip
            self._port.add(spec, None, now, mono)
            return None
        syncs = self._open.get(stream.spec.name, [])
        if sync in syncs:
            syncs.remove(sync)
        if syncs:
            return None
        self._open.pop(stream.spec.name, None)
        if not sync.first or not stream.syncing:
            return None
        if stream.walk is not None:  # its EOSE is still to come, and ends it
            stream.syncing = False
            return None
        self._port.shut_page(stream)
        stream.finish()
        self._port.finished(stream, now, mono)
        return stream

    def fetched(self, name: str, now: int, mono: float) -> None:
        """A request by ids was answered, or refused."""
        sync = self._fetches.pop(name)
        sync.fetching = ""
        stream = self._port.streams.get(name)
        if stream is not None:
            sync.stream.peak = max(sync.stream.peak, stream.peak)
            if stream.found:
                self.ask_anew(sync.stream.spec.name, mono)
        self._port.remove(name)
        self._fetch(sync, now, mono)

    def forgo(self, name: str, now: int, mono: float) -> None:
        """Comparing does not work with this relay now."""
        self._no_sync = True
        syncs = self._open.pop(name, [])
        for sync in syncs:
            self._end(sync)
        stream = self._port.streams.get(name)
        if stream is not None and stream.syncing and any(sync.first for sync in syncs):
            stream.syncing = False
            self._port.ask(stream, now, mono)
