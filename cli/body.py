"""What a command is given to hand over: text, `@FILE`, or `-` for standard input; whole, or in pieces as it is read."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.error import InvalidInput

_PIECE = 65_536


def body_bytes(text: str) -> bytes:
    """The whole of a body.

    Raises:
        InvalidInput: the file cannot be read.
    """
    if text != "-" and not text.startswith("@"):
        return text.encode()
    return b"".join(body_pieces(text))


def body_text(text: str) -> str:
    """The whole of a body, as text.

    Raises:
        InvalidInput: the file cannot be read, or is not UTF-8 text.
    """
    try:
        return body_bytes(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("The body is not UTF-8 text.") from error


def body_pieces(text: str) -> Iterator[bytes]:
    """A body a piece at a time, as it is read. A file is opened at once, so that one that is not there says so first.

    Raises:
        InvalidInput: the file cannot be read.
    """
    if text == "-":
        return _pieces(sys.stdin.buffer, "standard input")
    if not text.startswith("@"):
        return iter([text.encode()])
    try:
        return _closed(Path(text[1:]).open("rb"), text[1:])
    except OSError as error:
        raise InvalidInput(f"{text[1:]} cannot be read: {error.strerror}.") from error


def _closed(file: BinaryIO, name: str) -> Iterator[bytes]:
    with file:
        yield from _pieces(file, name)


def _pieces(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while piece := file.read(_PIECE):
            yield piece
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}.") from error
