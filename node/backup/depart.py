"""An agent into an archive: while no tick of it runs, and frozen, so that it does not go on in two places.

What arrives for it meanwhile stays in its inbox here. Alarms are read before the inbox: one that fires between the two
is then in both, under one name, and rings once.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from core.clock import Clock
from core.error import NotFound
from core.identifier import PubKey
from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from node.agent.error import AgentStatus, NoProgram
from node.agent.inbox.row import DEAD, NEW
from node.agent.load.source import safe_source
from node.agent.program import Programs
from node.agent.tick.lap import ACTIVE, DELETED, FROZEN
from node.backup.luggage import (
    AGENT_PART,
    ENDED_DAYS,
    MOST_ENDED,
    MOST_ROWS,
    PROGRAM,
    SAID,
    SHELF,
    TABLES,
    WORK,
    AgentPart,
)  # fmt: skip
from node.backup.manifest import MAX_AGENT_MANIFEST, AgentManifest, TableFacts
from node.backup.part import TABLES as FOLDER
from node.backup.part import Parts, chunks, row_line
from node.backup.take import Sign
from node.config import AgentSection

HISTORY = 1_000
FROZEN_AS = "frozen/"
"""`meta`, followed by a name: what a frozen agent's row said of its status, to which it goes back."""
LEFT_OUT = (
    "its keys: `vendo key export` and `vendo key import` move those",
    "money, and the jobs that it has open: they stay with the node",
    "its ticks, recordings and traces",
    "the secrets of its hooks: each has a new address and secret where it is imported",
    "its secrets (/secrets): set them again where it is imported",
    "the right to see the events of all agents",
)
_DAY_S = 86_400
_PAGE = 500


class Lives(Protocol):
    """Where agents live: `node.agent.tick.engine.Engine`."""

    def hold(self, name: str) -> AbstractAsyncContextManager[None]:
        """No tick of it runs within."""

    async def freeze(self, name: str) -> str:
        """It is held, and goes on elsewhere; its status before."""

    async def thaw(self, name: str, to: str = ...) -> str:
        """End that."""


