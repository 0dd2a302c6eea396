import logging

import pytest

from node.line import LineFormatter

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"


def line(message: str, *parts: object, known: tuple[str, ...] = (), error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("relays.pool", logging.INFO, __file__, 1, message, parts, info)
    return LineFormatter(known).format(record)


@pytest.mark.parametrize("word", ["a\nb", "a\r\x1b[2Jb", "a\x9bb", "a\u2028b", "a\u202eb", "a\x00b"])
def test_a_relays_words_can_neither_end_a_line_nor_steer_the_terminal(word: str) -> None:
    text = line("%s refused an event", word)
    assert text.isprintable()
    assert text.endswith(" refused an event")


def test_secrets_are_taken_out_by_value_and_by_form() -> None:
    text = line("%s and %s", WORDS, "cashuBo2FteBdodHRwczovL21pbnQ", known=(WORDS,))
    assert "sausage" not in text
    assert "cashuB" not in text


def test_a_traceback_keeps_its_lines_and_loses_the_secrets_in_it() -> None:
    try:
        raise ValueError("the token is s3cr3t-token\x1b[0m")
    except ValueError as error:
        text = line("it broke", known=("s3cr3t-token",), error=error)
    assert "Traceback" in text
    assert text.count("\n") >= 3
    assert "s3cr3t" not in text
    assert "\x1b" not in text


def test_ordinary_lines_stay_as_they_are() -> None:
    assert line("Connected to %s", "wss://relay.example").endswith(" INFO relays.pool Connected to wss://relay.example")
