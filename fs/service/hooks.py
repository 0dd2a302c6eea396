"""/hooks, for the operator: ways in for webhooks. A call becomes an event of the agent."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

from pydantic import Field

from fs.body import Body, Fact, parsed
from fs.service.model.waking import Deleted
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes

Scheme: TypeAlias = Literal["hmac", "hmac-timestamp", "token"]


class NewHook(Body):
    """A way in for webhooks: a call of it becomes an event of this type."""

    name: str
    event: str = Field("", description="webhook.<name> if it is left out")
    scheme: Scheme = "hmac"


class Hook(Fact):
    """One hook without its secret; `path` is its address on the control plane."""

    id: str
    name: str
    event: str
    scheme: Scheme
    created_at: int
    path: str


class HookSecret(Fact):
    """What a caller must know."""

    id: str
    secret: str


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
        hook = parsed(NewHook, body)
        return json_bytes(await hooks.add(session, hook.name, hook.event, hook.scheme))

    async def names(session: Session) -> Sequence[str]:
        return await hooks.names()

    async def find(name: str, session: Session) -> Folder | None:
        return one(name) if await hooks.find(name) is not None else None

    def one(name: str) -> Folder:
        async def read(session: Session) -> bytes:
            return json_bytes(await hooks.find(name))

        async def secret(body: bytes, session: Session) -> bytes:
            return json_bytes({"id": name, "secret": await hooks.secret(name)})

        async def delete(body: bytes, session: Session) -> bytes:
            await hooks.remove(session, name)
            return json_bytes({"id": name, "status": "deleted"})

        async def remove(session: Session) -> None:
            await hooks.remove(session, name)

        files = {
            "secret": File("show the secret that callers must know", call=secret, gives=HookSecret),
            "delete": File("close it", call=delete, gives=Deleted),
        }
        what = "One hook; reading it gives it as JSON, without its secret."
        return Folder(what, files, read=read, remove=remove, gives=Hook)

    about = (
        'make a hook: {"name": ..., "event": the type of the event that a call becomes (webhook.<name>), "scheme": '
        f"{', '.join(get_args(Scheme))}}}; its address is `path` on the control plane"
    )
    files: dict[str, File | Folder] = {"new": File(about, call=new, takes=NewHook, gives=Hook)}
    return Tree(
        Folder(
            "Ways in for webhooks.",
            files,
            names,
            find,
            "<id>",
            "one hook, as JSON; in it `secret` and `delete`",
            found_are_folders=True,
            sample=lambda: one("id"),
        )
    )
