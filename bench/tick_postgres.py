"""The floor of durable ticks on PostgreSQL: the same rows in the same tables by hand, with no store and no engine.

A transaction is one prepared statement that writes all its rows, with an array for each column, behind one that loads
what the ticks need: two round trips, which is the least. Nothing is signed and nothing is checked. The server runs on
the same two processors.
"""

import asyncio
import time

import asyncpg

from bench.tick_floor import Store
from bench.tick_row import EVENT, LETTER, NOW, RELAY, STATE, fill, mark, messages, names
from bench.tick_row import agent as agent_row
from core.clock import Clock, SystemClock
from node.storage.chain import Seal, unsigned_seal
from node.storage.database import open_database
from tests.postgres_part import drop, fresh_database, is_there

__all__ = ["PostgresGround", "is_there"]

_LOAD = """SELECT a.name, a.version, a.epoch, a.state, i.n, i.envelope_id, i.payload FROM agent a CROSS JOIN LATERAL
    (SELECT n, envelope_id, payload FROM inbox WHERE agent = a.name AND state = 'new' ORDER BY priority, n LIMIT 1) i
    WHERE a.name = ANY($1::text[])"""
_TICK = f"""WITH r AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[],
        $8::text[], $9::text[], $10::text[], $11::text[])
        AS r(agent, version, epoch, n, tick, envelope, seq, prev, state, letter, event)),
a AS (UPDATE agent SET state = r.state, state_version = 1, last_tick_at = {NOW}, last_cause = 'message',
    version = agent.version + 1, ticks = ticks + 1
    FROM r WHERE agent.name = r.agent AND agent.version = r.version AND agent.epoch = r.epoch RETURNING 1),
i AS (UPDATE inbox SET state = 'done', payload = '', ended_at = {NOW}
    FROM r WHERE inbox.n = r.n AND inbox.state = 'new' RETURNING 1),
t AS (INSERT INTO tick (id, agent, envelope_id, cause, at_ms, duration_ms, error, tries, version, code, usage)
    SELECT r.tick, r.agent, r.envelope, 'message', {NOW}000, 1, '', 0, r.version, '', '{{}}' FROM r),
o AS (INSERT INTO outbox (event_id, relay, raw, effect_id, state, tries, next_at_ms, reason)
    SELECT r.tick, '{RELAY}', r.letter, 'bench', 'pending', 0, 0, '' FROM r),
e AS (INSERT INTO entry (run, seq, id, prev, type, effect_id, raw)
    SELECT 'floor', r.seq, r.tick, r.prev, 'begin', r.tick, r.event FROM r)
SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM i)"""


class PostgresGround:
    """A database of a server that the bench starts for itself, in the mode in which a node opens it."""

    name, short = "PostgreSQL", "fsync on"
    durability = "fsync, full_page_writes and synchronous_commit on: one flush of the log before a commit returns"
    grouped = 0.5

    def __init__(self) -> None:
        self._url = ""

    def slowed(self, seconds: float) -> None:
        """As `Ground.slowed`: a server's own fsync cannot be slowed from here."""
        return

    async def open(self, seal: Seal, clock: Clock) -> Store:
        """As `Ground.open`."""
        if self._url:
            await drop(self._url)
        self._url = await fresh_database()
        return await open_database(self._url, seal=seal, clock=clock)

    async def prepare(self, ticks: int, agents: int) -> None:
        """As `Ground.prepare`."""
        store = await self.open(unsigned_seal, SystemClock())
        every = names(agents)
        await fill(store, map(agent_row, every))
        await fill(store, messages(every, ticks))
        await store.aclose()

    def floor(self, ticks: int, group: int, agents: int) -> list[float]:
        """As `Ground.floor`."""
        return asyncio.run(self._floor(ticks, group, agents))

    async def _floor(self, ticks: int, group: int, agents: int) -> list[float]:
        every, took = names(agents), []
        settings = {"jit": "off", "plan_cache_mode": "force_generic_plan", "synchronous_commit": "on"}
        db = await asyncpg.connect(self._url, server_settings=settings)
        load, tick = await db.prepare(_LOAD), await db.prepare(_TICK)
        for first in range(0, ticks, group):
            begun = time.perf_counter()
            mine = [every[number % agents] for number in range(first, min(first + group, ticks))]
            loaded = await load.fetch(mine)
            ids = [mark("tick", number) for number in range(first - 1, first + len(loaded))]
            columns = [list(column) for column in zip(*[(r[0], r[1], r[2], r[4], r[5]) for r in loaded], strict=True)]
            agent, version, epoch, n, envelope = columns
            numbers = range(first, first + len(loaded))
            done = await tick.fetchval(
                agent,
                version,
                epoch,
                n,
                ids[1:],
                envelope,
                numbers,
                ids[:-1],
                *([text] * len(loaded) for text in (STATE, LETTER, EVENT)),
            )
            if done != 2 * len(mine):
                raise RuntimeError("the floor lost an agent or a message")
            took.append(time.perf_counter() - begun)
        await db.close()
        return took