class Departure:
    """Writes agents into archives.

    Args:
        unit: the database.
        clock: time.
        lives: where they live.
        programs: what they run.
        file: the file of a program, if it is one.
        home: where their files are; None if they have none.
        mounts: the services that an agent has.
        node: the node's public key.
        sign: has the node sign.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        lives: Lives,
        programs: Programs,
        file: Callable[[str], Path | None],
        home: Path | None,
        mounts: Callable[[], Iterable[str]],
        node: PubKey,
        sign: Sign,
    ) -> None:
        self._unit, self._clock, self._lives, self._programs = unit, clock, lives, programs
        self._file, self._home, self._mounts, self._node, self._sign = file, home, mounts, node, sign

    async def export(
        self, section: AgentSection, out: BinaryIO, *, freeze: bool = True, history: int = HISTORY
    ) -> tuple[AgentManifest, str]:
        """Write an agent; and its status before. If that fails, it goes on here as it did.

        Args:
            section: its settings.
            out: takes the bytes.
            freeze: it does not go on here. Else only a clone can be made of the archive.
            history: how many messages, the newest, go with it.

        Raises:
            NotFound: there is no such agent.
            AgentBusy: another process has it, or a tick of it does not end.
            AgentStatus: it cannot be frozen.
            BackupMoved: one of its files changed while it was read.
            OSError: `out` takes no more.
        """
        name = section.name
        async with self._lives.hold(name):
            row = await self._row(name)
            before = str(row["status"])
            if before == FROZEN:
                row = {**row, **await self._kept(name)}
            elif freeze:
                await self._keep(row)
                await self._lives.freeze(name)
            done = False
            try:
                manifest = await self._write(section, row, out, history, frozen=freeze or before == FROZEN)
                done = True
            finally:
                if not done and freeze and before != FROZEN:
                    await asyncio.shield(self.thaw(name))
        return manifest, before

    async def thaw(self, name: str) -> str:
        """Let one go on that was frozen, as it was before: what was stopped stays so. Its status now.

        Raises:
            NotFound, AgentStatus.
        """
        row = await self._row(name)
        kept = await self._kept(name) if row["status"] == FROZEN else {}
        to = str(kept.get("status", ACTIVE))
        status = await self._lives.thaw(name, to)
        forget = Delete("meta", {"key": FROZEN_AS + name})
        await self._unit.commit([*_said_of(name, to, kept), forget])
        return status

    async def _keep(self, row: Row) -> None:
        key, kept = FROZEN_AS + row["name"], {name: row[name] for name in ("status", "reason", "failures")}
        value = orjson.dumps(kept).decode()
        await self._unit.commit(
            [
                Insert("meta", {"key": key, "value": value}, or_ignore=True),
                Update("meta", {"key": key}, {"value": value}),
            ]
        )

    async def _kept(self, name: str) -> dict[str, Any]:
        """What the row of an agent said that is frozen; empty if nobody wrote it down."""
        rows = await self._unit.select("meta", {"key": FROZEN_AS + name})
        found: dict[str, Any] = orjson.loads(rows[0]["value"]) if rows else {}
        return found

    async def _row(self, name: str) -> Row:
        rows = await self._unit.select("agent", {"name": name})
        if not rows or rows[0]["status"] == DELETED:
            raise NotFound("There is no agent with this name.")
        return rows[0]

    async def _write(
        self, section: AgentSection, row: Row, out: BinaryIO, history: int, *, frozen: bool
    ) -> AgentManifest:
        name, now, parts = section.name, self._clock.now(), Parts(out, LEFT_OUT)
        agent = AgentPart(
            section=section, admission=await self._admission(name), status=row["status"],
            reason=row["reason"][:10_000], state=row["state"], ticks=row["ticks"], last_tick_at=row["last_tick_at"],
            last_cause=row["last_cause"][:100], failures=row["failures"], overflow=orjson.loads(row["inbox"]),
        )  # fmt: skip
        parts.add(AGENT_PART, agent.to_json())
        tables = {table: await self._table(table, name, history, now, parts) for table in TABLES}
        if sum(table.rows for table in tables.values()) > MOST_ROWS:
            raise AgentStatus(f"It keeps more than {MOST_ROWS} rows; so many do not travel.")
        await asyncio.to_thread(self._files, name, parts)
        code, code_version = self._program(section.program, parts)
        manifest = AgentManifest(
            format=1, kind="agent", vendo=version("vendo"), taken_at=now, id=secrets.token_hex(32), node=self._node,
            parts=tuple(parts.listed), left_out=tuple(parts.left_out), name=name, pubkey=row["pubkey"], frozen=frozen,
            program=section.program, code=code, code_version=code_version, state_version=row["state_version"],
            mounts=tuple(sorted(self._mounts())), tables=tables,
        )  # fmt: skip
        raw = manifest.to_json()
        if len(raw) > MAX_AGENT_MANIFEST:
            raise AgentStatus("It has too many files: their list does not fit into an archive.")
        await asyncio.to_thread(parts.close, raw, self._sign(raw))
        return manifest

    async def _admission(self, name: str) -> dict[str, Any] | None:
        rows = await self._unit.select("meta", {"key": f"admission/{name}"})
        found: dict[str, Any] | None = orjson.loads(rows[0]["value"]) if rows else None
        return found

    # ---- rows

    async def _table(self, table: str, name: str, history: int, now: int, parts: Parts) -> TableFacts:
        travelling, rows = TABLES[table], 0

        async def lines() -> AsyncIterator[bytes]:
            nonlocal rows
            async for row in self._rows(table, name, history, now):
                rows += 1
                yield row_line([row[column] for column in travelling.names])

        async for number, body in chunks(lines()):
            await asyncio.to_thread(parts.add, f"{FOLDER}/{table}/{number:06}", body)
        return TableFacts(columns=travelling.columns, rows=rows)

    def _rows(self, table: str, name: str, history: int, now: int) -> AsyncIterator[Row]:
        match table:
            case "item":
                return self._items(name)
            case "inbox":
                return self._inbox(name, now)
            case "message":
                return self._messages(name, history)
        return self._all(table, name)

    async def _all(self, table: str, name: str) -> AsyncIterator[Row]:
        for row in await self._unit.select(table, {"agent": name}, order=TABLES[table].order):
            yield row

    async def _items(self, name: str) -> AsyncIterator[Row]:
        low: str | None = None
        while True:
            where: Mapping[str, Condition] = {"agent": name} | ({} if low is None else {"key": Within(low)})
            rows = await self._unit.select("item", where, order=("key",), limit=_PAGE)
            for row in rows:
                yield row
            if len(rows) < _PAGE:
                return
            low = rows[-1]["key"] + "\0"

    async def _inbox(self, name: str, now: int) -> AsyncIterator[Row]:
        """What waits, whole; and of what is over the names, so that it is not dealt with again."""
        for state in (NEW, DEAD):
            low = 0
            while True:
                where: Mapping[str, Condition] = {"agent": name, "state": state, "n": Within(low)}
                rows = await self._unit.select("inbox", where, order=("n",), limit=_PAGE)
                for row in rows:
                    yield row
                if len(rows) < _PAGE:
                    break
                low = rows[-1]["n"] + 1
        ended: Mapping[str, Condition] = {"agent": name, "ended_at": Within(now - ENDED_DAYS * _DAY_S)}
        columns = tuple(column for column in TABLES["inbox"].names if column not in ("payload", "error"))
        for row in await self._unit.select("inbox", ended, order=("-ended_at",), limit=MOST_ENDED, columns=columns):
            yield {**row, "payload": "{}", "error": ""}

    async def _messages(self, name: str, history: int) -> AsyncIterator[Row]:
        where: Mapping[str, Condition] = {"agent": name, "state": Among(SAID)}
        for row in reversed(await self._unit.select("message", where, order=("-changed_ms",), limit=history)):
            yield row

    # ---- files

    def _files(self, name: str, parts: Parts) -> None:
        if self._home is not None:
            parts.add_folder(self._home / SHELF / "in" / name, SHELF, ".part")
            parts.add_folder(self._home / WORK / name, WORK)

    def _program(self, program: str, parts: Parts) -> tuple[str, int]:
        """Its program's file, if it is one; its digest and version."""
        try:
            code, path = self._programs[program], self._file(program)
            if path is not None:
                source = safe_source(path)
                if sha256(source).hexdigest() == code.digest:
                    parts.add(f"{PROGRAM}/{program}.py", source)
                else:
                    parts.left_out.append("its program's file: it was changed since it was loaded")
        except (KeyError, NoProgram):
            return "", 0
        return code.digest, code.version


def _said_of(name: str, status: str, kept: Mapping[str, Any]) -> list[Write]:
    """Why it was stopped or quarantined, as its row said before it was frozen."""
    if not kept.get("reason"):
        return []
    said: dict[str, Value] = {"reason": str(kept["reason"]), "failures": int(kept["failures"])}
    return [Update("agent", {"name": name, "status": status}, said, rows=None)]
