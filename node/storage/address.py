"""Where a database is: a path, or a URL. Pure. A URL may hold a password, which nobody is shown."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from core.error import InvalidInput

OWN_FILE = "sqlite:///node.db"
"""The file in a node's own folder."""
_SCHEMES = ("postgresql", "postgres")
_FILE = "sqlite:///"


def is_postgres(where: str | Path) -> bool:
    """Whether this names a PostgreSQL database: a URL `postgresql://…`."""
    return str(where).partition("://")[0] in _SCHEMES and "://" in str(where)


def check_database(url: str) -> None:
    """Whether this is the URL of a database.

    Raises:
        InvalidInput: it is not. The words never hold the URL itself, which may hold a password.
    """
    if is_postgres(url):
        check_url(url)
    elif not url.startswith(_FILE) or url.removeprefix(_FILE).strip("/") in ("", ":memory:"):
        raise InvalidInput("A database is named sqlite:///FILE or postgresql://USER@HOST/DATABASE.")


def has_password(url: str) -> bool:
    """Whether a PostgreSQL URL says its password."""
    parts = urlsplit(url)
    return parts.password is not None or re.search(r"(^|&)(password|sslpassword)=", parts.query) is not None


def with_password(url: str, password: str) -> str:
    """A PostgreSQL URL with this password."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{user}:{quote(password, safe='')}@{host}", parts.path, parts.query, ""))


def file_of(url: str, folder: Path) -> Path:
    """The file that a `sqlite:///…` URL names; a name without a folder is in this one."""
    return folder / url.removeprefix(_FILE)


def shown(url: str) -> str:
    """The URL as people may see it: without the password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    query = re.sub(r"(^|&)(password|sslpassword)=[^&]*", "", parts.query).lstrip("&")
    return urlunsplit((parts.scheme, f"{user.partition(':')[0]}{at}{host}", parts.path, query, ""))


def check_url(url: str) -> None:
    """Whether it can be an address at all.

    Raises:
        InvalidInput: it cannot. The words never hold the URL itself, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - is looked at only when it is asked for
    except ValueError as error:
        raise InvalidInput("The address of the database is not valid.") from error
    if parts.scheme not in _SCHEMES or not unquote(parts.path).strip("/"):
        raise InvalidInput("A PostgreSQL database is named postgresql://USER@HOST/DATABASE.")


def without_password(text: str, url: str) -> str:
    """A text on one line, without the password of the URL."""
    text = " ".join(text.split())
    parts = urlsplit(url)
    for secret in {parts.password or "", unquote(parts.password or "")}:
        text = text.replace(secret, "…") if secret else text
    return text.rstrip(".")
