"""A stream that is followed through breaks: a node that was started again is found, and asked from the last id on."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.client import Client, NotRunning
from cli.output import NodeRefusal, Problem
from cli.wire import END, StreamRecord

_FIRST_S, _LAST_S = 0.25, 5.0
_IDLE_S = 60.0  # four times what the node lets pass between two signs of life
_LATER = (429, 502, 503, 504)
_STEADY_S = 10.0
_BREAKS = ("shutdown", "too_slow")  # ends of this connection, and not of the stream


def follow(
    home: Path,
    path: str,
    after: int | str | None,
    patience_s: float,
    tell: Callable[[str], None],
    *,
    has_answered: bool = False,
) -> Iterator[StreamRecord]:
    """Records of a stream until it ends, each once, over any number of connections.

    Args:
        home: of the node; it may listen elsewhere after it was started again.
        path: the stream.
        after: the cursor; None is from now on.
        patience_s: how long a node that has gone is waited for; 0 is not at all.
        tell: is told that the node has gone, and that it is back.
        has_answered: it ran a moment ago: it is waited for also if it has gone before the stream began.

    Raises:
        NotRunning: it runs not, or has not come back in time.
        NodeRefusal: it answers that it will not, or what the stream is read from has failed.
    """
    pause = _FIRST_S
    try:
        stream = Client.open(home).watch(path, after, _IDLE_S)
    except NotRunning:
        if not (has_answered and patience_s):
            raise
        stream, pause = _again(home, path, after, patience_s, pause)
    while True:
        began, problem = time.monotonic(), NotRunning("The stream broke off.", remedy="See: vendo doctor")
        try:
            for record in stream:
                if record.type == END:
                    if record.told("reason") in _BREAKS:
                        break
                    yield _whole(record)
                    return
                pause, after = _FIRST_S, record.id or after
                yield record
        except NotRunning as error:
            problem = error
        if time.monotonic() - began > _STEADY_S:
            pause = _FIRST_S
        if not patience_s:
            raise problem
        tell("The stream broke off; it goes on where it was as soon as the node answers.")
        stream, pause = _again(home, path, after, patience_s, pause)
        tell("It goes on.")


def _whole(record: StreamRecord) -> StreamRecord:
    """The end of a stream, if it is one of all that there is."""
    if record.told("reason") == "error":
        code = record.told("code") or "http.error"
        raise NodeRefusal(Problem(code, "What the stream is read from has failed.", "", "Watch it again.", 503))
    return record


def _again(
    home: Path, path: str, after: int | str | None, patience_s: float, pause: float
) -> tuple[Iterator[StreamRecord], float]:
    """The stream on a new connection, and how long to wait before the next one."""
    until = time.monotonic() + patience_s
    while True:
        time.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(2 * pause, _LAST_S)
        try:
            return Client.open(home).watch(path, after, _IDLE_S), pause
        except NotRunning:
            if time.monotonic() >= until:
                raise
        except NodeRefusal as error:
            if error.problem.status not in _LATER or time.monotonic() >= until:
                raise
