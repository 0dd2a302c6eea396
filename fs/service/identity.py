"""/identity: who this is on Nostr, and signatures under it.

Events of a few kinds can be signed and nothing else: no raw bytes, no digests. Secrets are nowhere in this tree: they
go in (`import`), and come out only at the command line, for whoever has the passphrase.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import RootModel

from core.error import Conflict
from core.identifier import EventId, PubKey
from core.unit import Write
from fs.body import Body, Fact, parsed
from fs.service.model import nostr as model
from fs.session import Session, Then
from fs.tree import Call, File, Folder, Node, Tree, json_bytes, json_reader, text_bytes
from relays.error import MalformedEvent
from relays.event import Draft, Event, Tags
from relays.key import npub

MAX_CONTENT_BYTES = 32_768
MAX_SECRET_BYTES = 4_096
_SIGN = "sign an event: JSON with kind, content and tags (call); within a tick the event comes as a trigger"


@dataclass(frozen=True, slots=True)
class StagedSignature:
    """A signature that the gate allows: made once `writes` are committed and `then` has run."""

    event_id: EventId
    writes: tuple[Write, ...]
    then: Then | None
    repeated: bool


class Person(Protocol):
    """One identity, as others know it."""

    @property
    def pubkey(self) -> PubKey:
        """The key that it has now."""

    async def profile(self) -> Mapping[str, Any]:
        """What its kind 0 says."""

    async def nip05(self) -> str:
        """Its address (NIP-05), or nothing."""

    async def relays(self) -> Mapping[str, Any]:
        """Where it reads, writes and takes messages."""

    async def keys(self) -> Sequence[Mapping[str, Any]]:
        """The keys that it has and had, without secrets."""


class Desk(Protocol):
    """Signs for one identity."""

    def draft(self, kind: int, content: str, tags: Tags, created_at: int | None) -> Draft:
        """What would be signed.

        Raises:
            KindForbidden: not this kind.
        """

    async def stage(self, caller: str, draft: Draft, key: str, pending: Iterable[Write]) -> StagedSignature:
        """Judge a signature that a tick wants."""

    async def sign(self, caller: str, draft: Draft, key: str) -> Event:
        """Sign now."""


class Keys(Protocol):
    """What an operator does with identities. Every method answers what is known of the identity afterwards."""

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """Every key, without secrets."""

    async def show(self, name: str) -> Mapping[str, Any] | None:
        """One identity: its keys, profile, relays and address; None if there is none of this name."""

    async def new(self, name: str, epoch: int | None) -> Mapping[str, Any]:
        """A new identity with a key from the seed words."""

    async def take(self, name: str, secret: str) -> Mapping[str, Any]:
        """A new identity with a secret key from elsewhere (nsec or hex)."""

    async def pair(self, name: str, uri: str) -> Mapping[str, Any]:
        """A new identity whose key a remote signer holds; without an address, one that it is given to call us."""

    async def rotate(self, caller: str, name: str, key: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give an identity its next key; `options` may hold `lost`, and one of `secret` and `bunker`."""

    async def retire(self, name: str) -> Mapping[str, Any]:
        """Give an identity up."""

    async def look_up(self, address: str) -> Mapping[str, Any]:
        """Whom a domain names by this address (NIP-05)."""


def identity_service(person: Person, desk: Desk | None = None, keys: Keys | None = None) -> Tree:
    """The service at `/identity`; with a desk it signs, with keys it is the operator's."""

    async def as_hex(session: Session) -> bytes:
        return text_bytes(person.pubkey)

    async def as_npub(session: Session) -> bytes:
        return text_bytes(npub(person.pubkey))

    async def nip05(session: Session) -> bytes:
        return text_bytes(await person.nip05())

    files: dict[str, Node] = {
        "pubkey": File("the public key, 64 hex digits", read=as_hex, gives=model.PUBKEY),
        "npub": File("the public key, in NIP-19 form", read=as_npub, gives=model.NPUB),
        "profile": File("what the profile (kind 0) says", read=json_reader(person.profile), gives=model.Profile),
        "nip05": File("the address under a domain (NIP-05), if there is one", read=nip05),
        "relays": File(
            "where it reads, writes and takes messages", read=json_reader(person.relays), gives=model.Places
        ),
    }
    if keys is None:
        about = "its keys: the one it has and those it had"
        files["keys"] = File(about, read=json_reader(person.keys), gives=RootModel[list[model.KeyFact]])
    else:
        files |= _key_files(keys)
    if desk is not None:
        files["sign"] = File(
            _SIGN, call=_signer(desk), max_bytes=MAX_CONTENT_BYTES, takes=model.ToSign, gives=model.SignedEvent
        )
    return Tree(Folder("Who this is on Nostr.", files))


