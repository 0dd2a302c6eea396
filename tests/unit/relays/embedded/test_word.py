import pytest

from relays.embedded.word import Question, fit, has_phrases, question, text_of, words_in, words_of
from tests.unit.relays.embedded.event_part import note


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("Ärger über Café", ["arger", "uber", "cafe"]),
        ("snake_case and CamelCase", ["snake", "case", "and", "camelcase"]),
        ("日本語 text", ["日", "本", "語", "text"]),
        ("한국어", ["한", "국", "어"]),
        ("x" * 65 + " short", ["short"]),
        ("ﬁne", ["fine"]),
        ("\ue000k1 mark", ["k1", "mark"]),
        ("", []),
    ],
)
def test_a_text_is_cut_into_words(text, words):
    assert words_in(text) == words


def test_no_word_of_a_text_holds_a_private_character():
    assert not any("\ue000" in word for word in words_in("\ue000k1 a\ue000b \ue000"))


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        ("best Kiwi", Question(("best", "kiwi"))),
        ("kiwi kiwi", Question(("kiwi",))),
        ('the "green kiwi" tree', Question(("the", "green", "kiwi", "tree"), ("green kiwi",))),
        ('"alone"', Question(("alone",))),
        ("kiwi language:en include:spam", Question(("kiwi",))),
        ("https://example.com/kiwi", Question(("https", "example", "com", "kiwi"))),
        ("language:en", None),
        ("?!", Question(())),
    ],
)
def test_a_search_is_words_and_phrases_and_its_extensions_are_ignored(search, asked):
    assert question(search) == asked


def test_a_search_has_a_bounded_number_of_words():
    assert len(question(" ".join(f"w{n}" for n in range(1_000))).words) == 16


@pytest.mark.parametrize("kind", [4, 1059, 13, 7375])
def test_sealed_events_have_no_words(kind):
    assert words_of(note(kind=kind, content="cipher text")) == []


def test_spoken_tags_are_searched_and_other_tags_are_not():
    event = note(content="body", with_tags=[("title", "Head"), ("t", "topic"), ("client", "hidden")])
    assert text_of(event).split() == ["Head", "topic", "body"]


def test_more_often_shorter_and_together_fit_better():
    assert fit(600, [3], False) > fit(600, [1], False) == fit(600, [0], False)
    assert fit(300, [1], False) > fit(3_000, [1], False)
    assert fit(600, [1, 1], True) > fit(600, [1, 1], False)


def test_a_phrase_stands_as_it_is_but_for_case_accents_and_punctuation():
    event = note(content="A gréen,\nKIWI tree")
    assert has_phrases(event, Question((), ("green kiwi",)))
    assert not has_phrases(event, Question((), ("kiwi green",)))
    assert not has_phrases(event, Question((), ("reen kiwi",)))
