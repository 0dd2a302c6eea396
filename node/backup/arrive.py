"""An agent out of an archive: everything is checked, its files are put down, then one commit makes it.

A key never comes with it. If an identity of its name is here already (`vendo key import`), it has that one; else it
gets a new one of this node. A clone has a new name and a new key, and of what was said to the other one it has nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from core.clock import Clock
from core.error import InvalidInput, Unavailable
from core.identifier import PubKey
from core.unit import Row, UnitOfWork, Write
from node.agent.error import AgentStatus
from node.agent.inbox.row import NEW
from node.agent.program import AnyProgram, Programs
from node.agent.state import config_text
from node.agent.tick.lap import FROZEN
from node.backup.customs import Luggage, examine
from node.backup.error import MountMissing
from node.backup.luggage import SHELF, WORK
from node.backup.place import Places
from node.backup.settle import writes_back, writes_new
from node.backup.workbench import code_of
from node.config import AgentSection
from node.error import AgentTaken
from relays.key import npub
from relays.signer import Signer


class Lives(Protocol):
    """Where agents live: `node.agent.tick.engine.Engine`."""

    def fits(self, code: AnyProgram, config: str, version: int, state: str) -> None:
        """Whether an agent of this code can go on with these settings and this state."""

    def notify(self, agent: str) -> None:
        """Something waits for it."""


class Keys(Protocol):
    """Who agents are: `node.identity.registry.Identities`."""

    async def recall(self, names: Sequence[str]) -> None:
        """Read their keys."""

    def get(self, name: str, /) -> Signer | None:
        """One of them."""

    def coming(self, name: str) -> AbstractAsyncContextManager[tuple[PubKey, Write]]:
        """A first key for a new name, with the write to commit within the block."""


class Register(Protocol):
    """Which agents there are: `node.agent.roster.Roster`."""

    def arriving(self, section: AgentSection) -> AbstractAsyncContextManager[Sequence[Write]]:
        """Let a new one in, with the writes to commit within the block."""

    def returning(self, section: AgentSection) -> AbstractAsyncContextManager[tuple[AgentSection, Sequence[Write]]]:
        """Let one go on that is frozen here; what its settings are from now on."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How it is to come in.

    Attributes:
        clone: the name of another agent that is to be like it.
        accept_code: whatever its program is here, or what comes with it, may run.
        node: only what this node has signed, and that is then believed.
    """

    clone: str | None = None
    accept_code: bool = False
    node: PubKey | None = None


@dataclass(frozen=True, slots=True)
class _Whom:
    """Who comes in: its settings, its row here if it is frozen here, whether the archive's signer is believed."""

    section: AgentSection
    frozen: Row | None
    clone: bool
    vouched: bool


