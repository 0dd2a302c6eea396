"""/goals/<id>: what the agent is to reach, as JSON objects that replace each other whole."""

import re
from collections.abc import Sequence
from typing import Protocol

from core.error import InvalidInput
from core.unit import Write
from fs.session import Session
from fs.tree import File, Folder, Tree, json_object

MAX_GOALS = 1_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Goals(Protocol):
    """What the node's goals of one agent answer."""

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""

    async def find(self, goal: str) -> str | None:
        """The JSON that was written, or None."""

    def put(self, goal: str, body: str, before: int) -> tuple[Write, ...]:
        """Writes that replace a goal that had so many bytes before."""


def goals_service(goals: Goals) -> Tree:
    """The service at `/goals`."""

    def file(goal: str, body: str | None) -> File:
        async def read(session: Session) -> bytes:
            return (body or "").encode()

        async def write(content: bytes, session: Session) -> None:
            json_object(content)
            if body is None and len(await goals.names()) >= MAX_GOALS:
                raise InvalidInput(f"An agent has at most {MAX_GOALS} goals.")
            await session.apply(goals.put(goal, content.decode(), _before(session, goal, body, len(content))))

        return File("one goal, as JSON", read=read if body is not None else None, write=write)

    async def names(session: Session) -> Sequence[str]:
        return await goals.names()

    async def find(name: str, session: Session) -> File | None:
        if _NAME.fullmatch(name) is None:
            return None
        return file(name, await goals.find(name))

    about = "What the agent is to reach. PUT a JSON object to a name of a-z, 0-9, - and _ to set a goal."
    return Tree(Folder(about, {}, names, find, "<id>", "one goal, as JSON (read, write)"))


def _before(session: Session, goal: str, body: str | None, after: int) -> int:
    """How many bytes a goal has: as it stands, or as the same tick has written it already."""
    stands = len((body or "").encode())
    if session.batch is None:
        return stands
    name = f"goals/{goal}"
    before = int(session.batch.marks.get(name, stands))
    session.batch.marks[name] = str(after)
    return before
