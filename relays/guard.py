"""The last look at an address before a socket is made for it: what a stranger named must not lead into our network.

A name was resolved by then, so nothing can be rebound between the look and the connection; and each redirect is a
connection of its own.
"""

import socket
from typing import Any

from relays.address import is_public


def guarded(info: Any) -> socket.socket:
    """A socket for one result of `getaddrinfo`; for `aiohttp.TCPConnector(socket_factory=...)`.

    Raises:
        OSError: the address is not one of the public internet.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise OSError(f"{address[0]} is not a public address")
    return socket.socket(family, kind, protocol)
