"""Who the agents are: one signer by name, derived from the words, imported, or far away (NIP-46), and its successors.

Table `identity` is the record; this is its live view. A name has at most one active key; the keys before it stay for a
while to open what is still sent to them, and a rotation that has begun has its next key there already.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson

from core.clock import Clock
from core.error import InvalidInput
from core.identifier import PubKey
from core.unit import Among, Condition, Insert, Row, UnitOfWork, Update, Value, Within, Write
from node.identity.error import IdentityExists, IdentityUnknown
from node.identity.signer import HeldSigner, NarrowSigner
from relays.bunker import RemoteSigner, Talk, Wire
from relays.key import Key, Keyring
from relays.kind import CLIENT_AUTH, KEY_CONSENT
from relays.nip46 import Bunker, parse_bunker
from relays.signer import Signer
from wallet.record import Vault

TABLE = "identity"
RETIRED_KINDS = frozenset({CLIENT_AUTH, KEY_CONSENT})
_DAY_S = 86_400
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_TAKEN = ("node", "operator")
_BREATH = 64  # so many keys are derived between two looks at the loop
_PAGE = 2_000  # names that are looked at in one question


@dataclass(frozen=True, slots=True)
class Derived:
    """From the seed words. `epoch` None is the next one; a number brings back what was there before a loss."""

    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """A key from elsewhere: the words do not bring it back."""

    key: Key


@dataclass(frozen=True, slots=True)
class Remote:
    """A signer that was paired with: `app` is our key in the talk with it, `user` whose signatures it gives."""

    bunker: Bunker
    app: Key
    user: PubKey


Source: TypeAlias = Derived | Imported | Remote
OnChange: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """One key of one name, and its signer."""

    name: str
    epoch: int
    source: str
    state: str
    created_at: int
    retired_at: int | None
    signer: Signer


class Identities(Mapping[str, Signer]):
    """Signers by name. `load` first. A service: `run` holds the talks with remote signers and ends them.

    Args:
        unit: the database.
        clock: time.
        ring: the node's keys; the imported ones are sealed under it.
        wire: how remote signers are reached.
        retired_days: how long a replaced key still decrypts.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, ring: Keyring, wire: Wire, retired_days: int = 30) -> None:
        self._unit, self._clock, self._ring, self._wire = unit, clock, ring, wire
        self._kept_s = retired_days * _DAY_S
        self._vault = _vault(ring)
        self._active: dict[str, Identity] = {}
        self._next: dict[str, Identity] = {}
        self._older: dict[str, list[Identity]] = {}
        self._names: dict[PubKey, str] = {}
        self._epochs: dict[str, int] = {}
        self._remote: dict[PubKey, RemoteSigner] = {}
        self._changing = asyncio.Lock()
        self._on_change: list[OnChange] = []

    # ---- the view

    def __getitem__(self, name: str) -> Signer:
        return self._active[name].signer

    def __iter__(self) -> Iterator[str]:
        return iter(self._active)

    def __len__(self) -> int:
        return len(self._active)

    def current(self, name: str) -> Signer:
        """The signer of a name.

        Raises:
            IdentityUnknown: there is none.
        """
        return self.identity(name).signer

    def identity(self, name: str) -> Identity:
        """All that is known of a name's active key.

        Raises:
            IdentityUnknown: there is none.
        """
        try:
            return self._active[name]
        except KeyError as error:
            raise IdentityUnknown(f"There is no identity {name!r}.") from error

    def older(self, name: str) -> Sequence[Signer]:
        """Keys that were replaced lately, the newest first: they decrypt, and sign nothing but NIP-42."""
        since = self._clock.now() - self._kept_s
        return [one.signer for one in self._older.get(name, ()) if (one.retired_at or 0) > since]

    def voices(self) -> list[Signer]:
        """Every key that decrypts: the active ones, then those that were replaced lately."""
        active = [one.signer for one in self._active.values()]
        return active + [one for name in self._older if name in self._active for one in self.older(name)]

    def whose(self, pubkey: PubKey) -> tuple[str, Signer] | None:
        """The name and signer behind a public key, also one that was replaced lately; None for anybody else's."""
        name = self._names.get(pubkey)
        if name is None:
            return None
        found = self._active.get(name)
        signers = ([found.signer] if found is not None else []) + list(self.older(name))
        return next(((name, one) for one in signers if one.pubkey == pubkey), None)

    def succession(self, name: str) -> Identity | None:
        """The key that a begun rotation will switch to."""
        return self._next.get(name)

    def all(self) -> list[Identity]:
        """Every key that is there, by name, the active one first."""
        found: list[Identity] = []
        for name in sorted({*self._active, *self._next, *self._older}):
            found += [one for one in (self._active.get(name), self._next.get(name)) if one is not None]
            found += self._older.get(name, [])
        return found

    def on_change(self, callback: OnChange) -> None:
        """Call with a name whenever its key came, was replaced, or went."""
        self._on_change.append(callback)

    # ---- life

    async def load(self, names: Iterable[str] = ()) -> None:
        """Read the record, but for agents that hibernate, and give a key from the words to each name that has none."""
        async for page in self._awake():
            await self._read(page)
        await self._provide([name for name in names if name not in self._active])

    async def recall(self, names: Sequence[str]) -> None:
        """Read the keys of names that were left out or forgotten; those that are there stay as they are."""
        await self._read([name for name in names if name not in self._active])

    def forget(self, name: str) -> None:
        """Keep nothing of a name in memory: it hibernates. A rotation that has begun, or a remote signer, keeps it."""
        keys = [*self._older.get(name, ()), *([self._active[name]] if name in self._active else [])]
        if name in self._next or any(one.signer.pubkey in self._remote for one in keys):
            return
        for one in keys:
            self._names.pop(one.signer.pubkey, None)
        for held in (self._active, self._older, self._epochs):
            held.pop(name, None)

    async def every(self) -> list[Identity]:
        """As `all`, with those that hibernate; read from the record."""
        rows = await self._unit.select(TABLE, order=("name", "-epoch"))
        found = [self._opened(row) for row in rows if row["state"] != "deleted"]
        order = {"active": 0, "next": 1}
        return sorted(found, key=lambda one: (one.name, order.get(one.state, 2)))

    async def _awake(self) -> AsyncIterator[list[str]]:
        """Names whose keys are needed, in pages: all but agents that hibernate and are not in a rotation."""
        low: str | None = ""
        while low is not None:
            where: dict[str, Condition] = {"name": Within(low)}
            rows = await self._unit.select(
                TABLE, where, order=("name",), limit=_PAGE, columns=("name", "state"), distinct=True
            )
            low = rows[-1]["name"] + "\0" if len(rows) == _PAGE else None
            asleep: set[str] = set()
            if rows:
                between = Within(rows[0]["name"], rows[-1]["name"] + "\0")
                where = {"status": Among(("dormant", "frozen")), "name": between}
                found = await self._unit.select("agent", where, columns=("name",))
                asleep = {row["name"] for row in found} - {row["name"] for row in rows if row["state"] == "next"}
            if names := list(dict.fromkeys(row["name"] for row in rows if row["name"] not in asleep)):
                yield names

    async def _read(self, names: Sequence[str]) -> None:
        for begin in range(0, len(names), _PAGE):
            page = Among(tuple(names[begin : begin + _PAGE]))
            for row in await self._unit.select(TABLE, {"name": page}, order=("name", "-epoch")):
                self._epochs[row["name"]] = max(self._epochs.get(row["name"], -1), row["epoch"])
                if row["state"] != "deleted":
                    self._install(self._opened(row))

    async def _provide(self, names: Sequence[str]) -> None:
        fresh: list[Write] = []
        for count, name in enumerate(names):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            made, write = self._made(name, Derived(), "active")
            self._install(made)
            fresh.append(write)
        if fresh:
            await self._unit.commit(fresh)

    async def _unheld(self, pubkey: PubKey) -> None:
        """See to it that no name, not even one that hibernates, has this key."""
        rows = await self._unit.select(TABLE, {"pubkey": pubkey}, columns=("name", "state"))
        if any(row["state"] != "deleted" for row in rows):
            raise IdentityExists(
                "This key is another identity's already.", remedy="Each identity has a key of its own."
            )

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Until `stop`; then the talks with remote signers end."""
        ready.set()
        try:
            await stop.wait()
        finally:
            await asyncio.gather(*(one.aclose() for one in self._remote.values()))

    # ---- changes

    async def add(self, name: str, source: Source | None = None) -> Signer:
        """Give a new name its first key, derived if nothing else is said; a deleted name gets a key it never had.

        Raises:
            InvalidInput: the name is not a-z, 0-9 and -, or is the operator's own.
            IdentityExists: the name, or the key, is there already.
        """
        async with self.coming(name, source) as (_, write):
            await self._unit.commit([write])
        return self._active[name].signer

    @asynccontextmanager
    async def coming(self, name: str, source: Source | None = None) -> AsyncIterator[tuple[PubKey, Write]]:
        """As `add`, for somebody who commits the write together with others, within the block."""
        async with self._changing:
            await self.recall([name])
            if name in self._active:
                raise IdentityExists(f"There is an identity {name!r} already.")
            made, write = self._made(name, source or Derived(), "active")
            await self._unheld(made.signer.pubkey)
            yield made.signer.pubkey, write
            self._install(made)
        self._tell(name)

    async def retire(self, name: str) -> None:
        """Give up a name: none of its keys signs or decrypts here any more. The words still make the derived ones.

        Raises:
            IdentityUnknown: there is none.
        """
        async with self._changing:
            await self.recall([name])
            self.identity(name)
            gone: dict[str, Value] = {"state": "deleted", "retired_at": self._clock.now()}
            await self._unit.commit([Update(TABLE, {"name": name}, gone, rows=None)])
            keys = [self._active.pop(name), *self._older.pop(name, [])]
            if (coming := self._next.pop(name, None)) is not None:
                keys.append(coming)
            await self._close(keys)
        self._tell(name)

    def draft_next(self, name: str, source: Source | None = None) -> tuple[Identity, Write]:
        """The key that is to replace a name's, and the write that records it. Nothing has happened yet.

        Raises:
            IdentityUnknown: there is no such name.
            IdentityExists: a rotation of it has begun already, or the key is there already.
        """
        self.identity(name)
        if name in self._next:
            raise IdentityExists(f"A rotation of {name!r} has begun already.", remedy="It goes on by itself.")
        return self._made(name, source or Derived(), "next")

    def expect(self, coming: Identity) -> None:
        """The write of `draft_next` is durable."""
        self._install(coming)

    def switch(self, name: str) -> tuple[Write, ...]:
        """Writes that put the next key in the active one's place."""
        old, new, now = self._active[name], self._next[name], self._clock.now()
        return (
            Update(
                TABLE,
                {"name": name, "epoch": old.epoch, "state": "active"},
                {"state": "retired", "retired_at": now},
            ),
            Update(TABLE, {"name": name, "epoch": new.epoch, "state": "next"}, {"state": "active"}),
        )

    def switched(self, name: str) -> None:
        """The writes of `switch` are durable. At once, so that there is no moment in which the name has no key."""
        old, new = self._active[name], self._next.pop(name)
        self._active[name] = replace(new, state="active")
        narrow = NarrowSigner(old.signer, RETIRED_KINDS)
        gone = replace(old, state="retired", retired_at=self._clock.now(), signer=narrow)
        self._older.setdefault(name, []).insert(0, gone)
        self._tell(name)

    def rotating(self) -> list[str]:
        """Names with a key that is to be the next."""
        return list(self._next)

    async def reload(self, name: str) -> None:
        """Read a name's keys anew: what the database said last was not heard."""
        rows = await self._unit.select(TABLE, {"name": name}, order=("-epoch",))
        for held in (self._active, self._next):
            held.pop(name, None)
        self._older.pop(name, None)
        for row in rows:
            if row["state"] != "deleted":
                self._install(self._opened(row))
        self._tell(name)

    async def refresh(self, names: Sequence[str]) -> None:
        """Another process may have given new keys to these names: read those anew that are not as they are here."""
        for begin in range(0, len(names), _PAGE):
            page = names[begin : begin + _PAGE]
            where: dict[str, Condition] = {"name": Among(tuple(page))}
            rows = await self._unit.select(TABLE, where, columns=("name", "epoch", "state"))
            there: dict[str, set[tuple[int, str]]] = {name: set() for name in page}
            for row in rows:
                if row["state"] != "deleted":
                    there[row["name"]].add((row["epoch"], row["state"]))
            for name in page:
                if there[name] != {(one.epoch, one.state) for one in self._keys_of(name)}:
                    await self.reload(name)

    def _keys_of(self, name: str) -> list[Identity]:
        found = [self._active.get(name), self._next.get(name), *self._older.get(name, ())]
        return [one for one in found if one is not None]

    # ---- rows

    def _made(self, name: str, source: Source, state: str) -> tuple[Identity, Write]:
        """An identity that is not recorded yet, and the write that does it."""
        if _NAME.fullmatch(name) is None or name in _TAKEN:
            raise InvalidInput(f"An identity's name has a-z, 0-9 and - and begins with a letter, not {name[:40]!r}.")
        epoch = self._epochs.get(name, -1) + 1
        sealed: bytes = b""
        match source:
            case Derived(wished):
                epoch = epoch if wished is None else wished
                if epoch < 0 or epoch <= self._epochs.get(name, -1):
                    raise IdentityExists(f"The key {epoch} of {name!r} was in use already.")
                pubkey = self._ring.agent(name, epoch).pubkey
                while wished is None and pubkey in self._names:  # another name's, by chance
                    epoch += 1
                    pubkey = self._ring.agent(name, epoch).pubkey
            case Imported(key):
                pubkey = key.pubkey
                sealed = self._vault.seal(key.secret, _seal_name(name, epoch))
            case Remote(bunker, app, user):
                pubkey = user
                body = {"uri": bunker.uri, "app": app.secret.hex()}
                sealed = self._vault.seal(orjson.dumps(body), _seal_name(name, epoch))
        if pubkey in self._names or pubkey in (self._ring.node.pubkey, self._ring.operator.pubkey):
            raise IdentityExists(
                "This key is another identity's already.", remedy="Each identity has a key of its own."
            )
        row: dict[str, Value] = {
            "name": name,
            "epoch": epoch,
            "pubkey": pubkey,
            "source": type(source).__name__.lower(),
            "sealed": sealed,
            "state": state,
            "created_at": self._clock.now(),
        }
        return self._opened({**row, "retired_at": None}), Insert(TABLE, row)

    def _opened(self, row: Row) -> Identity:
        name, epoch, pubkey = row["name"], row["epoch"], PubKey(row["pubkey"])
        remote = row["source"] == "remote"
        signer: Signer = self._talking(row) if remote else HeldSigner(pubkey, lambda: key_of(row, self._ring))
        if row["state"] == "retired":
            signer = NarrowSigner(signer, RETIRED_KINDS)
        return Identity(name, epoch, row["source"], row["state"], row["created_at"], row["retired_at"], signer)

    def _talking(self, row: Row) -> Signer:
        pubkey = PubKey(row["pubkey"])
        found = self._remote.get(pubkey)
        if found is None:
            body: Any = orjson.loads(self._vault.open(row["sealed"], _seal_name(row["name"], row["epoch"])))
            bunker = parse_bunker(body["uri"])
            talk = Talk(self._wire, Key(bytes.fromhex(body["app"])), bunker.signer, bunker.relays)
            found = self._remote[pubkey] = RemoteSigner(talk, pubkey)
        return found

    def _install(self, one: Identity) -> None:
        self._names[one.signer.pubkey] = one.name
        self._epochs[one.name] = max(self._epochs.get(one.name, -1), one.epoch)
        if one.state == "active":
            self._active[one.name] = one
        elif one.state == "next":
            self._next[one.name] = one
        else:
            self._older.setdefault(one.name, []).append(one)

    async def _close(self, keys: Iterable[Identity]) -> None:
        for one in keys:
            self._names.pop(one.signer.pubkey, None)
            talking = self._remote.pop(one.signer.pubkey, None)
            if talking is not None:
                await talking.aclose()

    def _tell(self, name: str) -> None:
        for callback in self._on_change:
            callback(name)


def key_of(row: Row, ring: Keyring) -> Key:
    """The secret key of a row of table `identity`; for signing and for backups.

    Raises:
        SealBroken: it was sealed under other words.
        InvalidInput: it is a remote signer's.
    """
    if row["source"] == "derived":
        return ring.agent(row["name"], row["epoch"])
    if row["source"] == "imported":
        return Key(_vault(ring).open(row["sealed"], _seal_name(row["name"], row["epoch"])))
    raise InvalidInput("The key of a remote signer is not here.", remedy="Back it up where the signer is.")


def _vault(ring: Keyring) -> Vault:
    return Vault(ring.derive("identity"))


def _seal_name(name: str, epoch: int) -> str:
    return f"identity/{name}/{epoch}"
