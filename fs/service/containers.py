"""/containers: sessions to run code in. No provider is part of this node yet, and `new` says so."""

from typing import NoReturn

from core.error import Unavailable
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes


class NoContainerProvider(Unavailable):
    """No provider of containers is configured on this node."""

    code = "containers.no_provider"
    status = 409  # trying again does not help
    remedy = "Buy the work as a job instead (/compute/new), or configure a container provider."


def containers_service() -> Tree:
    """The service at `/containers`."""

    async def refuse(body: bytes, session: Session) -> NoReturn:
        raise NoContainerProvider

    async def none(session: Session) -> bytes:
        return json_bytes([])

    return Tree(
        Folder(
            "Sessions to run code in.",
            {
                "new": File("start a session: needs a container provider, and there is none", call=refuse),
                "providers": File("who can run containers, as a JSON list", read=none, gives={"type": "array"}),
            },
        )
    )
