"""/inbox: what waits for the agent, what it could not deal with, and how much there is room for.

POST leaves a message there. The dead letter can be handed out again or given up by the operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import RootModel

from core.error import Conflict, InvalidInput, KeyReused
from core.identifier import derived_id
from fs.body import gives_two, parsed
from fs.error import NoSuchFile
from fs.service.model.envelope import (
    Bound,
    BoundChange,
    Counts,
    Discarded,
    Envelope,
    EnvelopeState,
    Note,
    Posted,
    Replayed,
)
from fs.session import Session
from fs.tree import Call, File, Folder, Tree, json_bytes, json_object, json_reader

MAX_MESSAGE = 262_144
PEEKED = 100
_ONE = "one envelope, as JSON"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message from the control plane.

    Attributes:
        text: what it says.
        priority: lower is sooner, -100 to 100; messages of one priority keep their order.
        expires_at: Unix seconds; from then on the agent does not get it any more.
        seq: the sender's own number: where several wait, the lower one goes first.
        reply_to: the envelope that it answers.
    """

    text: str
    priority: int = 0
    expires_at: int | None = None
    seq: int | None = None
    reply_to: str = ""

    @property
    def payload(self) -> str:
        """What the agent is told, as JSON."""
        return orjson.dumps({"text": self.text}).decode()


