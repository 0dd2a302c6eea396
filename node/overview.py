"""The relays as the operator sees them: how each is, what it says of itself, and what was found out by trying.

One source for `/nostr/relays`, `vendo relay list` and `/metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import orjson

from core.unit import Among, UnitOfWork
from relays.delay import Delay
from relays.health import RelayHealth

TABLE = "relay_fact"


class Watched(Protocol):
    """What an overview needs of the relay pool."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Our own relays."""

    def health(self) -> list[RelayHealth]:
        """What is known about each relay; copies."""


class RelayOverview:
    """Reads the pool's counters and the table of what relays said."""

    def __init__(self, pool: Watched, unit: UnitOfWork) -> None:
        self._pool, self._unit = pool, unit

    async def relays(self) -> list[dict[str, Any]]:
        """Each relay as plain values, our own first.

        `ours` is false for a relay that somebody else named. `information` is its NIP-11 document as far as it was
        understood, `traits` what was found out by trying, `asked_at` when (Unix seconds); null before the first time.
        `delay` and `round_trip` are `{"p50_ms", "p99_ms"}` of the last few hundred; null without any.
        """
        states = self._pool.health()
        facts = await self._facts([state.url for state in states])
        order = {url: place for place, url in enumerate(self._pool.urls)}
        rows = [_row(state, state.url in order, facts.get(state.url)) for state in states]
        return sorted(rows, key=lambda row: (order.get(row["url"], len(order)), row["url"]))

    def counters(self) -> list[tuple[RelayHealth, bool]]:
        """Each relay's counters, and whether it is one of ours."""
        return [(state, state.url in self._pool.urls) for state in self._pool.health()]

    async def _facts(self, urls: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        if not urls:
            return {}
        return {str(row["url"]): row for row in await self._unit.select(TABLE, {"url": Among(tuple(urls))})}


def _row(state: RelayHealth, ours: bool, fact: Mapping[str, Any] | None) -> dict[str, Any]:
    said = {
        "information": _object(fact["information"]) if fact else None,
        "traits": _object(fact["traits"]) if fact else None,
        "asked_at": int(fact["at"]) if fact else None,
    }
    counted = {one.name: _plain(getattr(state, one.name)) for one in fields(RelayHealth)}
    return {"url": state.url, "ours": ours, **counted, "reconnects": state.reconnects, **said}


def _plain(value: Any) -> Any:
    if not isinstance(value, Delay):
        return value
    half, most = value.quantile(0.5), value.quantile(0.99)
    return None if half is None or most is None else {"p50_ms": round(half * 1000, 1), "p99_ms": round(most * 1000, 1)}


def _object(text: str) -> dict[str, Any] | None:
    """What was kept as JSON; None for nothing."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if type(value) is dict else None
