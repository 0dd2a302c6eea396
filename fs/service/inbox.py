"""/inbox: what waits for the agent, what it could not deal with, and how much there is room for.

POST leaves a message there. The dead letter can be handed out again or given up by the operator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from core.error import Conflict, InvalidInput, KeyReused
from core.identifier import derived_id
from fs.error import NoSuchFile
from fs.session import Session
from fs.tree import Call, File, Folder, Tree, json_bytes, json_object, json_reader

MAX_MESSAGE = 262_144
PEEKED = 100
MAX_REPLY_TO = 200
MOST_URGENT, LEAST_URGENT = -100, 100
_FIELDS = frozenset({"text", "priority", "expires_at", "seq", "reply_to"})
_LAST = (1 << 53) - 1
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
    more: dict[str, Any] = {}
    if text.lstrip().startswith("{"):
        try:
            more = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidInput("The message looks like JSON and is not.") from error
        if not _FIELDS.issuperset(more) or type(more.get("text")) is not str:
            raise InvalidInput('A message in JSON is {"text": "..."}, with priority, expires_at, seq, reply_to.')
        text = more.pop("text")
    if not text.strip():
        raise InvalidInput("The message is empty.")
    reply_to = more.get("reply_to", "")
    if type(reply_to) is not str or len(reply_to) > MAX_REPLY_TO or not (reply_to.isascii() and reply_to.isprintable()):
        raise InvalidInput(f"reply_to is an envelope id of at most {MAX_REPLY_TO} printable ASCII characters.")
    return Letter(
        text,
        _whole(more, "priority", MOST_URGENT, LEAST_URGENT) or 0,
        _whole(more, "expires_at", 0, _LAST),
        _whole(more, "seq", 0, _LAST),
        reply_to,
    )


def _whole(value: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    found = value.get(name)
    if found is None:
        return None
    if type(found) is not int or not low <= found <= high:
        raise InvalidInput(f"{name} is a whole number from {low} to {high}.")
    return found


def inbox_service(inbox: Inbox) -> Tree:
    """The service at `/inbox`."""
    post = _post(inbox)

    async def names(session: Session) -> Sequence[str]:
        return await inbox.names("new")

    async def find(name: str, session: Session) -> File | None:
        row = await inbox.find(name)
        if row is None or row["state"] != "new":
            return None

        async def read(session: Session) -> bytes:
            return json_bytes(await inbox.find(name))

        return File(_ONE, read=read)

    async def everything(session: Session) -> bytes:
        return json_bytes(await inbox.peek("new", PEEKED))

    files: dict[str, File | Folder] = {
        "count": File(
            "how many wait, are dead, were dropped for want of room, and came too late (each counted to 1,000)",
            read=json_reader(inbox.counts),
        ),
        "new": File('leave a message: text, or {"text": ...}', call=post, max_bytes=MAX_MESSAGE),
        "overflow": _overflow(inbox),
        "deadletter": _dead_letter(inbox),
    }
    about = (
        'What waits for the agent: read it to see the first 100. POST text here, or {"text": ..., "priority": ..., '
        '"expires_at": ..., "seq": ..., "reply_to": ...}, to leave a message.'
    )
    more: dict[str, Any] = {"read": everything, "call": post, "max_bytes": MAX_MESSAGE}
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
    return File(about, read=json_reader(inbox.overflow), write=write)


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
        "replay": File("hand all of them out again, oldest first", call=replay),
        "discard": File("give all of them up", call=discard),
    }
    about = "What the agent failed at too often, or had no room for, with the error. Read it to see the first 100."
    one = "one envelope, as JSON; in it `replay` and `discard`"
    return Folder(about, files, names, find, "<envelope id>", one, found_are_folders=True, read=everything)


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

    files: dict[str, File | Folder] = {
        "replay": File("hand it out again, with fresh tries and without its expiry", call=replay),
        "discard": File("give it up", call=discard),
    }
    return Folder("One dead envelope; reading it gives it as JSON.", files, read=read)
