"""Agents that leave and come, for the operator: archives pass between the node and the command by a folder of the home.

The command and the node run as one user on one machine, and an archive is too large for a request. A name in that
folder is 32 hex digits of the one who puts the file there; nothing else is ever opened.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from core.clock import Clock
from core.error import InvalidInput, NotFound, Unavailable
from core.identifier import PubKey
from core.unit import Among, UnitOfWork
from dvm.job import ENDED, State
from node.agent.inbox.row import AGENT_CALLER
from node.agent.load.loader import Loader
from node.agent.roster import Roster
from node.agent.tick.engine import Engine
from node.backup.arrive import Arrival, Wish
from node.backup.depart import HISTORY, Departure
from node.backup.manifest import AgentManifest, seal_draft
from node.identity.registry import Identities
from relays.key import Key, npub, parse_pubkey

FOLDER = "transfer"
_MAX_HISTORY = 100_000
_STALE_S = 3_600
_NAME = re.compile(r"[0-9a-f]{32}")
_OPEN = Among(tuple(state.value for state in State if state not in ENDED))


class Space(Protocol):
    """The disk: `node.disk.Disk`."""

    def check(self) -> None:
        """Raises `DiskLow` if nothing new is to be written."""


class Transit:
    """Exports, imports and thaws agents.

    Args:
        unit: the database.
        roster: which there are.
        departure: writes archives.
        arrival: reads them.
        home: the home directory; None if there is none.
        space: the disk.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        roster: Roster,
        departure: Departure,
        arrival: Arrival,
        home: Path | None,
        space: Space,
    ) -> None:
        self._unit, self._roster = unit, roster
        self._departure, self._arrival, self._home, self._space = departure, arrival, home, space

    async def export(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Write an agent into the folder: `{"keep_running": false, "history": 1000}`; where, and what is in it.

        Raises:
            VendoError: as `Departure.export`; it goes on as it did.
        """
        keep, history = value.get("keep_running", False), value.get("history", HISTORY)
        if type(keep) is not bool or type(history) is not int or not 0 <= history <= _MAX_HISTORY:
            raise InvalidInput(f"keep_running is true or false, and history a number from 0 to {_MAX_HISTORY}.")
        section = self._roster.find(name) if await self._roster.visit(name) else None
        if section is None:
            raise NotFound("There is no agent with this name.")
        self._space.check()
        transfer = secrets.token_hex(16)
        path = await asyncio.to_thread(self._path, transfer)
        is_whole = False
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as out:
                manifest, before = await self._departure.export(section, out, freeze=not keep, history=history)
            is_whole = True
        except OSError as error:
            raise Unavailable(f"The archive cannot be written: {error.strerror}.") from error
        finally:
            if not is_whole:
                path.unlink(missing_ok=True)
        jobs = await self._unit.count("purchase", {"caller": AGENT_CALLER + name, "state": _OPEN})
        return {**_shown(manifest), "transfer": transfer, "before": before, "open_jobs": jobs}

    async def bring(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Make an agent of an archive in the folder; `clone`, `accept_code` and `node` as in `Wish`.

        Raises:
            VendoError: as `Arrival.bring`; nothing has changed.
        """
        transfer, clone, accept = value.get("transfer"), value.get("clone"), value.get("accept_code", False)
        node = value.get("node")
        if type(transfer) is not str or not (clone is None or type(clone) is str) or type(accept) is not bool:
            raise InvalidInput('An import is {"transfer": ..., "clone": a name or null, "accept_code": false}.')
        if not (node is None or type(node) is str):
            raise InvalidInput("node is a public key.")
        self._space.check()
        path = await asyncio.to_thread(self._path, transfer)
        if not path.is_file() or path.is_symlink():
            raise NotFound(f"There is no archive {transfer} in {FOLDER}.")
        return await self._arrival.bring(path, Wish(clone, accept, None if node is None else parse_pubkey(node)))

    async def thaw(self, name: str) -> dict[str, Any]:
        """Let an agent go on as before it was frozen; its operator knows that it does not go on elsewhere too.

        Raises:
            NotFound, AgentStatus.
        """
        return {"name": name, "status": await self._departure.thaw(name)}

    def _path(self, transfer: str) -> Path:
        if self._home is None or _NAME.fullmatch(transfer) is None:
            raise InvalidInput("A transfer is 32 hex digits.")
        folder = self._home / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.iterdir():  # what a command left that was killed
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _STALE_S:
                    path.unlink()
        return folder / transfer


def _shown(manifest: AgentManifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "npub": npub(PubKey(manifest.pubkey)),
        "id": manifest.id,
        "taken_at": manifest.taken_at,
        "frozen": manifest.frozen,
        "program": manifest.program,
        "code": manifest.code,
        "state_version": manifest.state_version,
        "rows": {table: facts.rows for table, facts in manifest.tables.items()},
        "left_out": list(manifest.left_out),
    }


def transit_of(
    unit: UnitOfWork,
    clock: Clock,
    home: Path | None,
    key: Key,
    agents: tuple[Engine, Roster, Identities, Loader],
    mounts: Callable[[], Iterable[str]],
    touch: Callable[[], None],
    space: Space,
) -> Transit:
    """Make it.

    Args:
        unit: the database.
        clock: time.
        home: the home directory.
        key: the node's.
        agents: where they live, which there are, who they are, what they run.
        mounts: the services that an agent has.
        touch: alarms have changed.
        space: the disk.
    """
    engine, roster, identities, loader = agents

    def sign(manifest: bytes) -> bytes:
        return key.sign(seal_draft(manifest, clock.now())).to_json().encode()

    def room() -> int:
        return shutil.disk_usage(home).free if home is not None else 0

    departure = Departure(unit, clock, engine, loader, loader.file_of, home, mounts, key.pubkey, sign)
    arrival = Arrival(unit, clock, engine, loader, home, mounts, identities, roster, touch, room, key.pubkey)
    return Transit(unit, roster, departure, arrival, home, space)
