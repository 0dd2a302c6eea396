"""/agents, for the operator: which agents there are; add one, delete one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object, json_reader


class Roster(Protocol):
    """The node's agents."""

    async def visit(self, name: str) -> bool:
        """Whether there is one of this name; one that hibernates is not woken."""

    def is_leaving(self, name: str) -> bool:
        """Whether it was deleted, and its signer has not yet signed what takes back what it published."""

    async def list_agents(self) -> Sequence[Mapping[str, Any]]:
        """All of them, with what is known of each."""

    async def show(self, name: str) -> Mapping[str, Any]:
        """One of them."""

    async def add(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make one."""

    async def delete(self, name: str) -> None:
        """Take one away."""


def agents_service(roster: Roster) -> Tree:
    """The service at `/agents`."""

    async def listing() -> Any:
        return list(await roster.list_agents())

    async def add(body: bytes, session: Session) -> bytes:
        return json_bytes(await roster.add(json_object(body)))

    async def names(session: Session) -> Sequence[str]:
        return [str(row["name"]) for row in await roster.list_agents()]

    async def find(name: str, session: Session) -> Folder | None:
        if not await roster.visit(name) and not roster.is_leaving(name):
            return None

        async def show() -> Any:
            return await roster.show(name)

        async def delete(body: bytes, session: Session) -> bytes:
            await roster.delete(name)
            return json_bytes({"name": name, "status": "deleted"})

        files: dict[str, File | Folder] = {
            "settings": File("what is known of it", read=json_reader(show)),
            "delete": File("delete it, and take back what it has published", call=delete),
        }
        return Folder("One agent.", files)

    files: dict[str, File | Folder] = {
        "list": File("all agents, as JSON", read=json_reader(listing)),
        "new": File("make an agent: its settings as in [[agent]], as JSON", call=add),
    }
    return Tree(Folder("The agents.", files, names, find, "<name>", "one agent", found_are_folders=True))
