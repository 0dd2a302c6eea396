"""/hooks, for the operator: ways in for webhooks. A call becomes an event of the agent."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.error import InvalidInput
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object

_FIELDS = frozenset({"name", "event", "scheme"})
SCHEMES = ("hmac", "hmac-timestamp", "token")


class Hooks(Protocol):
    """What the node's hooks of one agent answer."""

    async def names(self) -> Sequence[str]:
        """Ids, oldest first."""

    async def find(self, hook: str) -> Mapping[str, Any] | None:
        """One hook without its secret, or None."""

    async def add(self, session: Session, name: str, event: str, scheme: str) -> Mapping[str, Any]:
        """Make a hook; the same key makes the same one."""

    async def remove(self, session: Session, hook: str) -> None:
        """Close a hook."""

    async def secret(self, hook: str) -> str:
        """What a caller must know."""


def hooks_service(hooks: Hooks) -> Tree:
    """The service at `/hooks`."""

    async def new(body: bytes, session: Session) -> bytes:
        value = json_object(body, _FIELDS)
        name, event, scheme = value.get("name"), value.get("event", ""), value.get("scheme", SCHEMES[0])
        if type(name) is not str or type(event) is not str or scheme not in SCHEMES:
            raise InvalidInput(f'A hook is {{"name": ..., "event": ..., "scheme": one of {", ".join(SCHEMES)}}}.')
        return json_bytes(await hooks.add(session, name, event, scheme))

    async def names(session: Session) -> Sequence[str]:
        return await hooks.names()

    async def find(name: str, session: Session) -> Folder | None:
        if await hooks.find(name) is None:
            return None

        async def read(session: Session) -> bytes:
            return json_bytes(await hooks.find(name))

        async def secret(body: bytes, session: Session) -> bytes:
            return json_bytes({"id": name, "secret": await hooks.secret(name)})

        async def delete(body: bytes, session: Session) -> bytes:
            await hooks.remove(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        files = {
            "secret": File("show the secret that callers must know", call=secret),
            "delete": File("close it", call=delete),
        }
        return Folder("One hook; reading it gives it as JSON, without its secret.", files, read=read)

    about = (
        'make a hook: {"name": ..., "event": the type of the event that a call becomes (webhook.<name>), "scheme": '
        f"{', '.join(SCHEMES)}}}; its address is `path` on the control plane"
    )
    files: dict[str, File | Folder] = {"new": File(about, call=new)}
    return Tree(
        Folder(
            "Ways in for webhooks.",
            files,
            names,
            find,
            "<id>",
            "one hook, as JSON; in it `secret` and `delete`",
            found_are_folders=True,
        )
    )
