"""Words: how a text and a search (NIP-50) are cut into the same ones, and how well a text fits. Pure.

A word is a run of letters and digits, in lower case and without accents; where people write without blanks (Chinese,
Japanese, Korean), every character is one.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from relays.event import Event

MAX_WORDS = 16
_MAX_CHARS = 64  # longer runs are data, not words
_MAX_PER_TEXT = 2_000
_MAX_TEXT = 65_536
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_PHRASE = re.compile(r'"([^"]*)"')
_OPTION = re.compile(r"(?<!\S)[A-Za-z][A-Za-z_-]*:(?!//)\S+")  # NIP-50's extensions, `name:value`
_SPOKEN = frozenset(("title", "subject", "summary", "name", "description", "alt", "t"))  # tags that hold words
# What they hold is sealed: there are no words in it (NIP-04, NIP-59, NIP-60).
_SEALED = frozenset((4, 13, 1059, 1060, 7374, 7375, 7376, 17375))
_EVEN = 900  # characters of an event of usual length


@dataclass(frozen=True, slots=True)
class Question:
    """What was searched for. All words must be there, and each phrase as it stands."""

    words: tuple[str, ...]
    phrases: tuple[str, ...] = ()


def folded(text: str) -> str:
    """In lower case and without accents."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text[:_MAX_TEXT])
    # Hangul comes apart into pieces that are letters; put together again they are characters.
    return unicodedata.normalize("NFC", "".join(one for one in apart if not unicodedata.combining(one))).lower()


def words_in(text: str) -> list[str]:
    """Its words, in order, with repeats."""
    return [word for word in _WORD.findall(folded(text[:_MAX_TEXT])) if len(word) <= _MAX_CHARS]


def text_of(event: Event) -> str:
    """What a person would search in an event; empty if it is sealed."""
    if event.kind in _SEALED:
        return ""
    spoken = [tag[1] for tag in event.tags if len(tag) > 1 and tag[0] in _SPOKEN]
    return "\n".join((*spoken, event.content))


def words_of(event: Event) -> list[str]:
    """The different words of an event, at most a few thousand, in an order that is always the same."""
    return list(dict.fromkeys(words_in(text_of(event))))[:_MAX_PER_TEXT]


def question(search: str) -> Question | None:
    """What the `search` of a filter asks for; None if it holds nothing but extensions, which may be ignored."""
    plain = _OPTION.sub(" ", search)
    words = tuple(dict.fromkeys(words_in(plain)))[:MAX_WORDS]
    if not words and plain.strip() == "" and search.strip():
        return None
    phrases = tuple(" ".join(words_in(phrase)) for phrase in _PHRASE.findall(plain))
    return Question(words, tuple(phrase for phrase in phrases if " " in phrase))


def fit(length: int, times: Sequence[int], together: bool) -> float:
    """How well a text fits: words that come often in a short text count most, and words that stand together.

    Args:
        length: of the event's JSON, in characters.
        times: how often each word comes in it; what is escaped in JSON may be seen as 0.
        together: whether the words stand there as they were asked for.
    """
    weight = 0.5 + 0.5 * length / _EVEN
    return sum(max(1, one) / (max(1, one) + weight) for one in times) + (0.5 if together else 0.0)


def has_phrases(event: Event, asked: Question) -> bool:
    """Whether every phrase is in it as it stands, but for case, accents and punctuation."""
    joined = " ".join(words_in(text_of(event)))
    return all(f" {phrase} " in f" {joined} " for phrase in asked.phrases)
