"""A mint's address in its one form. Pure."""

from urllib.parse import urlsplit

from core.error import InvalidInput

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def canonical_url(url: str) -> str:
    """One form per mint: lower-case scheme and host, no trailing slash. Two mints are the same if these are equal.

    Raises:
        InvalidInput: not https (plain http is for loopback only), or with user, query or fragment.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError as error:  # a token's author writes there what he likes
        raise InvalidInput("A mint's address is https://host[/path].") from error
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidInput("A mint's address is https://host[/path].")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InvalidInput("A mint's address is https; plain http is for this machine only.")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
