"""Backup of the events as JSON lines, and back: `vendo relay export` and `vendo relay import`.

An export reads a snapshot page by page while the relay runs; events that come or go meanwhile may be in it or not. An
import needs the file for itself. It verifies every event, so it takes files from anywhere; what is stored already is
passed over, so it can be repeated; deletions (NIP-09) and requests to vanish (NIP-62) do what they say, in any order.
"""

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from relays.embedded.error import EventFileFailed, NewerEventFile
from relays.embedded.store_query import EventReader
from relays.embedded.store_schema import VERSION, claim, connect, failing_as_file, hashing, prepare
from relays.embedded.store_write import Entry, EventWriter
from relays.embedded.trait import expiry, is_ephemeral
from relays.error import ForgedEvent, MalformedEvent
from relays.event import MAX_EVENT_BYTES, Event, parse, verify
from relays.kind import CLIENT_AUTH

_PAGE = 500
_MAX_LINE = 4 * MAX_EVENT_BYTES  # an escaped event may be longer than the relay writes it
_CHECKPOINT_EVERY = 20  # groups
_WORST_SHOWN = 10


@dataclass(slots=True)
class Report:
    """What became of an import's lines.

    Attributes:
        read: lines that were not blank.
        stored: new events.
        known: events that were there already, or in a newer version.
        refused: why others were not taken → how many.
        first: the first faults, as (line, reason).
    """

    read: int = 0
    stored: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, reason: str) -> None:
        """One line was not taken."""
        self.refused[reason] += 1
        if len(self.first) < _WORST_SHOWN:
            self.first.append((line, reason))

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        faults = [{"line": line, "reason": reason} for line, reason in self.first]
        return {
            "read": self.read, "stored": self.stored, "known": self.known, "refused": dict(self.refused),
            "first_refused": faults,
        }  # fmt: skip


def exported(path: Path, now: int) -> Generator[bytes, None, None]:
    """Every stored event as its JSON, without line ends, in the order in which they were stored.

    Args:
        path: the event file; a relay may be serving it.
        now: Unix seconds; what has expired is left out.

    Raises:
        EventFileFailed: there is no such file, or SQLite cannot read it.
        NewerEventFile: a newer version wrote it.
    """
    if not path.exists():
        raise EventFileFailed(f"There is no event file {path}.")
    with ExitStack() as opened:
        with failing_as_file("opening"):
            db = connect(path)
            opened.callback(db.close)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise NewerEventFile(f"{path.name} has version {version}; this program knows {VERSION}.")
            if version < VERSION:
                raise EventFileFailed(f"{path.name} has the old version {version}: start the relay once to update it.")
            reader = EventReader(path, hashing(db), frozenset, lambda: True)
            opened.callback(reader.close)
        at = 0
        while page := reader.after(at, _PAGE, now):
            for _, raw in page:
                yield raw
            at = page[-1][0]


def import_events(path: Path, lines: Iterable[bytes], store_bytes: int, urls: Collection[str], now: int) -> Report:
    """Verify and store events, one JSON object a line. What is reported stored is on the disk.

    Args:
        path: the event file; made if it is missing. No relay may be serving it.
        lines: the events.
        store_bytes: greatest size of the file.
        urls: the relay's own addresses, canonical; requests to vanish that name one of them are obeyed.
        now: Unix seconds; what has expired is refused.

    Raises:
        RelayBusy: a relay serves the file.
        NewerEventFile: a newer version wrote it.
        EventFileFailed: SQLite failed, or the file is full; groups before that one are stored.
    """
    report = Report()
    with ExitStack() as opened, failing_as_file("importing"):
        claim(path, opened)
        db = connect(path, cache_kib=65_536, write=True)
        opened.callback(db.close)
        writer = EventWriter(db, prepare(db, path, store_bytes))
        writer.urls = frozenset(urls)
        for number, group in enumerate(_groups(lines, now, report), 1):
            for entry, outcome in zip(group, writer.commit(group), strict=True):
                if outcome.seq is not None:
                    report.stored += 1
                elif outcome.accepted:
                    report.known += 1
                else:
                    report.refuse(entry.origin, outcome.reason)
            if number % _CHECKPOINT_EVERY == 0:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return report


def _groups(lines: Iterable[bytes], now: int, report: Report) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        report.read += 1
        reason = ""
        try:
            event = _genuine(text)
            reason = _unfit(event, now)
        except (MalformedEvent, ForgedEvent) as error:
            reason = f"invalid: {error.message}"
        if reason:
            report.refuse(number, reason)
            continue
        group.append(Entry(event, event.to_json().encode(), number))
        if len(group) == _PAGE:
            yield group
            group = []
    if group:
        yield group


def _genuine(text: bytes) -> Event:
    if len(text) > _MAX_LINE:
        raise MalformedEvent(f"The line is longer than {_MAX_LINE} bytes.")
    try:
        event = parse(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The line is not JSON.") from error
    verify(event)
    return event


def _unfit(event: Event, now: int) -> str:
    if is_ephemeral(event.kind) or event.kind == CLIENT_AUTH:
        return "invalid: events of this kind are not stored"
    expires = expiry(event)
    return "invalid: the event has expired" if expires is not None and expires <= now else ""
