import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.error import InvalidInput
from dvm.acceptance import check_result
from dvm.error import ProviderFailed
from dvm.provider.summarizer import Length, Summarizer, parse_length, sentences_of, summarize
from dvm.request import ComputeRequest, Datum
from tests.unit.dvm.provider.text_part import TEXT


def ask(text: str = TEXT, **params: str) -> ComputeRequest:
    return ComputeRequest(5001, (Datum(text),), tuple(params.items()))


@pytest.fixture
def summarizer():
    with ThreadPoolExecutor(1) as executor:
        yield Summarizer(executor)


def flat(text: str) -> str:
    return " ".join(text.split())


async def test_a_summary_is_shorter_and_every_sentence_stands_in_the_text(summarizer: Summarizer) -> None:
    answer = await summarizer.run(ask())
    check_result(ask(), answer.content)
    sentences = [one for block in sentences_of(answer.content) for one in block]
    assert sentences
    assert all(one in flat(TEXT) for one in sentences)


async def test_the_sentences_keep_the_order_of_the_text(summarizer: Summarizer) -> None:
    answer = await summarizer.run(ask(length="4 sentences"))
    places = [flat(TEXT).index(one) for block in sentences_of(answer.content) for one in block]
    assert len(places) == 4
    assert places == sorted(places)


def test_abbreviations_do_not_end_a_sentence() -> None:
    first = sentences_of(TEXT)[0]
    assert any(one.startswith("Dr. Ellen Marsh") and one.endswith("frost.") for one in first)
    assert len(first) == 3


def test_a_length_in_words_is_kept() -> None:
    summary = summarize(TEXT, Length(words=45))
    assert 0 < len(summary.split()) <= 45


def test_a_length_in_paragraphs_is_kept() -> None:
    assert len(summarize(TEXT, Length(paragraphs=2)).split("\n\n")) == 2


def test_a_length_above_the_text_still_leaves_something_out() -> None:
    assert len(summarize(TEXT, Length(sentences=500))) < len(TEXT)


def test_the_same_text_gives_the_same_summary() -> None:
    assert summarize(TEXT, Length()) == summarize(TEXT, Length())


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*args: object) -> None:
        raise AssertionError("the summarizer opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no)
    assert summarize(TEXT, Length())


@pytest.mark.parametrize("length", ["ten words", "0 words", "5 pages", "5", "-1 words"])
def test_a_length_that_makes_no_sense_is_refused(length: str) -> None:
    with pytest.raises(InvalidInput):
        parse_length(length)


def test_inputs_that_would_have_to_be_fetched_are_refused(summarizer: Summarizer) -> None:
    with pytest.raises(InvalidInput):
        summarizer.check(ComputeRequest(5001, (Datum("http://127.0.0.1/", "url"),)))


def test_a_text_over_the_limit_is_refused_before_any_work(summarizer: Summarizer) -> None:
    with pytest.raises(InvalidInput):
        summarizer.check(ask("word " * 10_000))


async def test_one_sentence_cannot_be_summarised(summarizer: Summarizer) -> None:
    with pytest.raises(ProviderFailed):
        await summarizer.run(ask("There is just this one sentence here."))


async def test_the_longest_text_takes_seconds_and_not_minutes(summarizer: Summarizer) -> None:
    words = TEXT.split()
    text = " ".join(words[n % len(words)] for n in range(5_600))[:32_000]
    answer = await asyncio.wait_for(summarizer.run(ask(text)), 20)
    assert len(answer.content) < len(text)
