"""Signed events for tests, cheap to write."""

from collections.abc import Iterable, Sequence

from relays.event import Draft, Event, tags
from relays.key import Key

ALICE, BOB = Key(b"\1" * 32), Key(b"\2" * 32)
NOW = 1_700_000_000


def note(
    author: Key = ALICE, kind: int = 1, content: str = "", at: int = NOW, with_tags: Iterable[Sequence[str]] = ()
) -> Event:
    return author.sign(Draft(kind, content, tags(with_tags), at))


def tied(author: Key = ALICE, kind: int = 1, at: int = NOW, with_tags: Iterable[Sequence[str]] = ()) -> list[Event]:
    """Four events of one second, by rising id."""
    drafts = [note(author, kind, f"tie {number}", at, with_tags) for number in range(4)]
    return sorted(drafts, key=lambda event: event.id)
