"""What the public may see of an agent, from its rows. `fs/exposure.py` says what of them that is."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import orjson
from mnemonic import Mnemonic
from pydantic import ValidationError

from core.clock import Clock
from core.unit import Insert, UnitOfWork, Update, Write
from fs.exposure import public_event, public_goal, public_metrics, public_status
from fs.feed import Feed
from fs.protocol import Record
from fs.redaction import Redaction
from fs.service.hud import CHANGED, PRIVATE
from fs.service.model.hud import HudSettings
from fs.session import Then
from fs.tail import Following, Page, Tail
from node.agent.log import Trace, record, topic
from node.agent.metric import AgentMetrics
from node.agent.view import AgentView

KEY = "hud/"
CHANGES = "hud settings of "
GOALS = 100
_LOOKED_AT = 1_000  # records, of which most may not be for the public


@lru_cache(1)
def redaction() -> Redaction:
    """How secrets are taken out of what the public sees: the words of seeds are those of BIP-39, in English."""
    return Redaction(is_word=frozenset(Mnemonic("english").wordlist).__contains__)


class AgentHud:
    """One agent's public view.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        feed: tells watchers.
        view: its status.
        metrics: its numbers.
    """

    def __init__(
        self, agent: str, unit: UnitOfWork, clock: Clock, feed: Feed, view: AgentView, metrics: AgentMetrics
    ) -> None:
        self._agent, self._unit, self._clock, self._feed = agent, unit, clock, feed
        self._view, self._metrics = view, metrics
        self._events = PublicTrace(agent, unit)

    async def settings(self) -> HudSettings:
        """What is set; that nothing is public, if nothing is set."""
        return await self._events.settings()

    def save(self, before: HudSettings, settings: HudSettings) -> tuple[Sequence[Write], Then]:
        """Writes that change the settings, with a record in the trace, which also makes watchers look at them.

        They are a conflict if the settings are not as they were before: of two changes at once none undoes the other.
        """
        key, value, known = KEY + self._agent, settings.model_dump_json(), before.model_dump_json()
        return (
            (
                Insert("meta", {"key": key, "value": known}, or_ignore=True),
                Update("meta", {"key": key, "value": known}, {"value": value}, rows=1),
                record(self._agent, self._clock.millis(), "hud", value),
            ),
            self._changed,
        )

    def _changed(self) -> None:
        self._feed.grew(CHANGES + self._agent)
        self._feed.grew(topic(self._agent))

    def generation(self) -> int:
        """How often the settings were changed since the start."""
        return self._feed.count(CHANGES + self._agent)

    async def status(self) -> dict[str, Any]:
        """How it is doing.

        Raises:
            NotFound: there is no such agent.
        """
        return public_status(await self._view.status(), await self.settings(), redaction())

    async def goals(self) -> list[dict[str, Any]]:
        """What it is to reach, the first 100."""
        settings = await self.settings()
        rows = await self._unit.select("goal", {"agent": self._agent}, order=("id",), limit=GOALS)
        return [public_goal(row["id"], row["body"], settings, redaction()) for row in rows]

    async def metrics(self) -> dict[str, Any]:
        """Its numbers.

        Raises:
            NotFound: there is no such agent.
        """
        facts = {
            "ticks": await self._metrics.ticks(),
            "apm": await self._metrics.apm(),
            "queue": await self._metrics.queue(),
        }
        return public_metrics(facts, await self.settings())

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        return await self._events.recent(limit)

    def follow(self, after: int | None) -> Following:
        """Events past a cursor as they come; those that are not public come after a `PRIVATE` record.

        Whoever comes after a change shares nothing with those from before it: what they hold was shown as it was then.
        """
        name = f"hud:{self._agent}:{self.generation()}"
        return self._feed.shared(name, lambda: Tail(self._feed, topic(self._agent), self._events)).follow(after)


class PublicTrace:
    """The events of one agent, as `fs.tail.Source`: its trace as the public sees it."""

    def __init__(self, agent: str, unit: UnitOfWork) -> None:
        self._agent, self._unit = agent, unit
        self._trace = Trace(agent, unit)

    async def settings(self) -> HudSettings:
        """What is set. What cannot be read is private."""
        rows = await self._unit.select("meta", {"key": KEY + self._agent})
        try:
            return HudSettings.model_validate_json(rows[0]["value"]) if rows else HudSettings()
        except ValidationError:
            return HudSettings()

    async def span(self) -> tuple[int, int]:
        """As `Trace.span`."""
        return await self._trace.span()

    async def page(self, after: int) -> Page:
        """The next events past a cursor. The settings are read after the records: what was public then may be shown."""
        rows, more = await self._trace.rows(after)
        told = await self._trace.told(rows, more=more)
        settings = await self.settings()
        cursor = rows[-1]["n"] if rows else after
        records = [] if not rows or settings.shows("stream") else [Record(cursor, b"{}", PRIVATE)]
        records += [Record(row["n"], b"{}", CHANGED) for row in rows if row["type"] == "hud"]
        events = [public_event(self._agent, one, settings, redaction()) for one in told]
        records += [Record(one["id"], orjson.dumps(one), one["event_type"]) for one in events if one is not None]
        return Page(records, cursor, more)

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last events of the last 1,000 records, oldest first."""
        settings = await self.settings()
        rows = await self._unit.select("log", {"agent": self._agent}, order=("-n",), limit=_LOOKED_AT)
        told = await self._trace.told(rows[::-1], more=False)
        events = [public_event(self._agent, one, settings, redaction()) for one in told]
        return [event for event in events if event is not None][-limit:]
