"""/ctl: what the operator does to an agent or to the node: pause, resume, tick; hibernate, stop, release."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from core.identifier import derived_id
from fs.body import Fact
from fs.service.model.agent import AgentState
from fs.service.model.envelope import Posted
from fs.session import Session
from fs.tree import File, Folder, Node, Tree, json_bytes


class Pause(Fact):
    """Whether new effects wait."""

    paused: bool


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

    async def manual(self, session: Session, envelope_id: str, reason: str) -> None:
        """Queue a manual tick; one that is queued already stays."""


class Lives(Protocol):
    """Changes what agents are; each answers the agent's status then."""

    async def hibernate(self, name: str) -> str:
        """Keep nothing of it but its row, until a trigger wakes it."""

    async def wake(self, name: str) -> str:
        """End its hibernation, without a trigger."""

    async def stop(self, name: str) -> str:
        """No more ticks until `start`."""

    async def start(self, name: str) -> str:
        """Ticks again."""

    async def release(self, name: str) -> str:
        """Let it out of quarantine."""


def ctl_service(switch: Switch, ticker: Ticker | None = None, lives: Lives | None = None, name: str = "") -> Tree:
    """The service at `/ctl`.

    Args:
        switch: the node's.
        ticker: an agent's; without it there is no `tick`.
        lives: what changes agents; without it there is nothing of that.
        name: the agent.
    """

    async def pause(body: bytes, session: Session) -> bytes:
        await switch.pause()
        return json_bytes({"paused": True})

    async def resume(body: bytes, session: Session) -> bytes:
        await switch.resume()
        return json_bytes({"paused": False})

    async def paused(session: Session) -> bytes:
        return json_bytes({"paused": await switch.paused()})

    files: dict[str, Node] = {
        "pause": File("begin no new effects; open money is finished", read=paused, call=pause, gives=Pause),
        "resume": File("begin new effects again", call=resume, gives=Pause),
    }
    if ticker is not None:
        files["tick"] = _tick_file(ticker)
    if lives is not None:
        files |= {
            "hibernate": _life_file("let it sleep until its next trigger", lives.hibernate, name),
            "wake": _life_file("end its sleep without a trigger", lives.wake, name),
            "stop": _life_file("no more ticks: what comes for it waits", lives.stop, name),
            "start": _life_file("ticks again after a stop", lives.start, name),
            "release": _life_file("let it out of quarantine", lives.release, name),
        }
    return Tree(Folder("Control, for the operator. POST to a file to do what its name says.", files))


def _tick_file(ticker: Ticker) -> File:
    async def tick(body: bytes, session: Session) -> bytes:
        envelope_id = derived_id(session.caller, "/ctl/tick", session.effect_key())
        reason = body.decode("utf-8", "replace").strip()[:200]
        await ticker.manual(session, envelope_id, reason)
        return json_bytes({"envelope_id": envelope_id, "status": "queued"})

    return File("queue a manual tick; the body is the reason", call=tick, gives=Posted)


def _life_file(about: str, change: Callable[[str], Awaitable[str]], name: str) -> File:
    async def call(body: bytes, session: Session) -> bytes:
        return json_bytes({"name": name, "status": await change(name)})

    return File(about, call=call, gives=AgentState)
