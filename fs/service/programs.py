"""/programs, for the operator: what agents can be made of, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import RootModel

from fs.body import parsed
from fs.secret import Secret
from fs.service.model.node import AgentName, AgentSecret, Program, ProgramName
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader


class Programs(Protocol):
    """The node's programs: `node.agent.load.library.Library`."""

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """All of them."""

    async def reload(self, name: str) -> None:
        """Take a changed file up; agents that were set aside for want of it go on."""

    async def secret(self, agent: str) -> Secret:
        """What signs the triggers that are sent to an agent by webhook."""


def programs_service(programs: Programs) -> Tree:
    """The service at `/programs`."""

    async def listing() -> Any:
        return list(programs.rows())

    async def reload(body: bytes, session: Session) -> bytes:
        name = parsed(ProgramName, body).name
        await programs.reload(name)
        return json_bytes(next(row for row in programs.rows() if row["name"] == name))

    async def secret(body: bytes, session: Session) -> bytes:
        agent = parsed(AgentName, body).agent
        found = await programs.secret(agent)
        return Secret(json_bytes({"agent": agent, "secret": found.decode()}))

    signs = 'what signs the triggers of an agent that is a webhook: {"agent": "..."}'
    files: dict[str, File | Folder] = {
        "list": File(
            "all programs: name, source, where, digest, problem",
            read=json_reader(listing),
            gives=RootModel[list[Program]],
        ),
        "reload": File('take a changed file up: {"name": "..."}', call=reload, takes=ProgramName, gives=Program),
        "secret": File(signs, call=secret, takes=AgentName, gives=AgentSecret),
    }
    return Tree(Folder("What agents can be made of.", files))