class Inbox(Protocol):
    """What the node's inbox of one agent answers."""

    async def names(self, state: str) -> Sequence[str]:
        """Envelope ids in a state (`new` or `dead`), oldest first, at most 1,000."""

    async def peek(self, state: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The first envelopes in a state as they are stored."""

    async def find(self, envelope_id: str) -> Mapping[str, Any] | None:
        """One envelope as it is stored, or None."""

    async def counts(self) -> Mapping[str, int]:
        """How many are new, dead, dropped and expired."""

    async def leave(self, session: Session, envelope_id: str, letter: Letter) -> str:
        """Queue a message: where it is then. A taken envelope id is a conflict."""

    async def replay(self, session: Session, envelope_id: str) -> Mapping[str, Any]:
        """Hand out a dead envelope again."""

    async def discard(self, session: Session, envelope_id: str) -> Mapping[str, Any]:
        """Give up a dead envelope."""

    async def replay_all(self, session: Session) -> int:
        """Hand out all dead envelopes again; how many."""

    async def discard_all(self, session: Session) -> int:
        """Give up all dead envelopes; how many."""

    async def overflow(self) -> Mapping[str, Any]:
        """The bound and its policy."""

    async def set_overflow(self, session: Session, value: Mapping[str, Any]) -> None:
        """Change them."""


def read_letter(body: bytes) -> Letter:
    """A message as it was posted: plain text, or a JSON object.

    Raises:
        InvalidInput: it is empty, not UTF-8, or a JSON object that is no message.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("The message is not UTF-8 text.") from error
    note = parsed(Note, body) if text.lstrip().startswith("{") and _is_note(body) else None
    letter = Letter(text)
    if note is not None:
        letter = Letter(note.text, note.priority or 0, note.expires_at, note.seq, note.reply_to)
    if not letter.text.strip():
        raise InvalidInput("The message is empty.")
    return letter


def _is_note(body: bytes) -> bool:
    """Whether a JSON object is meant as a note; one with none of its fields is the message itself, as it stands."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return type(value) is not dict or not value or bool(Note.model_fields.keys() & value.keys())


def inbox_service(inbox: Inbox) -> Tree:
    """The service at `/inbox`."""
    post = _post(inbox)

    async def names(session: Session) -> Sequence[str]:
        return await inbox.names("new")

    async def find(name: str, session: Session) -> File | None:
        row = await inbox.find(name)
        return one(name) if row is not None and row["state"] == "new" else None

    def one(name: str) -> File:
        async def read(session: Session) -> bytes:
            return json_bytes(await inbox.find(name))

        return File(_ONE, read=read, gives=Envelope)

    async def everything(session: Session) -> bytes:
        return json_bytes(await inbox.peek("new", PEEKED))

    files: dict[str, File | Folder] = {
        "count": File(
            "how many wait, are dead, were dropped for want of room, and came too late (each counted to 1,000)",
            read=json_reader(inbox.counts),
            gives=Counts,
        ),
        "new": File(
            'leave a message: text, or {"text": ...}', call=post, max_bytes=MAX_MESSAGE, takes=Note, gives=Posted
        ),
        "overflow": _overflow(inbox),
        "deadletter": _dead_letter(inbox),
    }
    about = (
        'What waits for the agent: read it to see the first 100. POST text here, or {"text": ..., "priority": ..., '
        '"expires_at": ..., "seq": ..., "reply_to": ...}, to leave a message.'
    )
    more: dict[str, Any] = {"read": everything, "call": post, "max_bytes": MAX_MESSAGE, "sample": lambda: one("id")}
    more |= {"takes": Note, "gives": gives_two(RootModel[list[Envelope]], Posted)}
    return Tree(Folder(about, files, names, find, "<envelope id>", _ONE, **more))


def _post(inbox: Inbox) -> Call:
    async def post(body: bytes, session: Session) -> bytes:
        letter = read_letter(body)
        envelope_id = derived_id(session.caller, "/inbox", session.effect_key())
        known, status = await inbox.find(envelope_id), "queued"
        if known is None:
            try:
                status = await inbox.leave(session, envelope_id, letter)
            except Conflict:
                known = await inbox.find(envelope_id)
                if known is None:
                    raise
        if known is not None and known["payload"] not in ("", letter.payload):  # it may have been taken from it since
            raise KeyReused
        if known is not None and known["state"] not in ("new", "done"):
            status = str(known["state"])
        return json_bytes({"envelope_id": envelope_id, "status": status})

    return post


def _overflow(inbox: Inbox) -> File:
    async def write(body: bytes, session: Session) -> None:
        await inbox.set_overflow(session, json_object(body))

    about = (
        "how many may wait (max_depth), what becomes of the next one (policy: reject_new, drop_oldest or dead_letter), "
        "and how many the dead letter holds (dead_letter_max); PUT what is to change"
    )
    return File(about, read=json_reader(inbox.overflow), write=write, takes=BoundChange, gives=Bound)


def _dead_letter(inbox: Inbox) -> Folder:
    async def names(session: Session) -> Sequence[str]:
        return await inbox.names("dead")

    async def find(name: str, session: Session) -> Folder | None:
        return _dead(inbox, name) if await inbox.find(name) is not None else None  # a repeated call finds it too

    async def everything(session: Session) -> bytes:
        return json_bytes(await inbox.peek("dead", PEEKED))

    async def replay(body: bytes, session: Session) -> bytes:
        return json_bytes({"replayed": await inbox.replay_all(session)})

    async def discard(body: bytes, session: Session) -> bytes:
        return json_bytes({"discarded": await inbox.discard_all(session)})

    files: dict[str, File | Folder] = {
        "replay": File("hand all of them out again, oldest first", call=replay, gives=Replayed),
        "discard": File("give all of them up", call=discard, gives=Discarded),
    }
    about = "What the agent failed at too often, or had no room for, with the error. Read it to see the first 100."
    one = "one envelope, as JSON; in it `replay` and `discard`"
    more: dict[str, Any] = {"gives": RootModel[list[Envelope]], "sample": lambda: _dead(inbox, "id")}
    return Folder(about, files, names, find, "<envelope id>", one, found_are_folders=True, read=everything, **more)


def _dead(inbox: Inbox, envelope_id: str) -> Folder:
    async def read(session: Session) -> bytes:
        row = await inbox.find(envelope_id)
        if row is None or row["state"] != "dead":
            raise NoSuchFile
        return json_bytes(row)

    async def replay(body: bytes, session: Session) -> bytes:
        return json_bytes(await inbox.replay(session, envelope_id))

    async def discard(body: bytes, session: Session) -> bytes:
        return json_bytes(await inbox.discard(session, envelope_id))

    async def remove(session: Session) -> None:
        row = await inbox.find(envelope_id)
        if row is None or row["state"] != "dead":
            raise NoSuchFile
        await inbox.discard(session, envelope_id)

    files: dict[str, File | Folder] = {
        "replay": File("hand it out again, with fresh tries and without its expiry", call=replay, gives=EnvelopeState),
        "discard": File("give it up", call=discard, gives=EnvelopeState),
    }
    what = "One dead envelope; reading it gives it as JSON, removing it gives it up."
    return Folder(what, files, read=read, remove=remove, gives=Envelope)
