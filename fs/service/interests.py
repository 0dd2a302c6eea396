"""/interests: which events the agent is told of, and whose events it may see."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from fs.body import Body, Fact, parsed
from fs.error import AccessDenied
from fs.service.model.waking import ID, Deleted
from fs.session import Role, Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader


class NewInterest(Body):
    """Which events an agent wants to be told of."""

    id: str = Field(json_schema_extra={"pattern": ID})
    event: str = Field(description="a type, `type.*`, or `*`")
    pattern: dict[str, Any] = Field(default_factory=dict, description="what the event's fields must be")


class Interest(Fact):
    """One interest; `created_at` in Unix seconds."""

    id: str
    event: str
    created_at: int
    pattern: dict[str, Any]


class Sight(Body):
    """Whose events an agent may be told of."""

    events: Literal["own", "all"]


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
        wish = parsed(NewInterest, body)
        return json_bytes(await interests.watch(session, wish.id, wish.event, wish.pattern))

    async def names(session: Session) -> Sequence[str]:
        return await interests.names()

    async def find(name: str, session: Session) -> Folder | None:
        return one(name) if await interests.find(name) is not None else None

    def one(name: str) -> Folder:
        async def read(session: Session) -> bytes:
            return json_bytes(await interests.find(name))

        async def delete(body: bytes, session: Session) -> bytes:
            await interests.unwatch(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        async def remove(session: Session) -> None:
            await interests.unwatch(session, name)

        files = {"delete": File("take it away", call=delete, gives=Deleted)}
        return Folder("One interest; reading it gives it as JSON.", files, read=read, remove=remove, gives=Interest)

    set_one = (
        'be told of events: {"id": ..., "event": "payment.received", "pattern": {"data.amount": {"min": 1000}}}; '
        "`payment.*` is every type that begins so, `*` all; one of this id is replaced"
    )
    files: dict[str, File | Folder] = {
        "new": File(set_one, call=new, takes=NewInterest, gives=Interest),
        "sees": _sees(interests),
    }
    about = "What the agent wants to be told of."
    what = "one interest, as JSON; in it `delete`"
    more: dict[str, Any] = {"found_are_folders": True, "sample": lambda: one("id")}
    return Tree(Folder(about, files, names, find, "<id>", what, **more))


def _sees(interests: Interests) -> File:
    async def sees() -> Any:
        return {"events": "all" if await interests.sees_all() else "own"}

    async def let_see(body: bytes, session: Session) -> None:
        if session.role < Role.OPERATOR:
            raise AccessDenied("Whose events an agent sees is its operator's to say.")
        await interests.grant(session, parsed(Sight, body).events == "all")

    about = (
        'whose events it may be told of: its "own", or "all", which are the node\'s and other agents\' too; '
        "its operator writes it"
    )
    return File(about, read=json_reader(sees), write=let_see, takes=Sight, gives=Sight)
