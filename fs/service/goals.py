"""/goals/<id>: what the agent is to reach. PUT replaces a goal, DELETE takes it away, `list` has all of them in order.

A goal is an object of the form `Goal`. One that an older version stored holds whatever its agent wrote: it is read as
it is, stands at the end of the list, and takes the form when it is written again. Within a tick goals are as the tick
would leave them.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import orjson
from pydantic import Field, ValidationError, field_validator

from core.error import Conflict, InvalidInput
from fs.again import again
from fs.body import Body, Fact, parsed
from fs.error import NoSuchFile
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes

MAX_GOALS = 1_000
MAX_DESCRIPTION, MAX_NOTES = 2_000, 8_000
MAX_DEPTH = 16
LAST_MS = 4_102_444_800_000
"""2100-01-01, Unix ms: what is due later is a slip."""
LIST = "list"
_ID = r"[a-z0-9][a-z0-9_-]{0,63}"
_NAME = re.compile(_ID)
_AFTER_ALL = 10  # where goals of no form stand in the list

Id: TypeAlias = Annotated[str, Field(pattern=rf"^{_ID}$")]
Status: TypeAlias = Literal["active", "paused", "done", "failed"]
Time: TypeAlias = Annotated[int, Field(ge=0, lt=LAST_MS)]


class Goal(Body):
    """A goal as it is written.

    Attributes:
        id: its own, the name of the file; it may be left out.
        description: what is to be reached.
        priority: 0 to 9, the lower the more urgent, as in the inbox.
        status: whether the agent works on it, and how it ended.
        progress: percent.
        due_at_ms: when it is to be reached, Unix ms.
        parent: the id of the goal that this one is a part of.
        notes: what the agent, or its owner, thinks of it.
        updated_at_ms: when the goal was written that this one replaces: if that is another one by now, this one is
            refused. It may be left out.
    """

    id: Id | None = None
    description: str = Field(min_length=1, max_length=MAX_DESCRIPTION)
    priority: int = Field(5, ge=0, le=9)
    status: Status = "active"
    progress: int = Field(0, ge=0, le=100)
    due_at_ms: Time | None = None
    parent: Id | None = None
    notes: str = Field("", max_length=MAX_NOTES)
    updated_at_ms: Time | None = None

    @field_validator("description")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a description says something")
        return value


class KeptGoal(Goal):
    """A goal as it is read: `id` and `updated_at_ms` (Unix ms) are always there."""

    id: Id
    updated_at_ms: Time


class GoalList(Fact):
    """All goals, the most urgent first, then by id; those of no form last, under `free`. `counts` is per status."""

    counts: dict[str, int]
    goals: list[dict[str, Any]]


class Goals(Protocol):
    """What the node's goals of one agent answer."""

    async def names(self, session: Session) -> Sequence[str]:
        """Ids, sorted."""

    async def find(self, goal: str, session: Session) -> str | None:
        """The JSON that is kept, or None."""

    def each(self, session: Session) -> AsyncIterator[tuple[str, str]]:
        """Ids with their JSON, by id."""

    def now_ms(self) -> int:
        """Unix ms."""

    async def replace(self, goal: str, before: str | None, after: str | None, session: Session) -> None:
        """Put one JSON in the place of another; None is none.

        Raises:
            Conflict: what is there is not `before`.
            VendoError: the agent keeps too much.
        """


def kept_goal(goal: str, text: str) -> KeptGoal | None:
    """A goal that is kept; None if it has no form, as those of an older version."""
    try:
        found = KeptGoal.model_validate_json(text)
    except ValidationError:
        return None
    return found if found.id == goal else None


