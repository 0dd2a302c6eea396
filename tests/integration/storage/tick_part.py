"""Ticks of a few agents straight through a store, and what must be true of the file whatever the disk did meanwhile."""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from core.error import StoreUncertain, VendoError
from core.unit import Append, Insert, Update, Write
from node.storage.database import Database

RUN = "run"


def agent(name: str, state: str = "0") -> Insert:
    return Insert(
        "agent",
        {
            "name": name, "program": "p", "pubkey": "k", "status": "active", "state_version": 1, "state": state,
            "created_at": 0,
        },
    )  # fmt: skip


def message(name: str, number: int) -> Insert:
    return Insert(
        "inbox",
        {
            "agent": name, "envelope_id": f"{name} {number}", "cause": "message", "source": "s", "sender": "",
            "payload": '{"text": "' + "x" * 500 + '"}', "at": 0,
        },
    )  # fmt: skip


class Agents:
    """So many agents, each with messages that wait. Each tick counts one up, in six tables."""

    def __init__(self, base: Database, count: int, messages: int) -> None:
        self.base, self.names, self._messages = base, [f"a{number}" for number in range(count)], messages
        self.acknowledged: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    async def make(self, state: str = "0") -> None:
        for name in self.names:
            await self.base.commit([agent(name, state), *(message(name, number) for number in range(self._messages))])

    async def _unit(self, name: str) -> tuple[str, list[Write]]:
        (row,) = await self.base.select("agent", {"name": name})
        waiting = await self.base.select("inbox", {"agent": name, "state": "new"}, order=["priority", "n"], limit=1)
        tick_id = f"{name} {row['version']}"
        return tick_id, [
            Update("agent", {"name": name, "version": row["version"]},
                   set={"state": str(int(row["state"]) + 1)}, add={"version": 1, "ticks": 1}),
            Update("inbox", {"n": waiting[0]["n"], "state": "new"}, set={"state": "done", "ended_at": 1}),
            Insert("tick", {"id": tick_id, "agent": name, "envelope_id": waiting[0]["envelope_id"], "cause": "message",
                            "at_ms": 0, "duration_ms": 0, "version": row["version"]}),
            Insert("outbox", {"event_id": tick_id, "relay": "ws://r", "raw": "y" * 500, "effect_id": tick_id}),
            Append(RUN, "begin", tick_id, "{}"),
        ]  # fmt: skip

    async def tick(self, name: str) -> None:
        """One tick. What may or may not be there is looked up, as every driver must."""
        tick_id, writes = await self._unit(name)
        try:
            await self.base.commit(writes)
        except VendoError as error:
            self.codes[error.code] += 1
            if not isinstance(error, StoreUncertain) or not await self.base.count("tick", {"id": tick_id}):
                return
        self.acknowledged[name] += 1

    async def round(self) -> None:
        """A tick of each, at once."""
        await asyncio.gather(*map(self.tick, self.names))


def check(path: Path) -> Counter[str]:
    """All that ticks wrote is there whole or not at all, and SQLite finds its file sound. Says who ticked how often."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ticks = Counter(dict(db.execute("SELECT agent, count(*) FROM tick GROUP BY agent")))
        agents = db.execute("SELECT name, CAST(state AS INTEGER), version, ticks FROM agent").fetchall()
        assert all(state == version == counted == ticks[name] for name, state, version, counted in agents)
        done = db.execute("SELECT agent, count(*) FROM inbox WHERE state = 'done' GROUP BY agent")
        assert Counter(dict(done)) == ticks
        ids = {name for (name,) in db.execute("SELECT id FROM tick")}
        assert {name for (name,) in db.execute("SELECT event_id FROM outbox")} == ids
        entries = db.execute("SELECT seq, id, prev, effect_id FROM entry ORDER BY seq").fetchall()
        assert [seq for seq, *_ in entries] == list(range(len(ids)))
        assert [prev for _, _, prev, _ in entries] == ["", *(name for _, name, _, _ in entries[:-1])][: len(entries)]
        assert {effect for *_, effect in entries} == ids
    return ticks
