"""Where the control plane listens: always in plain HTTP on loopback, and perhaps somewhere else, encrypted.

What belongs to the node itself (its commands, the turns of agents outside, other processes of the node) goes to the
listener on loopback. With TLS, or at an address that others reach, there is one more; `[node] host` and `port` are then
that one's, and the one on loopback takes a free port.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from node.error import ConfigInvalid
from node.http.setting import LOOPBACK, HttpSection, refusal


@dataclass(frozen=True, slots=True)
class Listener:
    """An address, and the certificate that is shown there; None is plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


def listeners(section: HttpSection, host: str, port: int, home: Path) -> tuple[Listener, ...]:
    """Where to listen; the first one is the one on loopback.

    Args:
        section: `[http]`.
        host: `[node] host`.
        port: `[node] port`.
        home: relative paths of the certificate begin here.

    Raises:
        ConfigInvalid: the address needs an encrypted way in, or the certificate cannot be used.
    """
    if reason := refusal(section, host):
        raise ConfigInvalid(f"{reason}.")
    if host in LOOPBACK and not section.tls_cert:
        return (Listener(host, port),)
    tls = _context(home / section.tls_cert, home / section.tls_key) if section.tls_cert else None
    return (Listener(LOOPBACK[0], 0), Listener(host, port, tls))


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context for TLS 1.2 and later.

    Raises:
        ConfigInvalid: a file is missing or wrong, the key is encrypted or another's, or anybody can read it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if key.stat().st_mode & 0o007:
            raise ConfigInvalid(f"[http] tls_key: anybody can read {key}.", remedy=f"Run: chmod o= {key}")
        context.load_cert_chain(certificate, key, password=lambda: "")  # nobody is there to be asked for one
    except ssl.SSLError as error:
        raise ConfigInvalid(f"[http] tls_cert, tls_key: {certificate} and {key} are no usable pair.") from error
    except OSError as error:
        raise ConfigInvalid(f"[http] tls_cert, tls_key: {error.filename or key}: {error.strerror}.") from error
    return context