class Arrival:
    """Reads agents out of archives.

    Args:
        unit: the database.
        clock: time.
        lives: where they live.
        programs: what there is to run.
        home: where their files go; None if they have none.
        mounts: the services that an agent has here.
        keys: who they are.
        register: which there are.
        touch: alarms have changed.
        room: how many bytes the disk takes.
        node: this node's public key: what it signed itself is believed.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        lives: Lives,
        programs: Programs,
        home: Path | None,
        mounts: Callable[[], Iterable[str]],
        keys: Keys,
        register: Register,
        touch: Callable[[], None],
        room: Callable[[], int],
        node: PubKey,
    ) -> None:
        self._unit, self._clock, self._lives, self._programs = unit, clock, lives, programs
        self._home, self._mounts, self._keys, self._register = home, mounts, keys, register
        self._touch, self._room, self._node = touch, room, node
        self._one = asyncio.Lock()

    async def bring(self, path: Path, wish: Wish) -> dict[str, Any]:
        """Let an agent in; what came of it.

        Raises:
            VendoError: as `examine`, and `CodeDiffers`, `MountMissing`, `NoProgram`, `AgentTaken`, `AgentStatus`,
                `ConfigRefused`, `StateRefused`: nothing has changed.
        """
        async with self._one:
            luggage = await asyncio.to_thread(examine, path, self._room(), wish.node)
            whom = await self._whom(luggage, wish)
            if missing := sorted(set(luggage.manifest.mounts) - set(self._mounts())):
                raise MountMissing(f"This node has no {', '.join(missing)[:300]}.")
            found = code_of(luggage, self._programs, self._home, accept=wish.accept_code)
            text = config_text(whom.section.config)
            self._lives.fits(found.code, text, luggage.manifest.state_version, luggage.agent.state)
            async with self._placed(luggage, whom, found.source):
                pubkey = await self._settle(luggage, whom)
        self._touch()
        self._lives.notify(whom.section.name)
        return await self._told(luggage, whom, pubkey, found.how)

    # ---- who

    async def _whom(self, luggage: Luggage, wish: Wish) -> _Whom:
        manifest = luggage.manifest
        name = manifest.name if wish.clone is None else wish.clone
        if wish.clone is None and not manifest.frozen:
            raise AgentStatus(
                "It goes on where it came from, so only a clone can be made of this.",
                remedy="Say --clone NAME, or export it again without --keep-running.",
            )
        try:
            section = AgentSection.model_validate({**luggage.agent.section.model_dump(), "name": name})
        except ValidationError as error:
            raise InvalidInput(f"{name[:40]!r} is no name for an agent.") from error
        vouched = wish.node is not None or manifest.node == self._node
        rows = await self._unit.select("agent", {"name": name})
        if not rows:
            return _Whom(section, None, wish.clone is not None, vouched)
        same = (rows[0]["status"], rows[0]["pubkey"], rows[0]["program"]) == (
            FROZEN, manifest.pubkey, manifest.program,
        )  # fmt: skip
        if wish.clone is not None or not same:
            raise AgentTaken(f"There is, or was, an agent {name!r}.", remedy="Take another name: --clone NAME.")
        return _Whom(section, rows[0], False, vouched)

    # ---- files

    @asynccontextmanager
    async def _placed(self, luggage: Luggage, whom: _Whom, source: bytes | None) -> AsyncIterator[None]:
        """Its files are put down; if the block fails, they are taken away again."""
        if self._home is None:
            yield
            return
        name = whom.section.name
        places = Places(self._home, name, luggage)
        done = False
        try:
            wanted = () if whom.frozen is not None else (WORK,)
            wanted = wanted if whom.clone else (SHELF, *wanted)
            try:
                await asyncio.to_thread(places.put, wanted, whom.section.program, source)
            except OSError as error:
                raise Unavailable(f"Its files cannot be kept: {error.strerror}.") from error
            yield
            done = True
        finally:
            if not done:
                await asyncio.shield(asyncio.to_thread(places.take_back))

    # ---- rows

    async def _settle(self, luggage: Luggage, whom: _Whom) -> PubKey:
        """The one commit, and whoever is to know of it."""
        name = whom.section.name
        if whom.frozen is not None:
            async with self._register.returning(whom.section) as (section, writes):
                now, vouched = self._clock.now(), whom.vouched
                back = await asyncio.to_thread(writes_back, luggage, whom.frozen, section, now, vouched=vouched)
                await self._unit.commit([*back, *writes])
            return PubKey(whom.frozen["pubkey"])
        async with self._register.arriving(whom.section) as writes:
            await self._keys.recall([name])
            known = self._keys.get(name)
            if known is not None:
                new = await asyncio.to_thread(self._writes, luggage, whom, known.pubkey)
                await self._unit.commit([*new, *writes])
                return known.pubkey
            async with self._keys.coming(name) as (pubkey, identity):
                new = await asyncio.to_thread(self._writes, luggage, whom, pubkey)
                await self._unit.commit([identity, *new, *writes])
            return pubkey

    def _writes(self, luggage: Luggage, whom: _Whom, pubkey: PubKey) -> list[Write]:
        now = self._clock.now()
        return writes_new(luggage, whom.section, pubkey, now, clone=whom.clone, vouched=whom.vouched)

    # ---- what came of it

    async def _told(self, luggage: Luggage, whom: _Whom, pubkey: PubKey, code: str) -> dict[str, Any]:
        name, manifest = whom.section.name, luggage.manifest
        rows = await self._unit.select("agent", {"name": name}, columns=("status", "reason"))
        hooks = await self._unit.select("hook", {"agent": name}, columns=("id", "name"))
        waiting = 0 if whom.clone else sum(row["state"] == NEW for row in luggage.rows["inbox"])
        return {
            "name": name,
            "npub": npub(pubkey),
            "was": npub(PubKey(manifest.pubkey)),
            "same_key": pubkey == manifest.pubkey,
            "from": npub(PubKey(manifest.node)),
            "taken_at": manifest.taken_at,
            "status": rows[0]["status"] if rows else "",
            "reason": rows[0]["reason"] if rows else "",
            "program": whom.section.program,
            "code": code,
            "waiting": waiting,
            "hooks": [{"id": row["id"], "name": row["name"]} for row in hooks],
            "left_out": list(manifest.left_out),
        }
