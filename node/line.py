"""A line of the log. Foreign words in it steer no terminal and look like no further line; no secret is in it. Pure."""

import logging
from collections.abc import Iterable

from node.gate.redaction import scrub

FORM = "%(asctime)s %(levelname)s %(name)s %(message)s"


def plain(text: str, keep: str = "") -> str:
    """The text with every character that is not printable as an escape, but for those to keep."""
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class LineFormatter(logging.Formatter):
    """Formats records for standard error. `known` are secrets that are found by value."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        super().__init__(FORM)
        self._known = tuple(known)

    def hide(self, secrets: Iterable[str]) -> None:
        """Know these as well."""
        fresh = dict.fromkeys(secret for secret in secrets if secret not in self._known)
        if fresh:
            self._known = tuple(sorted((*self._known, *fresh), key=len, reverse=True))  # one may be part of another

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        record.message = plain(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """The whole, with the traceback if there is one."""
        return scrub(plain(super().format(record), "\n\t"), self._known)


def hide(secrets: Iterable[str]) -> None:
    """Have no line of this process's log show these, from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LineFormatter):
            handler.formatter.hide(secrets)
