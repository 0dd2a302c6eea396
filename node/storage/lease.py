"""Leases of processes that share one PostgreSQL database: who is in, who is the steward, who ticks which agent.

Time is the database's. A member is a row `member/<slot>` of table `lease`: `holder` is the lock of its home, `token` is
its fencing token, which rises whenever the slot changes hands, so that `<slot>.<token>` names one life of one process.
The row `steward` is held under such an id, and so is an agent (`agent.holder`). Whoever finds a lease over puts its
member out: in one transaction the token rises, the stewardship is free and so are the agents.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from node.storage.error import Fenced, StoreFailed
from node.storage.postgres_link import FAILED, Link, close, connect
from node.storage.seat import ANSWER_S, MEMBER, STEWARD, Place, Roll, Seat

CHANNEL = "vendo"
_SLOTS = 1_000
_SETTINGS = {"application_name": "vendo lease", "lock_timeout": "3s"}
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

_OVER = f"""
SELECT name, token FROM lease
WHERE name LIKE 'member/%' AND holder <> '' AND until_ms < {_NOW}
FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - constants
_SAME_HOME = "SELECT name, token FROM lease WHERE name LIKE 'member/%' AND holder = $1 FOR UPDATE"
_PUT_OUT = "UPDATE lease SET holder = '', token = token + 1, until_ms = 0, about = '{}' WHERE name = $1"
_FREE_OFFICE = "UPDATE lease SET holder = '', until_ms = 0 WHERE name = 'steward' AND holder = $1"
_FREE_AGENTS = "UPDATE agent SET holder = '' WHERE holder = $1"
_TAKE_SLOT = f"""
UPDATE lease SET holder = $1, until_ms = {_NOW} + $2, about = $3
WHERE name = (
    SELECT name FROM lease WHERE name LIKE 'member/%' AND holder = ''
    ORDER BY length(name), name LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING name, token
"""  # noqa: S608 - constants
_NEW_SLOT = f"""
INSERT INTO lease (name, holder, token, until_ms, about) VALUES ($4, $1, 1, {_NOW} + $2, $3)
ON CONFLICT DO NOTHING RETURNING name, token
"""  # noqa: S608 - constants
_OFFICE = (
    "INSERT INTO lease (name, holder, token, until_ms, about) VALUES ('steward', '', 0, 0, '{}') ON CONFLICT DO NOTHING"
)
_RENEW = f"UPDATE lease SET until_ms = {_NOW} + $3, about = $4 WHERE name = $1 AND token = $2"  # noqa: S608 - constants
_TAKE_OFFICE = "UPDATE lease SET holder = $1, token = token + 1 WHERE name = 'steward' AND holder = ''"
_ALL = f"""
SELECT name, holder, token, until_ms - {_NOW} AS left_ms, about FROM lease ORDER BY length(name), name
"""  # noqa: S608 - constants

# A tick's commit compares the agent's epoch: who held an agent before holds an older one. A row that somebody is
# writing is passed over and asked for again, since waiting for it would hold up the others of the batch.
_CLAIM = """
WITH own AS (SELECT 1 FROM lease WHERE name = $1 AND token = $2 FOR KEY SHARE),
free AS (SELECT name FROM agent WHERE name = ANY($3) AND holder IN ('', $4) FOR NO KEY UPDATE SKIP LOCKED)
UPDATE agent SET holder = $4, epoch = epoch + 1 FROM free
WHERE agent.name = free.name AND EXISTS (SELECT FROM own) RETURNING agent.name
"""
_RELEASE = "UPDATE agent SET holder = '' WHERE name = ANY($1) AND holder = $2"
# One look in the index for each agent with something new, however much that is
_WAITING = f"""
WITH RECURSIVE found AS (
    (SELECT agent FROM inbox WHERE state = 'new' ORDER BY agent LIMIT 1)
    UNION ALL
    SELECT (SELECT agent FROM inbox WHERE state = 'new' AND agent > found.agent ORDER BY agent LIMIT 1)
    FROM found WHERE found.agent IS NOT NULL
)
SELECT found.agent FROM found JOIN agent ON agent.name = found.agent
WHERE agent.holder = '' AND agent.status IN ('active', 'dormant') AND EXISTS (
    SELECT FROM inbox WHERE inbox.agent = found.agent AND inbox.state = 'new' AND inbox.next_at_ms <= {_NOW}
) LIMIT $1
"""  # noqa: S608 - constants


