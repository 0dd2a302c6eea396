"""Ports: whether the node's own listeners can listen, who is there if not, and what they show for a certificate."""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificate

from cli.checkup.finding import Check, fail, ok, warn
from core.error import VendoError
from node.config import Config
from node.http.bind import listeners

_LISTENING = "0A"  # proc(5), /proc/net/tcp
_PRIVILEGED = 1_024
_DAY_S, _EXPIRY_WARN_DAYS = 86_400, 14


@dataclass(frozen=True, slots=True)
class Door:
    """A listener of the node: what it is called, where it is to listen, and the setting that says so."""

    name: str
    host: str
    port: int
    setting: str


def port(door: Door, ours: Sequence[str]) -> Check:
    """Whether it can listen. `ours` are the addresses at which the running node says that it does."""
    name, at = f"port of the {door.name}", f"{door.host}:{door.port}"
    if any(_port_of(url) == door.port for url in ours if door.port):
        return ok(name, f"{at} is this node's.")
    if not door.port:
        return ok(name, "A free one is taken at the start.")
    try:
        _try(door.host, door.port)
    except OSError as error:
        return _refused(name, door, at, error)
    return ok(name, f"{at} is free.")


def _port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def _try(host: str, number: int) -> None:
    """Listen there for a moment.

    Raises:
        OSError: it cannot be done.
    """
    facts = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = facts[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # this and the next, as the node does
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)


def _refused(name: str, door: Door, at: str, error: OSError) -> Check:
    change = f"change {door.setting} in config.toml"
    if error.errno == errno.EADDRINUSE:
        who = "; ".join(holders(door.port)) or "a process that this user may not look into: another's, or another node"
        return fail(name, f"{at} is taken by {who}.", f"Run: ss -ltnp 'sport = :{door.port}'; end it, or {change}")
    if error.errno == errno.EACCES and door.port < _PRIVILEGED:
        return fail(name, f"{at} is for root alone.", f"Put a proxy before it, or {change} to 1024 or more")
    if error.errno == errno.EADDRNOTAVAIL:
        return fail(name, f"{door.host} is no address of this machine.", f"Run: ip address; {change}")
    if isinstance(error, socket.gaierror):
        return fail(name, f"{door.host} is no address.", f"Run: getent hosts {door.host}; {change}")
    return warn(name, f"{at} cannot be tried: {error.strerror}.", f"Run: ss -ltn; {change}")


def holders(number: int) -> list[str]:
    """The processes that listen on a port, as far as this user may see (Linux)."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(number)}
    found = []
    for folder in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(OSError):
            if any(str(one.readlink()) in wanted for one in (folder / "fd").iterdir()):
                found.append(f"process {folder.name} ({(folder / 'comm').read_text().strip()})")
    return sorted(found)


def certificate(home: Path, settings: Config, now: float) -> list[Check]:
    """That of `[http] tls_cert`, if there is one: whether it can be used, and for how long."""
    if not settings.http.tls_cert:
        return []
    path = home / settings.http.tls_cert
    try:
        listeners(settings.http, settings.node.host, settings.node.port, home)
        ends = load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except VendoError as error:
        return [fail("certificate", error.message, error.advice or f"Run: ls -l {path}")]
    except ValueError as error:
        return [fail("certificate", f"{path} cannot be read: {error}.", f"Run: openssl x509 -in {path} -noout -text")]
    days = int((ends.timestamp() - now) // _DAY_S)
    detail = f"{path} is valid until {ends:%Y-%m-%d}."
    if days >= _EXPIRY_WARN_DAYS:
        return [ok("certificate", detail)]
    return [
        (warn if days >= 0 else fail)("certificate", detail, "Renew it, then start the node again: it reads it once")
    ]


def _inodes(number: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == number:
                    yield words[9]