def _signer(desk: Desk) -> Callable[[bytes, Session], Awaitable[bytes]]:
    async def sign(body: bytes, session: Session) -> bytes:
        asked = parsed(model.ToSign, body, MalformedEvent)
        draft = desk.draft(asked.kind, asked.content, tuple(map(tuple, asked.tags)), asked.created_at)
        key = session.effect_key()
        if session.batch is None:
            try:
                event = await desk.sign(session.caller, draft, key)
            except Conflict:  # another call began the same meanwhile
                event = await desk.sign(session.caller, draft, key)
            return json_bytes(event.to_dict())
        staged = await desk.stage(session.caller, draft, key, session.gathered)
        if not staged.repeated:
            await session.apply(staged.writes, staged.then)
        return json_bytes({"id": staged.event_id, "status": "repeated" if staged.repeated else "staged"})

    return sign


def _shown(keys: Keys) -> Folder:
    async def names(session: Session) -> list[str]:
        return sorted({str(row["name"]) for row in await keys.list()})

    async def find(name: str, session: Session) -> File | None:
        found = await keys.show(name)
        return None if found is None else _person(found)

    async def read(session: Session) -> bytes:
        return json_bytes(await keys.list())

    about = "every key of the node and its agents"
    more: dict[str, Any] = {"gives": RootModel[list[model.KeyFact]], "sample": lambda: _person({})}
    return Folder(about, {}, names, find, "<name>", "one identity: its keys, profile, relays", read=read, **more)


def _person(found: Mapping[str, Any]) -> File:
    async def read(session: Session) -> bytes:
        return json_bytes(found)

    return File("one identity", read=read, gives=model.Person)


def _key_files(keys: Keys) -> dict[str, Node]:
    """What the operator has besides. None of these leaves the process but `rotate`, which goes through the gate."""

    async def new(body: bytes, session: Session) -> bytes:
        asked = parsed(model.NewIdentity, body)
        return json_bytes(await keys.new(asked.name, asked.epoch))

    async def take(body: bytes, session: Session) -> bytes:
        asked = parsed(model.ImportedIdentity, body)
        return json_bytes(await keys.take(asked.name, asked.secret))

    async def pair(body: bytes, session: Session) -> bytes:
        asked = parsed(model.RemoteIdentity, body)
        return json_bytes(await keys.pair(asked.name, asked.uri))

    async def rotate(body: bytes, session: Session) -> bytes:
        asked = parsed(model.Rotation, body)
        key = session.effect_key()
        return json_bytes(await keys.rotate(session.caller, asked.name, key, asked.given()))

    async def retire(body: bytes, session: Session) -> bytes:
        return json_bytes(await keys.retire(parsed(model.Named, body).name))

    async def look_up(body: bytes, session: Session) -> bytes:
        return json_bytes(await keys.look_up(parsed(model.Address, body).address))

    def file(about: str, call: Call, takes: type[Body], gives: type[Fact] = model.KeyFact) -> File:
        return File(about, call=call, max_bytes=MAX_SECRET_BYTES, takes=takes, gives=gives)

    return {
        "keys": _shown(keys),
        "new": file("a new identity: JSON with name (call)", new, model.NewIdentity),
        "import": file(
            "an identity with a key from elsewhere: JSON with name, secret (call)", take, model.ImportedIdentity
        ),
        "bunker": file(
            "an identity held by a remote signer: JSON with name, uri (call)", pair, model.RemoteIdentity, model.Paired
        ),
        "rotate": file(
            "a new key for an identity, announced: JSON with name (call)", rotate, model.Rotation, model.Rotated
        ),
        "lookup": file("whom a domain names (NIP-05): JSON with address (call)", look_up, model.Address, model.Found),
        "retire": file("give an identity up: JSON with name (call)", retire, model.Named),
    }
