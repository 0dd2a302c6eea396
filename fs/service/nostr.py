"""/nostr: the relays, events, encrypted messages and files to people, what was said, and whom the agent hears.

A message is an effect and goes through the gate. Who is heard is the operator's to say, not the agent's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import RootModel

from core.error import Conflict, InvalidInput, KeyReused
from core.identifier import PubKey, derived_id
from core.unit import Write
from fs.body import gives_two
from fs.error import NoSuchFile, Unsupported
from fs.protocol import Record
from fs.service.model.nostr import Admission, AdmissionChange, Message, Queued, Relay, SignedEvent
from fs.session import Session, Then
from fs.tree import File, Folder, Tree, json_bytes, json_object, json_reader
from relays.event import MAX_EVENT_BYTES, Event, parse_json, verify
from relays.key import npub, parse_pubkey

MAX_TEXT = 200_000
MAX_FILE = 1 << 20  # what a body over HTTP can be
SHOWN = 200
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)


@dataclass(frozen=True, slots=True)
class StagedMessage:
    """A message the gate allows: sent once `writes` are committed and `then` has run. Repeated: nothing to do."""

    message_id: str
    writes: tuple[Write, ...]
    then: Then | None
    repeated: bool


class Messenger(Protocol):
    """Messages of one agent."""

    async def stage(self, caller: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message.

        Raises:
            Refused: the gate said no.
        """

    async def stage_file(self, caller: str, to: PubKey, data: bytes, mime: str, key: str) -> StagedMessage:
        """Judge a file.

        Raises:
            Refused: the gate said no.
        """

    async def stage_event(self, caller: str, event: Event, key: str) -> StagedMessage:
        """Judge an event of this agent's that is to be published.

        Raises:
            InvalidInput: it is signed by another key.
            Refused: the gate said no.
        """

    async def recent(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The latest messages, oldest first."""

    async def talk(self, peer: PubKey, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last messages from and to one person, oldest first."""

    def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Messages as they come and change."""

    async def rules(self) -> Mapping[str, Any]:
        """Whom the agent hears."""

    async def set_rules(self, value: Mapping[str, Any]) -> None:
        """Change that."""

    async def files(self) -> Sequence[str]:
        """Hashes of the files that came."""

    async def file(self, ox: str) -> bytes | None:
        """One of them."""


def nostr_service(messenger: Messenger, relays: Callable[[], Awaitable[Any]]) -> Tree:
    """The service at `/nostr`; `relays` answers what is known of each relay."""

    async def recent() -> Any:
        return await messenger.recent(SHOWN)

    async def rules() -> Any:
        return await messenger.rules()

    async def set_rules(body: bytes, session: Session) -> None:
        if session.staged:
            raise Unsupported("The rules are not part of a tick.")
        await messenger.set_rules(json_object(body))

    def follow(session: Session, after: int | None) -> AsyncIterator[Record]:
        return messenger.follow(after)

    about = "every message in and out, and what became of it: the last 200 as a JSON list; watch for new ones"
    files: dict[str, File | Folder] = {
        "relays": File(
            "the relays this node uses, and how they are", read=json_reader(relays), gives=RootModel[list[Relay]]
        ),
        "messages": File(about, read=json_reader(recent), watch=follow, gives=RootModel[list[Message]]),
        "admission": File(
            "whom the agent hears; PUT what is to change",
            read=json_reader(rules),
            write=set_rules,
            takes=AdmissionChange,
            gives=Admission,
        ),
        "publish": _publish(messenger),
        "dm": _people("Encrypted messages. POST text to a person's npub; GET what was said.", _dm(messenger)),
        "file": _people("Files. POST a file's bytes to a person's npub.", _file(messenger)),
        "files": _files(messenger),
    }
    return Tree(Folder("Nostr.", files))


def _publish(messenger: Messenger) -> File:
    async def publish(body: bytes, session: Session) -> bytes:
        event = parse_json(body)
        verify(event)

        async def stage(key: str) -> StagedMessage:
            return await messenger.stage_event(session.caller, event, key)

        if session.batch is not None:  # once in a tick, under however many keys
            if "event:" + event.id in session.batch.marks:
                return json_bytes({"message_id": event.id, "status": "staged"})
            answer = await _send(session, "/nostr/publish", event.id, stage)
            session.batch.marks["event:" + event.id] = ""
            return answer
        return await _send(session, "/nostr/publish", event.id, stage)

    about = "publish an event that `/identity/sign` has signed, at the relays of this node: the whole event, as JSON"
    return File(about, call=publish, max_bytes=MAX_EVENT_BYTES, takes=SignedEvent, gives=Queued)


def _people(about: str, make: Callable[[PubKey], File]) -> Folder:
    async def find(name: str, session: Session) -> File | None:
        try:
            return make(parse_pubkey(name))
        except InvalidInput:
            return None

    def sample() -> File:
        return make(PubKey("0" * 64))

    return Folder(about, {}, None, find, "<npub>", sample().about, sample=sample)


def _files(messenger: Messenger) -> Folder:
    async def names(session: Session) -> Sequence[str]:
        return await messenger.files()

    async def find(name: str, session: Session) -> File | None:
        return one(name) if await messenger.file(name) is not None else None

    def one(name: str) -> File:
        async def read(session: Session) -> bytes:
            data = await messenger.file(name)
            if data is None:
                raise NoSuchFile
            return data

        return File("a file that somebody sent", read=read)

    about = "Files that contacts sent, by the hash of what is in them."
    return Folder(about, {}, names, find, "<hash>", "a file", sample=lambda: one("hash"))


def _dm(messenger: Messenger) -> Callable[[PubKey], File]:
    def make(to: PubKey) -> File:
        async def talk() -> Any:
            return await messenger.talk(to, SHOWN)

        async def send(body: bytes, session: Session) -> bytes:
            try:
                text = body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput("The message is not UTF-8 text.") from error
            if not text.strip():
                raise InvalidInput("The message is empty.")

            async def stage(key: str) -> StagedMessage:
                return await messenger.stage(session.caller, to, text, key)

            return await _send(session, f"/nostr/dm/{npub(to)}", text, stage)

        about = "send this person an encrypted message: the body is its text; read what was said"
        gives = gives_two(RootModel[list[Message]], Queued)
        return File(about, call=send, read=json_reader(talk), max_bytes=MAX_TEXT, gives=gives)

    return make


def _file(messenger: Messenger) -> Callable[[PubKey], File]:
    def make(to: PubKey) -> File:
        async def send(body: bytes, session: Session) -> bytes:
            if not body:
                raise InvalidInput("The file is empty.")

            async def stage(key: str) -> StagedMessage:
                return await messenger.stage_file(session.caller, to, body, mime_of(body), key)

            return await _send(session, f"/nostr/file/{npub(to)}", derived_id(body.hex()), stage)

        about = "send this person a file, encrypted: the body is its bytes"
        return File(about, call=send, max_bytes=MAX_FILE, gives=Queued)

    return make


def mime_of(data: bytes) -> str:
    """What a file seems to be, from its first bytes."""
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain"


async def _send(session: Session, path: str, said: str, stage: Callable[[str], Awaitable[StagedMessage]]) -> bytes:
    """Stage and apply one message, once under its key, also within one tick."""
    key = session.effect_key()
    mark = "dm:" + derived_id(session.caller, path, key)
    if session.batch is not None and mark in session.batch.marks:
        message_id, _, sent = session.batch.marks[mark].partition(":")
        if sent != said:
            raise KeyReused
        return json_bytes({"message_id": message_id, "status": "staged"})
    staged = await _apply(session, key, stage)
    if session.batch is not None:
        session.batch.marks[mark] = f"{staged.message_id}:{said}"
    status = "staged" if session.staged else "repeated" if staged.repeated else "queued"
    return json_bytes({"message_id": staged.message_id, "status": status})


async def _apply(session: Session, key: str, stage: Callable[[str], Awaitable[StagedMessage]]) -> StagedMessage:
    """Stage and apply; a key that another call began meanwhile is judged once more."""
    staged = await stage(key)
    if staged.repeated:
        return staged
    try:
        await session.apply(staged.writes, staged.then)
    except Conflict:
        staged = await stage(key)
        if not staged.repeated:
            await session.apply(staged.writes, staged.then)
    return staged
