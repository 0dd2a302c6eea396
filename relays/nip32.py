"""Labels (NIP-32, kind 1985): a word from a namespace about an event or a key. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from relays.error import MalformedEvent
from relays.event import Draft, Event, Tags
from relays.kind import LABEL


@dataclass(frozen=True, slots=True)
class Label:
    """One word of one namespace, with the targets and whatever else the event says."""

    namespace: str
    word: str
    raw: Event


def label_draft(namespace: str, word: str, tags: Sequence[tuple[str, ...]], content: str, created_at: int) -> Draft:
    """A label; `tags` hold its targets."""
    whole: Tags = (("L", namespace), ("l", word, namespace), *tags)
    return Draft(LABEL, content, whole, created_at)


def read_label(event: Event, namespace: str) -> Label:
    """The one word that the event gives in this namespace.

    Raises:
        MalformedEvent: it is no label, or does not give exactly one word in it.
    """
    if event.kind != LABEL or namespace not in event.values("L"):
        raise MalformedEvent("This is not a label of the namespace.")
    words = [tag[1] for tag in event.all("l") if len(tag) > 2 and tag[2] == namespace]
    if len(words) != 1:
        raise MalformedEvent("A label gives one word of its namespace.")
    return Label(namespace, words[0], event)
