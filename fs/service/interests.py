"""/interests: which events the agent is told of, and whose events it may see."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.error import InvalidInput
from fs.error import AccessDenied
from fs.session import Role, Session
from fs.tree import File, Folder, Tree, json_bytes, json_object, json_reader

_FIELDS = frozenset({"id", "event", "pattern"})
_SEES = ("own", "all")


class Interests(Protocol):
    """What the node's interests of one agent answer."""

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""

    async def find(self, interest: str) -> Mapping[str, Any] | None:
        """One interest, or None."""

    async def watch(self, session: Session, interest: str, event: str, pattern: Mapping[str, Any]) -> Mapping[str, Any]:
        """Set an interest; one of this id is replaced."""

    async def unwatch(self, session: Session, interest: str) -> None:
        """Take an interest away."""

    async def sees_all(self) -> bool:
        """Whether it may be told of the events of the node and of all agents."""

    async def grant(self, session: Session, sees_all: bool) -> None:
        """Say so, or not."""


def interests_service(interests: Interests) -> Tree:
    """The service at `/interests`."""

    async def new(body: bytes, session: Session) -> bytes:
        value = json_object(body, _FIELDS)
        name, event, pattern = value.get("id"), value.get("event"), value.get("pattern", {})
        if type(name) is not str or type(event) is not str or type(pattern) is not dict:
            raise InvalidInput('An interest is {"id": ..., "event": ..., "pattern": {...}}.')
        return json_bytes(await interests.watch(session, name, event, pattern))

    async def names(session: Session) -> Sequence[str]:
        return await interests.names()

    async def find(name: str, session: Session) -> Folder | None:
        if await interests.find(name) is None:
            return None

        async def read(session: Session) -> bytes:
            return json_bytes(await interests.find(name))

        async def delete(body: bytes, session: Session) -> bytes:
            await interests.unwatch(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        files = {"delete": File("take it away", call=delete)}
        return Folder("One interest; reading it gives it as JSON.", files, read=read)

    set_one = (
        'be told of events: {"id": ..., "event": "payment.received", "pattern": {"data.amount": {"min": 1000}}}; '
        "`payment.*` is every type that begins so, `*` all; one of this id is replaced"
    )
    files: dict[str, File | Folder] = {
        "new": File(set_one, call=new),
        "sees": _sees(interests),
    }
    about = "What the agent wants to be told of."
    one = "one interest, as JSON; in it `delete`"
    return Tree(Folder(about, files, names, find, "<id>", one, found_are_folders=True))


def _sees(interests: Interests) -> File:
    async def sees() -> Any:
        return {"events": _SEES[await interests.sees_all()]}

    async def let_see(body: bytes, session: Session) -> None:
        if session.role < Role.OPERATOR:
            raise AccessDenied("Whose events an agent sees is its operator's to say.")
        value = json_object(body, frozenset({"events"})).get("events")
        if value not in _SEES:
            raise InvalidInput('{"events": "own"} or {"events": "all"}.')
        await interests.grant(session, value == "all")

    about = (
        'whose events it may be told of: its "own", or "all", which are the node\'s and other agents\' too; '
        "its operator writes it"
    )
    return File(about, read=json_reader(sees), write=let_see)
