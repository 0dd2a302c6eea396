"""The settings of the node's own relay (`[relay]`), and what the relay is told from them. Pure."""

import ipaddress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.error import InvalidInput
from core.identifier import PubKey
from relays.address import canonical
from relays.embedded.access import Access
from relays.embedded.information import Description
from relays.embedded.limit import Limits
from relays.embedded.rate import Rate, Rates
from relays.embedded.retention import retention
from relays.embedded.setting import RelaySettings
from relays.key import parse_pubkey

FILE = "relay.db"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MEGABYTE = 1 << 20


def _kinds(text: str) -> tuple[int, int]:
    """`1059` or `5000-5999`.

    Raises:
        ValueError: it is neither.
    """
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 0 <= first <= last <= 65_535:
        raise ValueError(f"{text!r} is not a kind or a range of kinds")
    return first, last


class RelaySection(BaseModel):
    """The node's own relay, on a listener of its own. Also read by `vendo relay up`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(7_777, ge=0, le=65_535)
    public_url: str = ""
    share_port: bool = False
    name: str = Field("vendo relay", max_length=64)
    about: str = Field("The relay inside a vendo node.", max_length=500)
    contact: str = Field("", max_length=200)
    max_mb: int = Field(4_096, ge=16, le=1_048_576)
    retention: tuple[dict[str, Any], ...] = ()
    trim: float = Field(0.0, ge=0.0, le=0.99)
    private_messages: Literal["parties", "everybody"] = "parties"
    read_by: Literal["open", "auth", "key"] = "open"
    write_by: tuple[Literal["key", "pow", "payment"], ...] = ()
    auth_to_write: bool = False
    keys: tuple[str, ...] = ()
    denied_keys: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    denied_kinds: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    denied_addresses: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    pow_bits: int = Field(20, ge=1, le=40)
    price_sat: int = Field(1_000, ge=1, le=10_000_000)
    paid_days: int = Field(30, ge=1, le=3_650)
    events_per_minute: int = Field(6_000, ge=0)
    events_per_minute_and_key: int = Field(3_000, ge=0)
    requests_per_minute: int = Field(1_200, ge=0)
    auths_per_minute: int = Field(120, ge=0)
    megabytes_per_minute: int = Field(120, ge=0)
    connects_per_minute: int = Field(120, ge=0)
    connections_per_address: int = Field(50, ge=0)
    connections: int = Field(1_000, ge=1, le=100_000)
    unlimited: tuple[str, ...] = ("127.0.0.0/8", "::1/128")

    @model_validator(mode="after")
    def _check(self) -> "RelaySection":
        try:
            for key in (*self.keys, *self.denied_keys, *self.trusted):
                parse_pubkey(key)
            retention(self.retention, self.trim or None)
            if self.public_url:
                canonical(self.public_url)
        except InvalidInput as error:
            raise ValueError(error.message) from error
        for text in (*self.kinds, *self.denied_kinds):
            _kinds(text)
        for network in (*self.addresses, *self.denied_addresses, *self.proxies, *self.unlimited):
            ipaddress.ip_network(network)
        if ("key" in self.write_by or self.read_by == "key") and not self.keys:
            raise ValueError('writing or reading by "key" needs some keys')
        if self.share_port and (self.host not in _LOOPBACK or self.public_url):
            raise ValueError("share_port is for a relay that nobody but this machine reaches: no public_url, no host")
        return self


def settings_of(
    section: RelaySection, home: Path, *, pubkey: str = "", version: str = "", mints: tuple[str, ...] = ()
) -> RelaySettings:
    """What the relay of a home directory is told.

    Args:
        section: `[relay]`.
        home: holds the event file.
        pubkey: the operator's, for NIP-11.
        version: of the software, for NIP-11.
        mints: where payments may be from.
    """
    return RelaySettings(
        home / FILE,
        section.host,
        section.port,
        Limits(store_bytes=section.max_mb * _MEGABYTE, connections=section.connections, trim=section.trim or None),
        _access(section),
        _rates(section),
        Description(
            section.name, section.about, pubkey, version, section.contact, section.public_url, (), section.retention
        ),
        mints=mints,
    )


def _access(section: RelaySection) -> Access:
    def keys(texts: tuple[str, ...]) -> frozenset[PubKey]:
        return frozenset(map(parse_pubkey, texts))

    return Access(
        write_by=section.write_by,
        keys=keys(section.keys),
        denied_keys=keys(section.denied_keys),
        kinds=tuple(map(_kinds, section.kinds)),
        denied_kinds=tuple(map(_kinds, section.denied_kinds)),
        addresses=section.addresses,
        denied_addresses=section.denied_addresses,
        pow_bits=section.pow_bits,
        read_by=section.read_by,
        auth_to_write=section.auth_to_write,
        private=section.private_messages == "parties",
        trusted=keys(section.trusted),
        proxies=section.proxies,
        price_msat=section.price_sat * 1_000,
        paid_days=section.paid_days,
    )


def _rates(section: RelaySection) -> Rates:
    def rate(per_minute: int, least: int = 1) -> Rate:
        return Rate(per_minute, max(least, per_minute // 3))

    return Rates(
        events=rate(section.events_per_minute),
        events_per_key=rate(section.events_per_minute_and_key),
        requests=rate(section.requests_per_minute),
        auths=Rate(section.auths_per_minute, max(1, section.auths_per_minute)),
        bytes=rate(section.megabytes_per_minute * 1_000_000, 1_000_000),
        connects=rate(section.connects_per_minute),
        connections=section.connections_per_address,
        exempt=section.unlimited,
    )