class Leases:
    """The table `lease`, over two connections of its own: renewing never waits for anything else that is asked.

    Args:
        url: the database.
        lease_ms: how long a lease runs.
    """

    def __init__(self, url: str, lease_ms: int) -> None:
        self._url, self._lease_ms = url, lease_ms
        self._renewing, self._asking = _Line(url), _Line(url)

    async def aclose(self) -> None:
        """Close the connections. Leases that were not given back end by themselves."""
        await asyncio.gather(self._renewing.aclose(), self._asking.aclose())

    # ---- membership

    async def join(self, lock: str, about: str) -> Place:
        """Take a slot.

        Args:
            lock: names the lock of this process's home; whoever held a slot under the same is dead, since the lock is
                ours now.
            about: what others are told, as JSON.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._renewing.transaction() as db:
            await db.execute(_OFFICE)
            await _put_out(db, await db.fetch(_SAME_HOME, lock))
            row = await db.fetchrow(_TAKE_SLOT, lock, self._lease_ms, about)
            for slot in range(_SLOTS):
                if row is not None:
                    break
                row = await db.fetchrow(_NEW_SLOT, lock, self._lease_ms, about, f"{MEMBER}{slot}")
        if row is None:
            raise StoreFailed("Too many processes share this database.")
        return _place(row)

    async def renew(self, place: Place, about: str, *, judge: bool = True) -> Roll:
        """Renew a lease, put out those whose lease is over, take the stewardship if it is free; who is in now.

        Args:
            place: whose.
            about: what others are told, as JSON.
            judge: put others out. Not right after the database was away: they could not renew any more than we.

        Raises:
            Fenced: this member was put out.
            StoreFailed: the database does not answer.
        """
        async with self._renewing.transaction() as db:
            if await db.execute(_RENEW, place.name, place.token, self._lease_ms, about) != "UPDATE 1":
                raise Fenced
            out = await _put_out(db, await db.fetch(_OVER)) if judge else ()
            await db.execute(_TAKE_OFFICE, place.id)
            return _roll(await db.fetch(_ALL), out)

    async def leave(self, place: Place) -> None:
        """Give everything back. One that was put out has nothing to give.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._renewing.transaction() as db:
            sql = "SELECT name, token FROM lease WHERE name = $1 AND token = $2 FOR UPDATE"
            if await _put_out(db, await db.fetch(sql, place.name, place.token)):
                await db.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{place.id} left")

    # ---- agents

    async def claim(self, place: Place, agents: Collection[str]) -> set[str]:
        """Take agents that nobody holds; those that are this member's now. Durable when it returns.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._asking.statement() as db:
            rows = await db.fetch(_CLAIM, place.name, place.token, list(agents), place.id)
        return {row["name"] for row in rows}

    async def release(self, place: Place, agents: Collection[str]) -> None:
        """Give agents back. It need not survive a crash of the database: who holds an agent may claim it again.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._asking.transaction() as db:
            await db.execute("SET LOCAL synchronous_commit = off")
            await db.execute(_RELEASE, list(agents), place.id)

    async def waiting(self, limit: int) -> list[str]:
        """Agents that nobody holds and for whom something waits that is due.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._asking.statement() as db:
            return [row["agent"] for row in await db.fetch(_WAITING, limit)]

    # ---- telling each other

    async def hear(self, heard: Callable[[str], None]) -> None:
        """Have everything told that members ring, from now on and after every reconnect. What is lost is not repeated.

        Raises:
            StoreFailed: the database does not answer.
        """
        await self._renewing.hear(heard)

    async def ring(self, words: Sequence[str]) -> None:
        """Tell all members, oneself too.

        Raises:
            StoreFailed: the database does not answer.
        """
        async with self._asking.statement() as db:
            await db.executemany("SELECT pg_notify($1, $2)", [(CHANNEL, word) for word in words])


async def _put_out(db: Link, rows: Sequence[Any]) -> tuple[str, ...]:
    """End these lives; their rows are locked."""
    ids = []
    for row in rows:
        place = _place(row)
        await db.execute(_PUT_OUT, place.name)
        await db.execute(_FREE_OFFICE, place.id)
        await db.execute(_FREE_AGENTS, place.id)
        ids.append(place.id)
    return tuple(ids)


def _place(row: Any) -> Place:
    return Place(int(row["name"].removeprefix(MEMBER)), int(row["token"]))


def _roll(rows: Sequence[Any], out: tuple[str, ...]) -> Roll:
    seats, steward, term = [], "", 0
    for row in rows:
        if row["name"] == STEWARD:
            steward, term = row["holder"], row["token"]
        elif row["name"].startswith(MEMBER) and row["holder"]:
            seats.append(Seat(_place(row), row["left_ms"], row["about"]))
    return Roll(tuple(seats), steward, term, out)


class _Line:
    """One connection, for one caller at a time, made anew when it broke."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._link: Link | None = None
        self._turn = asyncio.Lock()
        self._heard: Callable[[str], None] | None = None

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[Link]:
        """The connection, each statement a transaction of its own."""
        async with self._turn:
            done = False
            try:
                async with asyncio.timeout(ANSWER_S):
                    yield await self._open()
                done = True
            except Fenced:
                done = True
                raise
            except FAILED as error:
                raise StoreFailed(f"The database did not answer: {type(error).__name__}.") from error
            finally:
                if not done:  # also where its owner was cancelled: an answer may still be on its way
                    self._drop()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Link]:
        """The connection, in a transaction. What goes wrong in it ends the connection, which is its ROLLBACK.

        Nothing is sent behind a failure: the driver would first wait for the answer that did not come.
        """
        async with self.statement() as db:
            await db.execute("BEGIN")
            try:
                yield db
            except Fenced:  # by an answer that came
                await db.execute("ROLLBACK")
                raise
            await db.execute("COMMIT")

    async def hear(self, heard: Callable[[str], None]) -> None:
        """Listen on this connection, and on those that follow it."""
        self._heard = heard
        async with self.statement() as db:
            await self._listen(db)

    async def _listen(self, db: Link) -> None:
        heard = self._heard
        if heard is not None:
            await db.add_listener(CHANNEL, lambda _db, _pid, _channel, word: heard(str(word)))

    async def _open(self) -> Link:
        if self._link is None or self._link.is_closed():
            self._link = await connect(self._url, _SETTINGS, timeout_s=ANSWER_S)
            await self._listen(self._link)
        return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.terminate()

    async def aclose(self) -> None:
        """Say goodbye."""
        link, self._link = self._link, None
        await close(link)
