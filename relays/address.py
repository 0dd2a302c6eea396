"""Relay addresses: one spelling per relay, and which network addresses a stranger may make us connect to. Pure."""

import ipaddress

from yarl import URL

from core.error import InvalidInput

MAX_URL_CHARS = 512
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_INSIDE = (".localhost", ".local", ".internal", ".lan", ".home", ".arpa", ".onion", ".i2p")


def canonical(url: str) -> str:
    """The one spelling under which a relay is known: lower-case scheme and host, no default port, no bare slash.

    Raises:
        InvalidInput: it is not a ws:// or wss:// address, or it holds a password.
    """
    if len(url) > MAX_URL_CHARS:
        raise InvalidInput("A relay's address is not that long.")
    try:
        return _spelled(url)
    except (ValueError, IndexError) as error:  # yarl looks at some parts when they are asked for, and not before
        raise InvalidInput(f"This is not an address: {url[:80]!r}") from error


def _spelled(url: str) -> str:
    parsed = URL(url.strip())
    port = parsed.port
    if parsed.scheme not in ("ws", "wss") or not parsed.host or port is None:
        raise InvalidInput(f"A relay's address begins with ws:// or wss://, not {url[:80]!r}.")
    if parsed.user is not None or parsed.password is not None:
        raise InvalidInput("A relay's address holds no user and no password.")
    text = str(parsed.with_fragment(None))
    return text.rstrip("/") if parsed.path == "/" and not parsed.query_string else text


def is_relay_url(url: str) -> bool:
    """Whether `canonical` takes it."""
    try:
        canonical(url)
    except InvalidInput:
        return False
    return True


def is_public(host: str) -> bool:
    """Whether an IP address belongs to the public internet, so that a stranger may name it (DESIGN §8)."""
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or _translated(address) or address
    return address.is_global and not address.is_multicast


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Where a translator (NAT64, RFC 6052) of our network would send it on to."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def is_nameable(url: str) -> bool:
    """Whether a stranger may name this relay: nothing that is plainly inside our own network, or out of reach.

    Names are not resolved here; the socket checks the address that a name leads to once more.
    """
    try:
        host = URL(canonical(url)).host or ""
    except (InvalidInput, ValueError, IndexError):
        return False
    host = host.rstrip(".").lower()
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return "." in host and not host.endswith(_INSIDE) and not host.replace(".", "").isdigit()
    return is_public(host)
