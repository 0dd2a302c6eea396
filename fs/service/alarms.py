"""/alarms: when the agent is woken without anybody asking: once, again and again, or by the clock."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field

from fs.body import Body, Fact, parsed
from fs.service.model.waking import ID, Deleted
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes


class NewAlarm(Body):
    """An alarm: once (`at_ms` or `after_ms`), again and again (`every_ms`), or by the clock (`cron`)."""

    id: str = Field(json_schema_extra={"pattern": ID})
    at_ms: int | None = Field(None, description="Unix ms")
    after_ms: int | None = Field(None, description="ms from now")
    every_ms: int | None = Field(None, description="at least 1000")
    cron: str = Field("", description="UTC, or with CRON_TZ=zone before it")
    payload: dict[str, Any] = Field(default_factory=dict, description="what the agent is told")


class Alarm(Fact):
    """One alarm. Times are Unix ms, `created_at` Unix seconds."""

    id: str
    kind: Literal["once", "every", "cron"]
    due_ms: int
    every_ms: int
    cron: str
    fired_ms: int
    missed: int
    created_at: int
    payload: dict[str, Any]


class Alarms(Protocol):
    """What the node's alarms of one agent answer."""

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""

    async def find(self, alarm: str) -> Mapping[str, Any] | None:
        """One alarm, or None."""

    async def set(self, session: Session, alarm: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Set an alarm; one of this id is replaced."""

    async def cancel(self, session: Session, alarm: str) -> None:
        """Take an alarm away."""


def alarms_service(alarms: Alarms) -> Tree:
    """The service at `/alarms`."""

    async def new(body: bytes, session: Session) -> bytes:
        value = parsed(NewAlarm, body).given()
        name = value.pop("id")
        return json_bytes(await alarms.set(session, name, value))

    async def names(session: Session) -> Sequence[str]:
        return await alarms.names()

    async def find(name: str, session: Session) -> Folder | None:
        return one(name) if await alarms.find(name) is not None else None

    def one(name: str) -> Folder:
        async def read(session: Session) -> bytes:
            return json_bytes(await alarms.find(name))

        async def delete(body: bytes, session: Session) -> bytes:
            await alarms.cancel(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        async def remove(session: Session) -> None:
            await alarms.cancel(session, name)

        files = {"delete": File("take it away", call=delete, gives=Deleted)}
        return Folder("One alarm; reading it gives it as JSON.", files, read=read, remove=remove, gives=Alarm)

    about = (
        'set an alarm: {"id": ..., "at_ms" or "after_ms": ...} for once, with "every_ms" again and again, or "cron": '
        '"30 6 * * MON-FRI" (UTC; "CRON_TZ=Europe/Zurich " before it for another zone), and perhaps "payload": {...}; '
        "one of this id is replaced"
    )
    files: dict[str, File | Folder] = {"new": File(about, call=new, takes=NewAlarm, gives=Alarm)}
    return Tree(
        Folder(
            "What wakes the agent, and when.",
            files,
            names,
            find,
            "<id>",
            "one alarm, as JSON; in it `delete`",
            found_are_folders=True,
            sample=lambda: one("id"),
        )
    )
