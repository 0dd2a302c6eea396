"""`[http]`: who may talk to the control plane, from where, and how often. Pure.

`[node] host` is this machine alone unless what is said here makes another one safe: an encrypted way in (TLS here, or a
proxy that ends it), and the names under which the node is known there, which are what its Host and Origin checks hold
against.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.error import InvalidInput
from node.http.rate import Rate, Rates
from node.http.token import Grant, grant_of
from relays.key import parse_pubkey

LOOPBACK = ("127.0.0.1", "::1")
HTTPS_PORT = 443
_NAME = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(?::([0-9]{1,5}))?")


class NostrCaller(BaseModel):
    """A key whose signed requests (NIP-98) are taken, and for whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    npub: str
    role: Literal["operator", "agent"]
    agent: str = Field("", pattern=r"^([a-z][a-z0-9-]{0,30})?$")

    @model_validator(mode="after")
    def _check(self) -> "NostrCaller":
        try:
            parse_pubkey(self.npub)
        except InvalidInput as error:
            raise ValueError(error.message) from error
        if (self.role == "agent") is not bool(self.agent):
            raise ValueError('role = "agent" names its agent, and role = "operator" names none')
        return self


class HttpSection(BaseModel):
    """The control plane: who may ask, from where, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    behind_proxy: bool = False
    nostr: tuple[NostrCaller, ...] = ()
    operator_per_second: int = Field(20_000, ge=0, le=1_000_000)
    operator_burst: int = Field(40_000, ge=1, le=1_000_000)
    agent_per_second: int = Field(100, ge=0, le=1_000_000)
    agent_burst: int = Field(200, ge=1, le=1_000_000)
    public_per_second: int = Field(10, ge=0, le=1_000_000)
    public_burst: int = Field(20, ge=1, le=1_000_000)
    failed_per_second: int = Field(5, ge=0, le=1_000_000)
    failed_burst: int = Field(20, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _check(self) -> "HttpSection":
        for name in self.names:
            split_name(name)
        if bool(self.tls_cert) is not bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        if self.tls_cert and self.behind_proxy:
            raise ValueError("either the node ends TLS (tls_cert, tls_key) or a proxy does (behind_proxy)")
        if self.is_open is not bool(self.names):
            raise ValueError(
                "names are those under which others reach the node by https, so they belong to tls_cert and tls_key, "
                "or to behind_proxy"
            )
        if len({parse_pubkey(one.npub) for one in self.nostr}) != len(self.nostr):
            raise ValueError("nostr names a key twice")
        return self

    @property
    def is_open(self) -> bool:
        """Whether there is a way in for others than this machine, and it is encrypted."""
        return self.behind_proxy or bool(self.tls_cert)

    def rates(self) -> Rates:
        """As the door takes them."""
        return Rates(
            operator=Rate(self.operator_per_second, self.operator_burst),
            agent=Rate(self.agent_per_second, self.agent_burst),
            public=Rate(self.public_per_second, self.public_burst),
            failed=Rate(self.failed_per_second, self.failed_burst),
        )

    def signers(self) -> Mapping[str, Grant]:
        """Public keys, hex, and what each may do."""
        return {
            parse_pubkey(one.npub): grant_of(one.role if one.role == "operator" else f"agent:{one.agent}")
            for one in self.nostr
        }


def split_name(name: str) -> tuple[str, int]:
    """A name of `[http] names` as host and port; without a port it is that of https.

    Raises:
        ValueError: it is no host with or without a port.
    """
    match = _NAME.fullmatch(name)
    port = int(match[3] or HTTPS_PORT) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ValueError(f'a name is like "node.example" or "node.example:8443", in lower case, not {name!r}')
    return match[1], port


def refusal(section: HttpSection, host: str, *, shares_port: bool = False) -> str:
    """Why the control plane must not listen at this host; empty if it may. `shares_port`: `[relay] share_port`."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f"[node] host is an address like 127.0.0.1 or 0.0.0.0, not {host!r}"
    if shares_port and section.is_open:
        return "[relay] share_port is for a control plane that nobody but this machine reaches"
    if host in LOOPBACK or section.is_open:
        return ""
    return (
        f"[node] host {host!r} is reached by others than this machine, which needs an encrypted way in: either [http] "
        "tls_cert and tls_key, or [http] behind_proxy = true if a proxy of yours ends TLS; and [http] names, by which "
        "the node is known there"
    )


TEMPLATE = """\
[http]                         # the control plane: who may ask it, from where, how often
names = []                     # as which hosts others than this machine know it: ["node.example", "a.example:8443"]
tls_cert = ""                  # its certificate with the chain, PEM; then [node] host may be any address
tls_key = ""                   # the certificate's key, PEM
behind_proxy = false           # a proxy of yours ends TLS; the last entry of its X-Forwarded-For says who asks
nostr = []                     # who may sign requests (NIP-98): {{npub = "...", role = "agent", agent = "name"}}
operator_per_second = 20000    # requests of the operator; 0 is no limit, here and below
operator_burst = 40000         # so many of them may come at once
agent_per_second = 100         # of one agent
agent_burst = 200              # at once
public_per_second = 10         # without a token, from one address
public_burst = 20              # at once
failed_per_second = 5          # wrong tokens and signatures from one address
failed_burst = 20              # at once
"""
