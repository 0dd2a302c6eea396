"""Identities, messages and relays, as their files take and show them. Pure."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from fs.body import Body, Fact
from relays.event import MAX_TAGS

PUBKEY = {"type": "string", "pattern": "^[0-9a-f]{64}\\n$"}
NPUB = {"type": "string", "pattern": "^npub1[0-9a-z]{58}\\n$"}

Tag: TypeAlias = Annotated[list[str], Field(min_length=1)]


class SignedEvent(Fact):
    """A Nostr event (NIP-01)."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: list[list[str]]
    content: str
    sig: str


class ToSign(Body):
    """An event that is to be signed. Which kinds may be is the node's to say."""

    kind: int = Field(ge=0, le=65_535)
    content: str = ""
    tags: list[Tag] = Field(default_factory=list, max_length=MAX_TAGS)
    created_at: int | None = Field(None, ge=0, lt=1 << 53, description="Unix seconds; now if it is left out")


class Profile(Fact):
    """What its kind 0 says; empty fields are left out."""

    name: str = ""
    about: str = ""
    nip05: str = ""
    bot: bool = False


class Places(Fact):
    """Addresses of relays where it reads, writes and takes messages."""

    read: list[str]
    write: list[str]
    dm: list[str]


class KeyFact(Fact):
    """A key without its secret. Times are Unix seconds."""

    name: str
    role: str
    npub: str
    pubkey: str
    source: str
    state: str
    epoch: int
    created_at: int | None
    retired_at: int | None


class Person(Fact):
    """One identity: its keys; and what it shows of itself, if it has a life here."""

    name: str
    keys: list[KeyFact]
    profile: Profile | None = None
    relays: Places | None = None
    nip05: str = ""


class NewIdentity(Body):
    """An identity with a key from the seed words."""

    name: str = Field(min_length=1)
    epoch: int | None = Field(None, ge=0, lt=1 << 31)


class ImportedIdentity(Body):
    """An identity with a key from elsewhere, nsec or hex."""

    name: str = Field(min_length=1)
    secret: str = Field(min_length=1)


class RemoteIdentity(Body):
    """An identity held by a remote signer (NIP-46); without an address, one is made that it may call."""

    name: str = Field(min_length=1)
    uri: str = ""


class Paired(Fact):
    """The key that a remote signer holds; or the address that it may call."""

    name: str
    uri: str = ""
    npub: str = ""
    pubkey: str = ""


class Rotation(Body):
    """The next key of an identity: from the words, a secret from elsewhere, or with a remote signer."""

    name: str = Field(min_length=1)
    lost: bool = False
    secret: str | None = None
    bunker: str | None = None


class Rotated(Fact):
    """How far a rotation is: `done`, or `begun` while something that it needs does not answer."""

    agent: str
    old: str
    new: str
    epoch: int
    state: str
    npub: str


class Named(Body):
    """Which identity."""

    name: str = Field(min_length=1)


class Address(Body):
    """An address under a domain (NIP-05)."""

    address: str = Field(min_length=1)


class Found(Fact):
    """Whom a domain names."""

    address: str
    pubkey: str
    npub: str
    relays: list[str]


class Relay(Fact):
    """A relay and its counters since the start; `relays.health.RelayHealth` says what each counts."""

    url: str
    ours: bool
    up: bool
    since: int
    connects: int
    reconnects: int
    failures: int
    received: int
    delay: dict[str, float] | None
    round_trip: dict[str, float] | None
    last_error: str
    information: dict[str, Any] | None
    traits: dict[str, Any] | None
    asked_at: int | None


class Message(Fact):
    """One message in or out, and what became of it. `cursor` is what a watcher goes on from."""

    id: str
    peer: str
    direction: Literal["in", "out"]
    protocol: str
    kind: int
    text: str
    state: str
    reason: str
    created_at: int
    cursor: int
    file: dict[str, Any] | None = None


class Queued(Fact):
    """A message that was asked for."""

    message_id: str
    status: Literal["staged", "repeated", "queued"]


class Admission(Fact):
    """Whom the agent hears."""

    contacts: list[str]
    deny: list[str]
    strangers: Literal["none", "pow", "pay", "all"]
    pow_bits: int
    toll_sat: int
    per_minute: int
    strangers_per_minute: int
    mentions: Literal["none", "contacts", "all"]
    acknowledge: bool


class AdmissionChange(Body):
    """What is to change of that. The node checks it."""

    contacts: list[str] = Field(default_factory=list, description="public keys; all of them")
    deny: list[str] = Field(default_factory=list)
    strangers: Literal["none", "pow", "pay", "all"] = "none"
    pow_bits: int = Field(20, ge=0, le=32)
    toll_sat: int = Field(10, ge=0, le=1_000_000)
    per_minute: int = Field(60, ge=0, le=10_000)
    strangers_per_minute: int = Field(60, ge=0, le=100_000)
    mentions: Literal["none", "contacts", "all"] = "contacts"
    acknowledge: bool = False
