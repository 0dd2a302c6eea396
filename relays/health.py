"""What is known about one relay: counters since the start, for status pages and for choosing relays."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RelayHealth:
    """One relay as we have found it.

    Attributes:
        url: its address in canonical form.
        up: whether it is connected now.
        since: Unix seconds of the last change of `up`; 0 before the first.
        connects: connections that came about.
        failures: tries in a row without a connection that lived for 30 s.
        received: verified events that were handed to a handler.
        duplicates: events that were handled before.
        forged: events whose id or signature was wrong.
        malformed: frames and events that are none, or are too long.
        off_filter: verified events that nobody had asked for.
        future: verified events dated too far ahead of our clock.
        unasked: events under an unknown or closed subscription id.
        dropped: events that found the queue full; they are asked for again.
        handler_errors: events whose handler failed.
        notices: NOTICEs, which change nothing.
        in_flight: published events whose OK is awaited.
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
    forged: int = 0
    malformed: int = 0
    off_filter: int = 0
    future: int = 0
    unasked: int = 0
    dropped: int = 0
    handler_errors: int = 0
    notices: int = 0
    in_flight: int = 0
    last_error: str = ""
    stopped: dict[str, str] = field(default_factory=dict)
