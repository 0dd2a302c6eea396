"""One subscription, and its state at one relay: what to ask, where to resume, whether all was read. Pure.

`high` moves only when everything below it was handled: while a walk is under way, while events wait for their
handler, or after one had to be dropped, it stays, so that a crash or a lost connection asks again from the old place.
"""

from dataclasses import dataclass, replace

from relays.filter import DEFAULT_LIMIT, Filter
from relays.paging import CatchUp

OVERLAP_S = 60
BACKDATE_S = 2 * 86_400 + 3_600  # gift wraps are dated up to two days back (NIP-59)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted. The name is stable over restarts.

    Attributes:
        backdated: the events are dated up to two days back (gift wraps).
        durable: a cursor is kept under the name in the database.
        owner: the subscription whose handler gets the events, if that is not the one of this name.
        live: what is stored is known already, or is read by other means: ask for what comes from now on.
        passing: it ends when all was read.
        checking: it looks for what live delivery should have brought.
        relays: the only relays that it is for; None for all of the node's own.
    """

    name: str
    filters: tuple[Filter, ...]
    backdated: bool = False
    durable: bool = True
    owner: str = ""
    live: bool = False
    passing: bool = False
    checking: bool = False
    relays: frozenset[str] | None = None

    @property
    def delivery(self) -> str:
        """The name of the subscription whose handler gets the events."""
        return self.owner or self.name


def resumed(spec: Spec, high: int | None, now: int, *, live: bool = False) -> tuple[Filter, ...]:
    """The filters to ask with: at first as they are; later from just before where reading had come to, unlimited.

    With `live` they let the same events through, but ask for hardly any of those that are stored.
    """
    if high is None:
        return spec.filters
    since = resume_point(spec, high, now)
    limit = 1 if live else DEFAULT_LIMIT
    return tuple(replace(one, since=max(one.since, since), limit=limit) for one in spec.filters)


def resume_point(spec: Spec, high: int, now: int) -> int:
    """The `since` from which reading resumes, in Unix seconds."""
    return max(0, min(now, high) - (BACKDATE_S if spec.backdated else OVERLAP_S))


class Stream:
    """A subscription at one relay.

    Attributes:
        high: the greatest verified created_at (never later than our clock) below which all was read; None at first.
        sub_id: the id of the open REQ on this connection.
        page_id: the id of the REQ whose answer the walk reads now; the same as `sub_id` for the first page.
        whole: all that was stored has been read on this connection.
        got: verified events that came since it was asked.
        found: those of them that live delivery should have brought, if this one looks for such.
        checked_at: Unix seconds until when it is known that live delivery missed nothing.
        hole: a second with more events than the relay gives in one answer; only comparing (NIP-77) finds the rest.
        missed: an event was dropped because too many waited; the walk must begin again.
        retry_at: monotonic seconds at which to ask again after a CLOSED.
        parked: it waits for authentication, of the keys in `awaits`.
        queued: it waits until the relay may be asked for one more subscription.
        syncing: what is stored is being compared (NIP-77), so that EOSE does not mean that all was read.
        stopped: the relay's reason for never serving it on this connection.
    """

    __slots__ = (
        "asked_at",
        "asked_mono",
        "authenticated",
        "awaits",
        "checked_at",
        "closes",
        "found",
        "got",
        "high",
        "hole",
        "missed",
        "page_id",
        "parked",
        "peak",
        "queued",
        "retry_at",
        "spec",
        "stopped",
        "sub_id",
        "syncing",
        "walk",
        "whole",
    )

    def __init__(self, spec: Spec, high: int | None) -> None:
        self.spec = spec
        self.high = high
        self.closes = 0
        self.reset()

    def reset(self) -> None:
        """The connection is gone; nothing is open."""
        self.sub_id = self.page_id = ""
        self.walk: CatchUp | None = None
        self.whole = self.missed = self.parked = self.authenticated = self.queued = self.syncing = False
        self.awaits: frozenset[str] = frozenset()
        self.retry_at: float | None = None
        self.stopped = ""
        self.hole: int | None = None
        self.asked_at = self.peak = self.got = self.found = self.checked_at = 0
        self.asked_mono = 0.0

    def begin(self, sub_id: str, now: int, mono: float, *, live: bool = False) -> tuple[Filter, ...]:
        """Open under a fresh id; returns the filters of the REQ."""
        filters = resumed(self.spec, self.high, now, live=live)
        pageable = [one for one in filters if one.limit == DEFAULT_LIMIT]
        self.walk = CatchUp(filters, pageable)
        self.sub_id = self.page_id = sub_id
        self.whole = self.missed = self.parked = self.queued = False
        self.retry_at = None
        self.asked_at, self.asked_mono = now, mono
        self.checked_at = now
        self.got = self.found = 0
        self.peak = self.high or 0
        return filters

    def note(self, sub_id: str, created_at: int, now: int, *, handled: bool = True) -> None:
        """A verified event that matched was handled (now or before), or its handler failed."""
        if sub_id not in (self.sub_id, self.page_id):
            return  # of a REQ that is no longer open: its walk begins again anyway
        self.got += 1
        if handled:
            self.peak = max(self.peak, min(created_at, now))
        if not self.whole and self.walk is not None and sub_id == self.page_id:
            self.walk.note(created_at)

    def settle(self) -> None:
        """Nothing waits any more of what this relay sent: the cursor may follow."""
        if self.whole and not self.missed:
            self.high = max(self.high or 0, self.peak)

    def turn(self, finished: bool | None) -> Filter | None:
        """The open page ended; the filter of the next one, or None when all was read."""
        assert self.walk is not None
        following = self.walk.turn(finished)
        if following is None and not self.syncing:
            self.finish()
        return following

    def finish(self) -> None:
        """All that was stored has been read."""
        self.whole, self.syncing = True, False
        if self.walk is not None and self.walk.hole is not None:
            self.hole, self.checked_at = self.walk.hole, 0
        if not self.missed:
            # Only if nothing was there does the moment of asking count: an event that was made before it may
            # be published after it, by an outbox whose relay was away
            self.high = self.peak or self.asked_at