async def goal_list(goals: Goals, session: Session) -> dict[str, Any]:
    """All goals in order, as `GoalList` describes them."""
    rows: list[tuple[int, str, dict[str, Any]]] = []
    counts: dict[str, int] = {"active": 0, "paused": 0, "done": 0, "failed": 0}
    async for goal, text in goals.each(session):
        found = kept_goal(goal, text)
        status = found.status if found is not None else "free"
        counts[status] = counts.get(status, 0) + 1
        if found is not None:
            rows.append((found.priority, goal, found.model_dump(exclude_none=True)))
        else:
            rows.append((_AFTER_ALL, goal, {"id": goal, "free": orjson.Fragment(text)}))
    return {"counts": counts, "goals": [row for _, _, row in sorted(rows, key=lambda one: one[:2])]}


async def _check_parents(goals: Goals, goal: str, parent: str | None, session: Session) -> None:
    """Whether a goal may be a part of another one: that is there, is no part of this one in turn, and not too deep.

    Raises:
        InvalidInput: it may not.
    """
    above, depth = parent, 0
    while above is not None:
        depth += 1
        if above == goal:
            raise InvalidInput(f"The goal {goal!r} would be a part of itself.")
        if depth > MAX_DEPTH:
            raise InvalidInput(f"Goals are parts of goals at most {MAX_DEPTH} deep.")
        text = await goals.find(above, session)
        if text is None and above == parent:
            raise InvalidInput(f"There is no goal {parent!r} that this one could be a part of.")
        found = kept_goal(above, text) if text is not None else None
        above = found.parent if found is not None else None


def goals_service(goals: Goals) -> Tree:
    """The service at `/goals`."""

    async def put(goal: str, content: bytes, session: Session) -> None:
        wanted = parsed(Goal, content)
        if wanted.id not in (None, goal):
            raise InvalidInput(f"The goal says that its id is {wanted.id!r}, and this is {goal!r}.")
        before = await goals.find(goal, session)
        if before is None and len(await goals.names(session)) >= MAX_GOALS:
            raise InvalidInput(f"An agent has at most {MAX_GOALS} goals.")
        if wanted.updated_at_ms is not None:
            known = kept_goal(goal, before) if before is not None else None
            if known is None or known.updated_at_ms != wanted.updated_at_ms:
                raise Conflict("The goal was changed since it was read.", remedy="Read it again.")
        await _check_parents(goals, goal, wanted.parent, session)
        kept = wanted.model_copy(update={"id": goal, "updated_at_ms": goals.now_ms()})
        await goals.replace(goal, before, kept.model_dump_json(exclude_none=True), session)

    async def take(goal: str, session: Session) -> None:
        before = await goals.find(goal, session)
        if before is None:
            raise NoSuchFile
        await goals.replace(goal, before, None, session)

    def file(goal: str, text: str | None) -> File:
        async def read(session: Session) -> bytes:
            return (text or "").encode()

        async def write(content: bytes, session: Session) -> None:
            await again(lambda: put(goal, content, session), session)

        async def remove(session: Session) -> None:
            await again(lambda: take(goal, session), session)

        about = "one goal, as JSON"
        absent = text is None
        return File(about, read=read, write=write, remove=remove, takes=Goal, gives=KeptGoal, absent=absent)

    async def names(session: Session) -> Sequence[str]:
        return [name for name in await goals.names(session) if name != LIST]

    async def find(name: str, session: Session) -> File | None:
        if _NAME.fullmatch(name) is None:
            return None
        return file(name, await goals.find(name, session))

    async def everything(session: Session) -> bytes:
        return json_bytes(await goal_list(goals, session))

    about = (
        "What the agent is to reach. PUT a goal to a name of a-z, 0-9, - and _: "
        '{"description": "…", "priority": 0 (most urgent) to 9, "status": "active", "paused", "done" or "failed", '
        '"progress": percent, "due_at_ms": …, "parent": "<id>", "notes": "…"}; DELETE takes it away.'
    )
    files = {LIST: File("all of them, the most urgent first, and how many there are", read=everything, gives=GoalList)}
    return Tree(
        Folder(
            about, files, names, find, "<id>", "one goal, as JSON (read, write, remove)", sample=lambda: file("id", "")
        )
    )
