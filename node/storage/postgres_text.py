"""Values on their way to PostgreSQL and back. Pure.

Its texts hold no NUL, and ours may: a stranger's words, a relay's reason. So NUL and the one character that stands for
it are written as two characters each, in a way that keeps the order of any two texts by their bytes.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from core.unit import Value
from node.storage.error import BadWrite

_MARK = "\x01"
_OUT = {0: "\x01\x01", 1: "\x01\x02"}


def written(text: str) -> str:
    """A text as the database holds it.

    Raises:
        BadWrite: it is not valid Unicode.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadWrite("A text is not valid Unicode.") from error
    if "\0" in text or _MARK in text:
        return text.translate(_OUT)
    return text


def is_plain(texts: Iterable[str]) -> bool:
    """Whether all of these stand in the database as they are. False for any that is not valid Unicode."""
    joined = "".join(texts)
    if not joined.isascii():
        try:
            joined.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in joined and _MARK not in joined


def bound(value: Value) -> Value:
    """A value as the driver takes it.

    Raises:
        BadWrite: a text is not valid Unicode.
    """
    return written(value) if isinstance(value, str) else value


def array(kind: str, number: int) -> str:
    """The parameter of this number, as an array of values of a type."""
    return f"${number}::text::bigint[]" if kind == "bigint" else f"${number}::{kind}[]"


def listed(kind: str, values: Sequence[Any]) -> Any:
    """What is bound to such a parameter. Numbers go as one text: the driver looks at each element of an array."""
    if kind != "bigint":
        return list(values)
    if None in values:
        return f"{{{','.join(['NULL' if value is None else int.__repr__(value) for value in values])}}}"
    return f"{{{','.join(map(int.__repr__, values))}}}"


def read(value: Any) -> Any:
    """A value as it was before `bound`."""
    if isinstance(value, str) and _MARK in value:
        return value.replace("\x01\x01", "\0").replace("\x01\x02", _MARK)
    return value


def picked(places: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the values at these places out of a row."""
    if len(places) > 1:
        return itemgetter(*places)
    return (lambda values: (values[places[0]],)) if places else (lambda _: ())
