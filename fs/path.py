"""Names of files: strict, and decoded once (DESIGN §4, issue 5). Pure.

A path is `/` or `/`-separated names. What is refused here never reaches a service, so no service has to think of
`..`, of percent signs, of control characters, or of two spellings of one name.
"""

import re
import unicodedata
from functools import lru_cache

from fs.error import BadPath

MAX_PATH = 1_024
MAX_NAME = 255
_URL_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]*")  # RFC 3986, 3.3
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _check_name(name: str) -> None:
    if not name:
        raise BadPath("The path has an empty part.")
    if name in (".", ".."):
        raise BadPath("The path has a part that points elsewhere.")
    if len(name) > MAX_NAME:
        raise BadPath(f"A part of the path is longer than {MAX_NAME} characters.")
    if "%" in name or "\\" in name or "/" in name:
        raise BadPath("A part of the path has a `%`, a backslash or a slash in it.")
    if name != name.strip():
        raise BadPath("A part of the path begins or ends with white space.")
    if any(unicodedata.category(char) in _HIDDEN for char in name):
        raise BadPath("A part of the path has a character in it that cannot be seen.")
    if not unicodedata.is_normalized("NFC", name):
        raise BadPath("The path is not in Unicode's composed form (NFC).")


@lru_cache(1_024)
def parts(path: str) -> tuple[str, ...]:
    """The names of an absolute path, each checked; none for `/`.

    Raises:
        BadPath: it does not begin with a slash, is too long, or a name is not allowed.
    """
    if not path.startswith("/"):
        raise BadPath("A path begins with a slash.")
    if len(path) > MAX_PATH:
        raise BadPath(f"The path is longer than {MAX_PATH} characters.")
    if path == "/":
        return ()
    names = tuple(path[1:].split("/"))
    for name in names:
        _check_name(name)
    return names


def join(names: tuple[str, ...]) -> str:
    """The absolute path of these names."""
    return "/" + "/".join(names)


def clean(path: str) -> str:
    """The same path, checked.

    Raises:
        BadPath: as in `parts`.
    """
    return join(parts(path))


@lru_cache(1_024)
def decode(raw: str) -> str:
    """A path out of a URL: percent escapes are decoded exactly once, one slash at the end is dropped.

    Raises:
        BadPath: an escape is broken, hides a slash or a percent sign, or is not UTF-8; or the path is not valid.
    """
    if len(raw) > 3 * MAX_PATH:
        raise BadPath(f"The path is longer than {MAX_PATH} characters.")
    if _URL_PATH.fullmatch(raw) is None:
        raise BadPath("A path in a URL is of RFC 3986's characters, others as percent escapes.")
    if raw.count("%") != len(_ESCAPE.findall(raw)):
        raise BadPath("The path has a broken percent escape.")
    values = {match.upper() for match in _ESCAPE.findall(raw)}
    if values & {"2F", "25", "5C", "00"}:
        raise BadPath("The path hides a separator, a percent sign or a zero byte in an escape.")
    try:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), raw).encode("latin-1").decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadPath("The path's escapes are not UTF-8.") from error
    if len(text) > 1 and text.endswith("/"):
        text = text[:-1]
    return clean(text)
