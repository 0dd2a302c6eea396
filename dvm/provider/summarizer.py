"""Kind 5001: extractive summaries. A graph ranks the sentences; the best are given back verbatim, in their order.

The ranking is LexRank (Erkan and Radev, 2004) as sumy has it: centrality in the graph of sentences that share words,
weighted by how rare those are. Sentences are split by NLTK's Punkt algorithm (Kiss and Strunk, 2006) with abbreviations
given here, so that nothing is downloaded at run time. Works best for English.
"""

import asyncio
import re
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Any

from core.error import InvalidInput
from dvm.acceptance import SUMMARIZE, param
from dvm.error import ProviderFailed
from dvm.provider.provider import Answer, only_text
from dvm.request import ComputeRequest

MAX_TEXT_BYTES = 32_768
MAX_SENTENCES = 250  # every pair is compared
MIN_SENTENCES = 2
DEFAULT_SHARE = 4  # one sentence in so many
DEFAULT_MOST = 5
PER_PARAGRAPH = 3
_LENGTH = re.compile(r"(\d{1,5})\s*(words?|paragraphs?|sentences?)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_][^\W_]*(?:['’-][^\W_]+)*")
_BREAK = re.compile(r"\n\s*\n")
_SHORT = (
    "dr mr mrs ms prof rev gen col lt sgt capt st jr sr vs etc inc ltd co corp dept no vol fig eq al approx ca cf "
    "e.g i.e a.m p.m u.s u.k u.n ph.d m.d b.a m.a d.c jan feb mar apr jun jul aug sep sept oct nov dec"
)
_ABBREVIATIONS = frozenset(_SHORT.split())


@dataclass(frozen=True, slots=True)
class Length:
    """How long the summary may be; None is no bound."""

    sentences: int | None = None
    words: int | None = None
    paragraphs: int | None = None


class Summarizer:
    """Summarises text.

    Args:
        executor: where the ranking runs; processes keep the event loop free.
    """

    name = "summarizer"
    kinds = frozenset({SUMMARIZE})

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def check(self, request: ComputeRequest) -> None:
        """Text of bearable size with at least two sentences' worth of words, and a `length` that makes sense.

        Raises:
            InvalidInput: otherwise.
        """
        text = only_text(request)
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise InvalidInput(f"The text has more than {MAX_TEXT_BYTES} bytes.")
        parse_length(param(request, "length"))

    async def run(self, request: ComputeRequest) -> Answer:
        """The summary.

        Raises:
            InvalidInput: the request cannot be served.
            ProviderFailed: the text has too few sentences to leave any out.
        """
        self.check(request)
        length = parse_length(param(request, "length"))
        loop = asyncio.get_running_loop()
        summary = await loop.run_in_executor(self._executor, summarize, only_text(request), length)
        if not summary:
            raise ProviderFailed("The text has too few sentences to be summarised.")
        return Answer(summary)


def parse_length(text: str) -> Length:
    """`param length`: "N words", "N sentences" or "N paragraphs".

    Raises:
        InvalidInput: something else.
    """
    if not text.strip():
        return Length()
    match = _LENGTH.fullmatch(text.strip())
    if match is None or int(match[1]) < 1:
        raise InvalidInput('param length is "N words", "N sentences" or "N paragraphs".')
    number, unit = int(match[1]), match[2].lower().rstrip("s")
    return Length(
        sentences=number if unit == "sentence" else None,
        words=number if unit == "word" else None,
        paragraphs=number if unit == "paragraph" else None,
    )


class _Tokenizer:
    """What sumy asks of a tokenizer, without data that would have to be fetched."""

    language = "english"

    def __init__(self) -> None:
        from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

        parameters = PunktParameters()
        parameters.abbrev_types.update(_ABBREVIATIONS)
        self._punkt: Any = PunktSentenceTokenizer(parameters)

    def to_sentences(self, paragraph: str) -> tuple[str, ...]:
        """The sentences of one paragraph, each as it stands."""
        return tuple(text.strip() for text in self._punkt.tokenize(paragraph) if text.strip())

    def to_words(self, sentence: str) -> tuple[str, ...]:
        """The words of one sentence."""
        return tuple(_WORD.findall(sentence))


@cache
def _tools() -> tuple[_Tokenizer, Any]:
    """Tokenizer and ranker; made once per worker, because importing them takes most of a second."""
    from sumy.nlp.stemmers import Stemmer
    from sumy.summarizers.lex_rank import LexRankSummarizer
    from sumy.utils import get_stop_words

    ranker = LexRankSummarizer(Stemmer("english"))
    ranker.stop_words = get_stop_words("english")
    return _Tokenizer(), ranker


def sentences_of(text: str) -> list[list[str]]:
    """The sentences of a text, per paragraph, each verbatim but for line breaks inside it."""
    tokenizer, _ = _tools()
    found = []
    for block in _BREAK.split(text):
        flat = " ".join(block.split())
        kept = [one for one in tokenizer.to_sentences(flat) if len(tokenizer.to_words(one)) > 2]
        if kept:
            found.append(kept)
    return found


def summarize(text: str, length: Length) -> str:
    """The best sentences in their order, one paragraph per paragraph they come from; empty if none can be left out.

    Runs in another process or thread: plain data in, plain data out.
    """
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence

    tokenizer, ranker = _tools()
    blocks = sentences_of(text)
    flat = [(number, one) for number, block in enumerate(blocks) for one in block][:MAX_SENTENCES]
    if len(flat) < MIN_SENTENCES:
        return ""
    document = ObjectDocumentModel([Paragraph([Sentence(one, tokenizer) for _, one in flat])])
    places: list[int] = []

    def take(ranked: Any) -> Any:  # sumy hands the sentences over best first, then puts them back in order
        places.extend(item.order for item in ranked)
        return ranked

    ranker(document, take)
    lines: dict[int, list[str]] = {}
    for place in sorted(_cut(places, flat, length)):
        number, one = flat[place]
        lines.setdefault(number, []).append(one)
    summary = "\n\n".join(" ".join(block) for block in lines.values())
    return summary if len(summary) < len(text.strip()) else ""


def _cut(places: list[int], flat: list[tuple[int, str]], length: Length) -> list[int]:
    """The best places that fit the length; always at least one, never all."""
    most = len(flat) - 1
    if length.sentences is not None:
        return places[: min(length.sentences, most)]
    if length.words is None and length.paragraphs is None:
        return places[: min(DEFAULT_MOST, most, max(1, len(flat) // DEFAULT_SHARE))]
    chosen: list[int] = []
    words = 0
    used: Counter[int] = Counter()
    for place in places[:most]:
        number, one = flat[place]
        words_here = len(one.split())
        if length.words is not None and chosen and words + words_here > length.words:
            continue
        if length.paragraphs is not None and not used[number] and len(used) >= length.paragraphs:
            continue
        if length.paragraphs is not None and used[number] >= PER_PARAGRAPH:
            continue
        chosen.append(place)
        used[number] += 1
        words += words_here
    return chosen
