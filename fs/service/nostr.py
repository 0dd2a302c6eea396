"""/nostr: the relays, and encrypted messages to people (NIP-17). A message is an effect and goes through the gate."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from core.error import Conflict, InvalidInput, KeyReused
from core.identifier import PubKey, derived_id
from core.unit import Write
from fs.session import Session, Then
from fs.tree import File, Folder, Tree, json_bytes, json_reader
from relays.key import npub, parse_pubkey

MAX_TEXT = 200_000


@dataclass(frozen=True, slots=True)
class StagedMessage:
    """A message the gate allows: sent once `writes` are committed and `then` has run. Repeated: nothing to do."""

    message_id: str
    writes: tuple[Write, ...]
    then: Then | None
    repeated: bool


class Messenger(Protocol):
    """Sends encrypted messages as one agent."""

    async def stage(self, caller: str, to: PubKey, text: str, key: str) -> StagedMessage:
        """Judge a message.

        Raises:
            Refused: the gate said no.
        """


def nostr_service(messenger: Messenger, relays: Callable[[], Awaitable[Any]]) -> Tree:
    """The service at `/nostr`; `relays` answers what is known of each relay."""

    async def find(name: str, session: Session) -> File | None:
        try:
            to = parse_pubkey(name)
        except InvalidInput:
            return None
        return File(
            "send this person an encrypted message: the body is its text",
            call=_sender(messenger, to),
            max_bytes=MAX_TEXT,
        )

    dm = Folder(
        "Encrypted messages (NIP-17). POST text to a person's npub.",
        {},
        None,
        find,
        "<npub>",
        "send this person a message (call)",
    )
    return Tree(
        Folder(
            "Nostr.",
            {"relays": File("the relays this node uses, and how they are", read=json_reader(relays)), "dm": dm},
        )
    )


def _sender(messenger: Messenger, to: PubKey) -> Callable[[bytes, Session], Awaitable[bytes]]:
    path = f"/nostr/dm/{npub(to)}"

    async def send(body: bytes, session: Session) -> bytes:
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput("The message is not UTF-8 text.") from error
        if not text.strip():
            raise InvalidInput("The message is empty.")
        key = session.effect_key()
        mark = "dm:" + derived_id(session.caller, path, key)
        if session.batch is not None and mark in session.batch.marks:
            message_id, _, sent = session.batch.marks[mark].partition(":")
            if sent != text:
                raise KeyReused
            return json_bytes({"message_id": message_id, "status": "staged"})
        staged = await _apply(messenger, session, to, text, key)
        if session.batch is not None:
            session.batch.marks[mark] = f"{staged.message_id}:{text}"
        status = "staged" if session.staged else "repeated" if staged.repeated else "queued"
        return json_bytes({"message_id": staged.message_id, "status": status})

    return send


async def _apply(messenger: Messenger, session: Session, to: PubKey, text: str, key: str) -> StagedMessage:
    """Stage and apply; a key that another call began meanwhile is judged once more."""
    staged = await messenger.stage(session.caller, to, text, key)
    if staged.repeated:
        return staged
    try:
        await session.apply(staged.writes, staged.then)
    except Conflict:
        staged = await messenger.stage(session.caller, to, text, key)
        if not staged.repeated:
            await session.apply(staged.writes, staged.then)
    return staged
