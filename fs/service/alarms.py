"""/alarms: when the agent is woken without anybody asking: once, again and again, or by the clock."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.error import InvalidInput
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object

_FIELDS = frozenset({"id", "at_ms", "after_ms", "every_ms", "cron", "payload"})
_NUMBERS = ("at_ms", "after_ms", "every_ms")


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


def _checked(body: bytes) -> tuple[str, dict[str, Any]]:
    value = json_object(body, _FIELDS)
    name, payload = value.pop("id", None), value.get("payload", {})
    if type(name) is not str:
        raise InvalidInput("An alarm has an id.")
    if any(value.get(one) is not None and type(value[one]) is not int for one in _NUMBERS):
        raise InvalidInput(f"{', '.join(_NUMBERS)} are whole numbers of milliseconds.")
    if type(value.get("cron", "")) is not str or type(payload) is not dict:
        raise InvalidInput("cron is a text, payload an object.")
    return name, value


def alarms_service(alarms: Alarms) -> Tree:
    """The service at `/alarms`."""

    async def new(body: bytes, session: Session) -> bytes:
        name, value = _checked(body)
        return json_bytes(await alarms.set(session, name, value))

    async def names(session: Session) -> Sequence[str]:
        return await alarms.names()

    async def find(name: str, session: Session) -> Folder | None:
        if await alarms.find(name) is None:
            return None

        async def read(session: Session) -> bytes:
            return json_bytes(await alarms.find(name))

        async def delete(body: bytes, session: Session) -> bytes:
            await alarms.cancel(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        return Folder(
            "One alarm; reading it gives it as JSON.", {"delete": File("take it away", call=delete)}, read=read
        )

    about = (
        'set an alarm: {"id": ..., "at_ms" or "after_ms": ...} for once, with "every_ms" again and again, or "cron": '
        '"30 6 * * MON-FRI" (UTC; "CRON_TZ=Europe/Zurich " before it for another zone), and perhaps "payload": {...}; '
        "one of this id is replaced"
    )
    files: dict[str, File | Folder] = {"new": File(about, call=new)}
    return Tree(
        Folder(
            "What wakes the agent, and when.",
            files,
            names,
            find,
            "<id>",
            "one alarm, as JSON; in it `delete`",
            found_are_folders=True,
        )
    )
