"""What is known about one relay: counters since the start, for status pages and for choosing relays."""

from dataclasses import dataclass, field

from relays.delay import Delay


@dataclass(slots=True)
class RelayHealth:
    """One relay as we have found it. With several sockets to one relay, sums over all of them.

    Attributes:
        url: its address in canonical form.
        up: whether it is connected now.
        since: Unix seconds of the last change of `up`; 0 before the first.
        connects: connections that came about.
        failures: tries in a row without a connection that lived for 30 s.
        received: verified events that were handed to a handler.
        duplicates: events that were handled before.
        missed: events that live delivery should have brought and did not; they were found by looking again.
        forged: events whose id or signature was wrong.
        malformed: frames and events that are none, or are too long.
        off_filter: verified events that nobody had asked for.
        future: verified events dated too far ahead of our clock.
        unasked: events under an unknown or closed subscription id.
        dropped: events that found the queue full; they are asked for again.
        handler_errors: events whose handler failed.
        notices: NOTICEs, which change nothing.
        in_flight: published events whose OK is awaited.
        bytes_in: bytes of all messages from the relay.
        bytes_out: bytes of all messages to it.
        requests: REQs that are open.
        queued: subscriptions that wait since the relay serves no more at a time.
        sockets: connections that are open.
        authenticated: keys that the relay takes us for.
        refused_keys: keys that it did not take.
        delay: from an event's date to its arrival, of live events that are not backdated, in seconds.
        round_trip: from sending an event to its OK, in seconds.
        last_error: why the last connection ended or failed.
        stopped: subscriptions that the relay will not serve, with its reasons.
    """

    url: str
    up: bool = False
    since: int = 0
    connects: int = 0
    failures: int = 0
    received: int = 0
    duplicates: int = 0
    missed: int = 0
    forged: int = 0
    malformed: int = 0
    off_filter: int = 0
    future: int = 0
    unasked: int = 0
    dropped: int = 0
    handler_errors: int = 0
    notices: int = 0
    in_flight: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    queued: int = 0
    sockets: int = 0
    authenticated: int = 0
    refused_keys: int = 0
    delay: Delay = field(default_factory=Delay)
    round_trip: Delay = field(default_factory=Delay)
    last_error: str = ""
    stopped: dict[str, str] = field(default_factory=dict)

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return max(0, self.connects - 1)


_COUNTERS = (
    "connects", "received", "duplicates", "missed", "forged", "malformed", "off_filter", "future", "unasked",
    "dropped", "handler_errors", "notices", "in_flight", "bytes_in", "bytes_out", "requests", "queued", "sockets",
    "authenticated", "refused_keys",
)  # fmt: skip


def absorb(whole: RelayHealth, part: RelayHealth) -> None:
    """Add the counters of another socket to the same relay."""
    for name in _COUNTERS:
        setattr(whole, name, getattr(whole, name) + getattr(part, name))
