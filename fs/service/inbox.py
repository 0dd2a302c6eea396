"""/inbox: what waits for the agent, and what it could not deal with. POST leaves a message there."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from core.error import Conflict, InvalidInput, KeyReused
from core.identifier import derived_id
from core.unit import Write
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader

MAX_MESSAGE = 262_144
PEEKED = 100
_FIELDS = frozenset({"text"})


class Inbox(Protocol):
    """What the node's inbox of one agent answers."""

    async def names(self, state: str) -> Sequence[str]:
        """Envelope ids in a state (`new` or `dead`), oldest first, at most 1,000."""

    async def find(self, envelope_id: str) -> dict[str, Any] | None:
        """One envelope as it is stored, or None."""

    def message(self, envelope_id: str, sender: str, payload: str) -> tuple[Write, ...]:
        """Writes that queue a message; a taken envelope id is a conflict."""

    def notify(self) -> None:
        """Say that a committed envelope waits."""


def _text(body: bytes) -> str:
    """The text of a message: plain, or the `text` of a JSON object.

    Raises:
        InvalidInput: it is empty, not UTF-8, or a JSON object without a text.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("The message is not UTF-8 text.") from error
    if text.lstrip().startswith("{"):
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidInput("The message looks like JSON and is not.") from error
        if not _FIELDS.issuperset(value) or type(value.get("text")) is not str:
            raise InvalidInput('A message in JSON is {"text": "..."}.')
        text = value["text"]
    if not text.strip():
        raise InvalidInput("The message is empty.")
    return text


def _reader(inbox: Inbox, envelope_id: str) -> File:
    async def read(session: Session) -> bytes:
        return json_bytes(await inbox.find(envelope_id))

    return File("one envelope, as JSON", read=read)


def inbox_service(inbox: Inbox) -> Tree:
    """The service at `/inbox`."""

    async def post(body: bytes, session: Session) -> bytes:
        text, key = _text(body), session.effect_key()
        payload = orjson.dumps({"text": text}).decode()
        envelope_id = derived_id(session.caller, "/inbox", key)
        answer = json_bytes({"envelope_id": envelope_id, "status": "queued"})
        known = await inbox.find(envelope_id)
        if known is None:
            try:
                await session.apply(inbox.message(envelope_id, session.caller, payload), inbox.notify)
            except Conflict:
                known = await inbox.find(envelope_id)
                if known is None:
                    raise
        if known is not None and known["payload"] != payload:
            raise KeyReused
        return answer

    def listing(state: str, about: str, files: dict[str, File | Folder], **more: Any) -> Folder:
        async def names(session: Session) -> Sequence[str]:
            return await inbox.names(state)

        async def find(name: str, session: Session) -> File | None:
            row = await inbox.find(name)
            return _reader(inbox, name) if row is not None and row["state"] == state else None

        return Folder(about, files, names, find, "<envelope id>", "one envelope, as JSON", **more)

    async def everything(session: Session) -> bytes:
        rows = [await inbox.find(name) for name in (await inbox.names("new"))[:PEEKED]]
        return json_bytes([row for row in rows if row is not None])

    async def overview() -> dict[str, int]:
        return {"new": len(await inbox.names("new")), "dead": len(await inbox.names("dead"))}

    dead = listing("dead", "What the agent failed at too often, with the error.", {})
    files: dict[str, File | Folder] = {
        "count": File("how many wait, and how many are dead (counted to 1,000)", read=json_reader(overview)),
        "new": File('leave a message: text, or {"text": ...}', call=post, max_bytes=MAX_MESSAGE),
        "deadletter": dead,
    }
    about = (
        'What waits for the agent: read it to see the first 100. POST text here, or {"text": ...}, to leave a message.'
    )
    return Tree(listing("new", about, files, read=everything, call=post, max_bytes=MAX_MESSAGE))
