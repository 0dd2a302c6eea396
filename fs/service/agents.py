"""/agents, for the operator: which agents there are; add one, change its settings, delete one."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.error import InvalidInput
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object, json_reader

PAGE = 1_000


class Roster(Protocol):
    """The node's agents."""

    async def visit(self, name: str) -> bool:
        """Whether there is one of this name; one that hibernates is not woken."""

    def is_leaving(self, name: str) -> bool:
        """Whether it was deleted, and its signer has not yet signed what takes back what it published."""

    async def list_agents(self, after: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """So many of them, with what is known of each, by name, those after a name."""

    async def show(self, name: str) -> Mapping[str, Any]:
        """One of them."""

    async def add(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make one."""

    async def set_settings(self, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give one other settings."""

    async def settings(self, name: str) -> Mapping[str, Any]:
        """The settings of one."""

    async def delete(self, name: str) -> None:
        """Take one away."""


class Transit(Protocol):
    """Agents that leave and come: `node.transit.Transit`."""

    async def export(self, name: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write one into an archive."""

    async def bring(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make one of an archive."""

    async def thaw(self, name: str) -> Mapping[str, Any]:
        """Let one go on that was frozen."""


def agents_service(roster: Roster, transit: Transit | None = None) -> Tree:
    """The service at `/agents`; without `transit` no agent leaves or comes."""

    async def listing() -> Any:
        return list(await roster.list_agents("", PAGE))

    async def after(body: bytes, session: Session) -> bytes:
        name = json_object(body, frozenset({"after"})).get("after", "")
        if type(name) is not str:
            raise InvalidInput('Write {"after": a name}.')
        return json_bytes(list(await roster.list_agents(name, PAGE)))

    async def add(body: bytes, session: Session) -> bytes:
        return json_bytes(await roster.add(json_object(body)))

    async def names(session: Session) -> Sequence[str]:
        return [str(row["name"]) for row in await roster.list_agents("", PAGE)]

    async def find(name: str, session: Session) -> Folder | None:
        if not await roster.visit(name) and not roster.is_leaving(name):
            return None

        async def show() -> Any:
            return await roster.show(name)

        async def settings() -> Any:
            return dict(await roster.settings(name))

        async def change(body: bytes, session: Session) -> None:
            await roster.set_settings(name, json_object(body))

        async def delete(body: bytes, session: Session) -> bytes:
            await roster.delete(name)
            return json_bytes({"name": name, "status": "deleted"})

        files: dict[str, File | Folder] = {
            "about": File("what is known of it", read=json_reader(show)),
            "settings": File(
                "all of its settings as in [[agent]], as JSON; written, they hold from its next tick on",
                read=json_reader(settings),
                write=change,
            ),
            "delete": File("delete it, and take back what it has published", call=delete),
        }
        return Folder("One agent.", files if transit is None else files | _moving(name, transit))

    files: dict[str, File | Folder] = {
        "list": File(
            f'agents by name, as JSON, the first {PAGE}; {{"after": a name}} for those after it',
            read=json_reader(listing),
            call=after,
        ),
        "new": File("make an agent: its settings as in [[agent]], as JSON", call=add),
    }
    if transit is not None:
        files["import"] = _importing(transit)
    return Tree(
        Folder(
            "The agents.",
            files,
            names,
            find,
            "<name>",
            "one agent: what is known of it, its settings, its end",
            found_are_folders=True,
        )
    )


def _moving(name: str, transit: Transit) -> dict[str, File | Folder]:
    async def export(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.export(name, json_object(body) if body.strip() else {}))

    async def thaw(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.thaw(name))

    return {
        "export": File('freeze it and write it into HOME/transfer: {"keep_running": false}', call=export),
        "thaw": File("let it go on here, if it was frozen", call=thaw),
    }


def _importing(transit: Transit) -> File:
    async def bring(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.bring(json_object(body)))

    return File('make an agent of what is in HOME/transfer: {"transfer": ..., "clone": null}', call=bring)
