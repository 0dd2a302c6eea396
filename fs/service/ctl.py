"""/ctl: what the operator does to an agent or to the node: pause, resume, tick."""

from typing import Protocol

from core.identifier import derived_id
from core.unit import Write
from fs.session import Session
from fs.tree import File, Folder, Node, Tree, json_bytes


class Switch(Protocol):
    """Stops and allows new effects. It lasts over restarts."""

    async def pause(self) -> None:
        """Begin no new effects; finish what is open."""

    async def resume(self) -> None:
        """Begin new effects again."""

    async def paused(self) -> bool:
        """Whether it is paused."""


class Ticker(Protocol):
    """Wakes one agent."""

    def manual(self, envelope_id: str, reason: str) -> tuple[Write, ...]:
        """Writes that queue a manual tick; one that is queued already stays."""

    def notify(self) -> None:
        """Say that a committed envelope waits."""


def ctl_service(switch: Switch, ticker: Ticker | None = None) -> Tree:
    """The service at `/ctl`; without a ticker there is no `tick`."""

    async def pause(body: bytes, session: Session) -> bytes:
        await switch.pause()
        return json_bytes({"paused": True})

    async def resume(body: bytes, session: Session) -> bytes:
        await switch.resume()
        return json_bytes({"paused": False})

    async def paused(session: Session) -> bytes:
        return json_bytes({"paused": await switch.paused()})

    files: dict[str, Node] = {
        "pause": File("begin no new effects; open money is finished", read=paused, call=pause),
        "resume": File("begin new effects again", call=resume),
    }
    if ticker is not None:
        files["tick"] = _tick_file(ticker)
    return Tree(Folder("Control, for the operator. POST to a file to do what its name says.", files))


def _tick_file(ticker: Ticker) -> File:
    async def tick(body: bytes, session: Session) -> bytes:
        envelope_id = derived_id(session.caller, "/ctl/tick", session.effect_key())
        reason = body.decode("utf-8", "replace").strip()[:200]
        await session.apply(ticker.manual(envelope_id, reason), ticker.notify)
        return json_bytes({"envelope_id": envelope_id, "status": "queued"})

    return File("queue a manual tick; the body is the reason", call=tick)
