"""/hud: what the public may see of an agent: nothing, until its operator says so.

Public means callers without a token. What they see is an allow-list (`fs/exposure.py`). The agent and its operator can
always look: they see what the public would.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson
from pydantic import RootModel

from core.unit import Write
from fs.batch import Batch, Batched, Later
from fs.body import parsed
from fs.error import AccessDenied
from fs.protocol import Content, Path, Record, Stat
from fs.service.model.hud import HudEvent, HudSettings, PublicGoal, PublicMetrics, PublicStatus
from fs.session import Role, Session, Then
from fs.tree import README, File, Folder, Tree, json_bytes, json_reader

RECENT = 200
PRIVATE = "private"
"""The type of the record with which every batch begins that is not for the public; who has watched so far is let go."""


CHANGED = "changed"
"""The type of the record that says that the settings were changed; whoever has watched since before is let go."""


class Hud(Protocol):
    """What the node's public view of one agent answers. All but `settings` and `save` is as the public sees it."""

    async def settings(self) -> HudSettings:
        """What is set; the default, if nothing is."""

    def save(self, before: HudSettings, settings: HudSettings) -> tuple[Sequence[Write], Then]:
        """Writes that change the settings, and what to do then. A conflict if they are not as before any more."""

    def generation(self) -> int:
        """How often the settings were changed since the start."""

    async def status(self) -> Mapping[str, Any]:
        """How the agent is doing."""

    async def goals(self) -> Sequence[Mapping[str, Any]]:
        """What it is to reach."""

    async def metrics(self) -> Mapping[str, Any]:
        """Its numbers."""

    async def recent(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last events, oldest first."""

    def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Events past a cursor as they come.

        A batch that the public must not see begins with a `PRIVATE` record; each change of the settings is a `CHANGED`.
        """


def changed(settings: HudSettings, body: bytes) -> HudSettings:
    """The settings with what a PUT names; what it leaves out stays.

    Raises:
        InvalidInput: it is no JSON object, or has a field that is not known or not of its type.
    """
    return settings.model_copy(update=parsed(HudSettings, body).given())


class HudService(Tree):
    """The service at `/hud`: a tree that callers without a token see as far as its settings say."""

    def __init__(self, hud: Hud) -> None:
        super().__init__(_folder(hud))
        self._settings = hud.settings

    async def _admit(self, path: Path, session: Session) -> HudSettings | None:
        """The settings that hold for this caller; None: all is to be seen.

        Raises:
            AccessDenied: this is not for the public.
        """
        if session.role >= Role.AGENT:
            return None
        settings = await self._settings()
        if not settings.public or (path and path != (README,) and not settings.shows(path[0])):
            raise AccessDenied("This is not public.", remedy="Ask the agent's operator, or come with a token.")
        return settings

    async def stat(self, path: Path, session: Session) -> Stat:
        """See `FileService`."""
        await self._admit(path, session)
        return await super().stat(path, session)

    async def list(self, path: Path, session: Session) -> AsyncIterator[Stat]:
        """See `FileService`. The public sees what it may look at."""
        settings = await self._admit(path, session)
        async for stat in super().list(path, session):
            if settings is None or stat.name == README or settings.shows(stat.name):
                yield stat

    async def read(self, path: Path, session: Session, *, plain: bool = False) -> Content:
        """See `FileService`."""
        await self._admit(path, session)
        return await super().read(path, session, plain=plain)

    def watch(self, path: Path, session: Session, after: int | None) -> AsyncIterator[Record]:
        """See `FileService`."""
        watch = super().watch

        async def begin() -> AsyncIterator[Record]:
            await self._admit(path, session)
            return watch(path, session, after)

        return Later(begin)


def hud_service(hud: Hud) -> HudService:
    """The service at `/hud`."""
    return HudService(hud)


def _folder(hud: Hud) -> Folder:
    async def settings() -> Any:
        return (await hud.settings()).model_dump()

    async def write(body: bytes, session: Session) -> None:
        before = await hud.settings()
        writes, then = hud.save(before, changed(before, body))
        await session.apply(writes, then)

    async def lines(session: Session) -> bytes:
        return b"".join(orjson.dumps(event) + b"\n" for event in await hud.recent(RECENT))

    async def goals(session: Session) -> bytes:
        return json_bytes(await hud.goals())

    def follow(session: Session, after: int | None) -> AsyncIterator[Record]:
        since = hud.generation()
        is_public = session.role < Role.AGENT
        return Seen(hud.follow(after), lambda: is_public and hud.generation() != since, is_public=is_public)

    about = (
        'who sees what: {"public": false, "show": ["status", "goals", "metrics", "stream"], "show_text": false}; '
        "PUT what is to change"
    )
    files: dict[str, File | Folder] = {
        "settings": File(
            about, read=json_reader(settings), write=write, max_bytes=4_096, takes=HudSettings, gives=HudSettings
        ),
        "status": File("how the agent is doing", read=json_reader(hud.status), gives=PublicStatus),
        "goals": File("what it is to reach, a JSON list", read=goals, gives=RootModel[list[PublicGoal]]),
        "metrics": File("its numbers", read=json_reader(hud.metrics), gives=PublicMetrics),
        "stream": File(
            f"what it does, as it does it; read, the last {RECENT} events, one a line",
            read=lines,
            watch=follow,
            stream=True,
            gives=HudEvent,
        ),
    }
    return Folder("What the public may see of this agent: nothing, until `settings` say so.", files)


_MARKS = frozenset({PRIVATE, CHANGED})


class Seen:
    """Events as one caller sees them: without marks of what is private, or as the public, until the first of them."""

    __slots__ = ("_has_ended", "_is_over", "_is_public", "_records")

    def __init__(self, records: AsyncIterator[Record], is_over: Callable[[], bool], *, is_public: bool) -> None:
        self._records, self._is_over, self._is_public, self._has_ended = records, is_over, is_public, False

    def __aiter__(self) -> "Seen":
        return self

    async def __anext__(self) -> Record:
        """The next event.

        Raises:
            StopAsyncIteration: there are none for the public any more.
        """
        while not self._has_ended:
            record = await anext(self._records)
            self._has_ended = self._is_over() or (record.type == PRIVATE and self._is_public)
            if record.type not in _MARKS and not self._has_ended:
                return record
        raise StopAsyncIteration

    async def batch(self) -> Batch:
        """See `fs.batch.Batched`."""
        if not isinstance(self._records, Batched):
            record = await anext(self)
            return Batch((record,), record.id - 1, record.id)
        while not self._has_ended:
            batch = await self._records.batch()
            is_private = self._is_public and any(record.type == PRIVATE for record in batch.records)
            self._has_ended = self._is_over() or is_private
            if self._has_ended:
                break
            mine = [one for one in batch.records if one.type not in _MARKS]
            if len(mine) == len(batch.records):
                return batch
            if mine:
                return Batch(mine, batch.after, batch.cursor)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Watch no longer."""
        self._has_ended = True
        close: Callable[[], Any] | None = getattr(self._records, "aclose", None)
        if close is not None:
            await close()
