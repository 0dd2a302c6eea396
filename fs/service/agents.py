"""/agents, for the operator: which agents there are; add one, change its settings, delete one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import RootModel

from fs.body import parsed
from fs.protocol import Stat
from fs.service.model.agent import After, Agent, AgentState, Export, Exported, Import, Imported
from fs.session import Session
from fs.tree import File, Folder, Schema, Tree, json_bytes, json_object, json_reader

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


def agents_service(roster: Roster, transit: Transit | None = None, settings: Schema = None) -> Tree:
    """The service at `/agents`.

    Args:
        roster: the agents.
        transit: without it no agent leaves or comes.
        settings: what an agent's settings look like; the roster checks them.
    """

    async def listing() -> Any:
        return list(await roster.list_agents("", PAGE))

    async def after(body: bytes, session: Session) -> bytes:
        return json_bytes(list(await roster.list_agents(parsed(After, body).after, PAGE)))

    async def add(body: bytes, session: Session) -> bytes:
        return json_bytes(await roster.add(json_object(body)))

    async def entries(session: Session) -> AsyncIterator[Stat]:
        last = ""
        while True:
            rows = await roster.list_agents(last, PAGE)
            for row in rows:
                yield Stat(str(row["name"]), True)
            if len(rows) < PAGE:
                return
            last = str(rows[-1]["name"])

    async def find(name: str, session: Session) -> Folder | None:
        there = await roster.visit(name) or roster.is_leaving(name)
        return _agent(name, roster, transit, settings) if there else None

    files: dict[str, File | Folder] = {
        "list": File(
            f'agents by name, as JSON, the first {PAGE}; {{"after": a name}} for those after it',
            read=json_reader(listing),
            call=after,
            takes=After,
            gives=RootModel[list[Agent]],
        ),
        "new": File("make an agent: its settings as in [[agent]], as JSON", call=add, takes=settings, gives=Agent),
    }
    if transit is not None:
        files["import"] = _importing(transit)
    return Tree(
        Folder(
            "The agents.",
            files,
            None,
            find,
            "<name>",
            "one agent: what is known of it, its settings, its end",
            found_are_folders=True,
            entries=entries,
            sample=lambda: _agent("name", roster, transit, settings),
        )
    )


def _agent(name: str, roster: Roster, transit: Transit | None, settings: Schema) -> Folder:
    async def show() -> Any:
        return await roster.show(name)

    async def read_settings() -> Any:
        return dict(await roster.settings(name))

    async def change(body: bytes, session: Session) -> None:
        await roster.set_settings(name, json_object(body))

    async def delete(body: bytes, session: Session) -> bytes:
        await roster.delete(name)
        return json_bytes({"name": name, "status": "deleted"})

    async def remove(session: Session) -> None:
        await roster.delete(name)

    files: dict[str, File | Folder] = {
        "about": File("what is known of it", read=json_reader(show), gives=Agent),
        "settings": File(
            "all of its settings as in [[agent]], as JSON; written, they hold from its next tick on",
            read=json_reader(read_settings),
            write=change,
            takes=settings,
            gives=settings,
        ),
        "delete": File("delete it, and take back what it has published", call=delete, gives=AgentState),
    }
    return Folder("One agent.", files if transit is None else files | _moving(name, transit), remove=remove)


def _moving(name: str, transit: Transit) -> dict[str, File | Folder]:
    async def export(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.export(name, json_object(body) if body.strip() else {}))

    async def thaw(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.thaw(name))

    about = 'freeze it and write it into HOME/transfer: {"keep_running": false}'
    return {
        "export": File(about, call=export, takes=Export, gives=Exported),
        "thaw": File("let it go on here, if it was frozen", call=thaw, gives=AgentState),
    }


def _importing(transit: Transit) -> File:
    async def bring(body: bytes, session: Session) -> bytes:
        return json_bytes(await transit.bring(json_object(body)))

    about = 'make an agent of what is in HOME/transfer: {"transfer": ..., "clone": null}'
    return File(about, call=bring, takes=Import, gives=Imported)
