"""A node that is killed, or whose disk fails, at a named step of a job's money. Run as a script, it is `vendo up`.

A step is a commit that moves a job, a sale, a deposit or an operation of the wallet; its name is the table and where
the row then stands, as in `purchase paying locking`, `deposit seller open` or `operation lock done`. Who wants it to
fail there writes an `Arm` into the node's home (`arm`); the node takes it at the first commit of that name, so that it
fails once. Every step that is taken while a file `steps` is there is named in it.

Where the protocol waits a minute to be on the safe side, this node waits a second or two: its locks last seconds. A
file `brief` says where else, as `{"wallet.engine._LATE_S": 5, "settlement.prepaid_s": 40}`: it is read at the start.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from core.unit import Insert, Update, Write
from dvm.selling import Selling
from dvm.settlement import Settlement
from node.storage.database import Database
from tests.fsync_part import WAL, Disk, watched_disk

BEFORE, AFTER = "before", "after"
KILL = "kill"
FAULTS = {
    "ENOSPC": {"failing_write": sqlite3.SQLITE_FULL},
    "a short write": {"failing_write": sqlite3.SQLITE_FULL, "short": True},
    "EIO": {"failing_write": sqlite3.SQLITE_IOERR_WRITE},
    "EIO at the sync": {"failing_sync": sqlite3.SQLITE_IOERR_FSYNC},
}
SICK_S = 0.5
MARGINS = {  # in seconds; as constants they stand in these modules
    "dvm.buyer_rule.ATOMIC_MARGIN_S": 8,
    "dvm.seal_rule.COSIGN_MARGIN_S": 4,
    "dvm.sale.COSIGN_MARGIN_S": 4,
    "dvm.sale.CLAIM_NEED_S": 1,
    "dvm.sale.CLAIM_MARGIN_S": 4,
    "dvm.seller.UNSIGNED_S": 15,
    "dvm.sale.UNSIGNED_S": 15,
    "dvm.seal_rule.REVEAL_MS": 10_000,
    "settlement.ban_s": 0,
    "settlement.prepaid_after": 0,
    "settlement.prepaid_s": 150,
    "settlement.deposit_margin_s": 6,
}
_SETTLEMENT = "settlement."  # what begins so is a rule of the node's `Settlement`,
_SELLING = "selling."  # and what begins so is told to its `Selling`
_ROOT = Path(__file__).parents[1]
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import tests.dying_part as it; it.main()"
PROGRAM = ("-c", _BOOT, str(_ROOT))  # after the interpreter, in place of `-m cli.main`


@dataclass(frozen=True, slots=True)
class Arm:
    """What is to happen at a step: `how` is KILL or the name of a fault, `when` before or after its commit."""

    step: str
    when: str
    how: str = KILL


def brief(home: Path, waits: Mapping[str, int]) -> None:
    """The node of this home waits so long there, from its next start on."""
    (home / "brief").write_text(json.dumps(dict(waits)), encoding="utf-8")


def arm(home: Path, what: Arm) -> None:
    """The node of this home, once it runs, fails so."""
    fresh = home / "arm.new"
    fresh.write_text(json.dumps(asdict(what)), encoding="utf-8")
    fresh.replace(home / "arm")


def disarm(home: Path) -> bool:
    """It fails no more; whether it had not failed yet."""
    waiting = (home / "arm").exists()
    (home / "arm").unlink(missing_ok=True)
    return waiting


def record(home: Path) -> None:
    """From now on its steps are written down."""
    (home / "steps").touch()


def recorded(home: Path) -> list[str]:
    """The steps that it has taken, each named once, in the order in which it took them first."""
    return list(dict.fromkeys((home / "steps").read_text(encoding="utf-8").splitlines()))


class Fate:
    """What the file in the home says is to happen."""

    def __init__(self, home: Path, disk: Disk) -> None:
        self._home, self._disk = home, disk
        self._kinds: dict[str, str] = {}

    async def commit(self, database: Database, writes: Iterable[Write]) -> None:
        """Commit, unless the node dies first; die after it, or let the disk fail meanwhile."""
        given = list(writes)
        names = [name for write in given if (name := await self._name(database, write))]
        if names and (self._home / "steps").exists():
            with (self._home / "steps").open("a", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in names)
        what = self._taken(names)
        if what is not None and what.how == KILL and what.when == BEFORE:
            die()
        if what is not None and what.how != KILL:
            self._sicken(what.how)
        await _COMMIT(database, given)
        if what is not None and what.how == KILL:
            die()

    def _taken(self, names: Sequence[str]) -> Arm | None:
        file = self._home / "arm"
        if not names or not file.exists():
            return None
        what = Arm(**json.loads(file.read_text(encoding="utf-8")))
        if what.step not in names:
            return None
        file.unlink()
        return what

    def _sicken(self, how: str) -> None:
        self._disk.failing = WAL
        for name, value in FAULTS[how].items():
            setattr(self._disk, name, value)
        asyncio.get_running_loop().call_later(SICK_S, self._disk.heal)

    async def _name(self, database: Database, write: Write) -> str:
        match write:
            case Insert("operation", row):
                self._kinds[str(row["id"])] = str(row["kind"])
                return f"operation {row['kind']} {row['state']}"
            case Update("operation", where, set=changed) if "state" in changed:
                return f"operation {await self._kind(database, str(where['id']))} {changed['state']}"
            case Insert("purchase", row) | Update("purchase", _, set=row) if "state" in row:
                return f"purchase {row['state']} {row['money']}"
            case Insert("deposit", row):
                return f"deposit {row['side']} {row['state']}"
            case Update("deposit", where, set=changed) if "state" in changed:
                return f"deposit {where['side']} {changed['state']}"
            case Insert("sale", row) | Update("sale", _, set=row) if "state" in row:
                return f"sale {row['state']}"
        return ""

    async def _kind(self, database: Database, operation: str) -> str:
        if operation not in self._kinds:
            (row,) = await database.select("operation", {"id": operation}, columns=("kind",))
            self._kinds[operation] = str(row["kind"])
        return self._kinds[operation]


_COMMIT = Database.commit


def die() -> None:
    """As a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`vendo up --home HOME`, with all that is said above."""
    from cli.main import main as vendo  # what it imports is to be changed, not what imports this

    home = Path(sys.argv[sys.argv.index("--home") + 1])
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        file, rules = home / "brief", {}
        told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for name, seconds in {**MARGINS, **told}.items():
            if name.startswith(_SELLING):
                patch.setitem(Selling.__init__.__kwdefaults__, name.removeprefix(_SELLING), seconds)
            elif name.startswith(_SETTLEMENT):
                rules[name.removeprefix(_SETTLEMENT)] = seconds
            else:
                patch.setattr(name, seconds)
        patch.setattr("wallet.probe.UNPROVEN_S", 0.3)
        patch.setattr("node.settlement.Settlement", lambda **given: Settlement(**{**given, **rules}))
        patch.setattr("dvm.provider.echo.Echo.kinds", frozenset({5050, 5051, 5052}))
        fate = Fate(home, stack.enter_context(watched_disk()))
        patch.setattr(Database, "commit", lambda self, writes: fate.commit(self, writes))
        vendo()
