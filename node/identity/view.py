"""Identities as files show them: one person's view, and the operator's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from core.error import InvalidInput, NotFound
from core.identifier import PubKey
from node.identity.error import IdentityInUse, IdentityUnknown
from node.identity.pairing import Pairings
from node.identity.registry import Derived, Identities, Identity, Imported, Source
from node.identity.rotation import Rotations
from relays.key import Key, Keyring, npub
from relays.naming import guarded_session, look_up
from relays.presence import Profile

NODE, OPERATOR = "node", "operator"


class PersonView:
    """One identity.

    Args:
        pubkey: its key, asked for each time.
        profile: what it publishes of itself.
        relays: where it reads, writes and takes messages.
        identities: where its keys are.
        name: its name there.
    """

    def __init__(
        self,
        pubkey: Callable[[], PubKey],
        profile: Callable[[], Profile],
        relays: Callable[[], Sequence[str]],
        identities: Identities,
        name: str,
    ) -> None:
        self._pubkey, self._profile, self._relays = pubkey, profile, relays
        self._identities, self._name = identities, name

    @property
    def pubkey(self) -> PubKey:
        """The key that it has now."""
        return self._pubkey()

    async def profile(self) -> Mapping[str, Any]:
        """What its kind 0 says; empty fields are left out."""
        return {name: value for name, value in asdict(self._profile()).items() if value}

    async def nip05(self) -> str:
        """Its address, or nothing."""
        return self._profile().nip05

    async def relays(self) -> Mapping[str, Any]:
        """Where it reads, writes and takes messages."""
        urls = list(self._relays())
        return {"read": urls, "write": urls, "dm": urls}

    async def keys(self) -> Sequence[Mapping[str, Any]]:
        """The keys that it has and had."""
        return [shown(one) for one in self._identities.all() if one.name == self._name]


class KeyView:
    """What the operator does with identities."""

    def __init__(
        self,
        identities: Identities,
        rotations: Rotations,
        pairings: Pairings,
        ring: Keyring,
        person: Callable[[str], PersonView],
        in_use: Callable[[str], bool],
    ) -> None:
        self._identities, self._rotations, self._pairings, self._ring = identities, rotations, pairings, ring
        self._person, self._in_use = person, in_use

    async def list(self) -> Sequence[Mapping[str, Any]]:
        """Every key: the operator's, the node's, the agents'."""
        own = [_own(OPERATOR, self._ring.operator.pubkey), _own(NODE, self._ring.node.pubkey)]
        return [*own, *(shown(one) for one in await self._identities.every())]

    async def show(self, name: str) -> Mapping[str, Any] | None:
        """One identity; None if there is none. The operator's key signs writs and has no profile."""
        rows = [row for row in await self.list() if row["name"] == name]
        if not rows:
            return None
        answer: dict[str, Any] = {"name": name, "keys": rows}
        if name != OPERATOR and (name == NODE or name in self._identities):
            one = self._person(name)
            answer |= {"profile": await one.profile(), "relays": await one.relays(), "nip05": await one.nip05()}
        return answer

    async def new(self, name: str, epoch: int | None) -> Mapping[str, Any]:
        """A new identity from the words.

        Raises:
            InvalidInput, IdentityExists: as `Identities.add`.
        """
        return await self._add(name, Derived(epoch))

    async def take(self, name: str, secret: str) -> Mapping[str, Any]:
        """A new identity with a key from elsewhere.

        Raises:
            InvalidInput, IdentityExists: as `Key.parse` and `Identities.add`.
        """
        return await self._add(name, Imported(Key.parse(secret)))

    async def pair(self, name: str, uri: str) -> Mapping[str, Any]:
        """A new identity held by a remote signer.

        Raises:
            InvalidInput, IdentityExists: as `Identities.add`.
            SignerUnavailable: as `Pairings.meet`.
        """
        if uri:
            return await self._add(name, await self._pairings.meet(uri))
        return {"name": name, "uri": self._pairings.invite(lambda remote: self._add(name, remote))}

    async def rotate(self, caller: str, name: str, key: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give an identity its next key.

        Raises:
            InvalidInput: the options are not valid.
            IdentityUnknown, IdentityExists, Refused: as `Rotations.rotate`.
            SignerUnavailable: as `Pairings.meet`.
        """
        secret, bunker, lost = options.get("secret"), options.get("bunker"), options.get("lost", False)
        if type(lost) is not bool or (secret is not None and bunker is not None):
            raise InvalidInput("A rotation may be `lost`, and to a `secret` or to a `bunker`.")
        source: Source | None = None
        if isinstance(secret, str):
            source = Imported(Key.parse(secret))
        elif isinstance(bunker, str):
            source = await self._pairings.meet(bunker)
        done = await self._rotations.rotate(caller, name, key, source, lost=lost)
        return {**asdict(done), "npub": npub(done.new)}

    async def retire(self, name: str) -> Mapping[str, Any]:
        """Give an identity up.

        Raises:
            IdentityInUse: an agent speaks with it.
            IdentityUnknown: there is none.
        """
        if self._in_use(name):
            raise IdentityInUse(f"The agent {name!r} speaks with this identity.")
        await self._identities.recall([name])
        found = shown(self._identities.identity(name))
        await self._identities.retire(name)
        return {**found, "state": "deleted"}

    async def look_up(self, address: str) -> Mapping[str, Any]:
        """Whom a domain names by this address (NIP-05), asked now.

        Raises:
            InvalidInput: it is no such address.
            NotFound: the domain names nobody by it, or does not answer.
        """
        async with guarded_session() as session:
            found = await look_up(address, session)
        if found is None:
            raise NotFound("The domain names nobody so, or does not answer.", remedy="Check the address's spelling.")
        return {"address": address, "pubkey": found.pubkey, "npub": npub(found.pubkey), "relays": list(found.relays)}

    async def _add(self, name: str, source: Source) -> Mapping[str, Any]:
        await self._identities.add(name, source)
        return shown(self._identities.identity(name))


def live_pubkey(identities: Identities, name: str) -> Callable[[], PubKey]:
    """A name's key as it is whenever it is asked for.

    Raises (when asked):
        IdentityUnknown: the name is gone.
    """

    def pubkey() -> PubKey:
        found = identities.get(name)
        if found is None:
            raise IdentityUnknown(f"There is no identity {name!r}.")
        return found.pubkey

    return pubkey


def shown(one: Identity) -> dict[str, Any]:
    """An identity without secrets."""
    pubkey = one.signer.pubkey
    return {
        "name": one.name,
        "role": "agent",
        "npub": npub(pubkey),
        "pubkey": pubkey,
        "source": one.source,
        "state": one.state,
        "epoch": one.epoch,
        "created_at": one.created_at,
        "retired_at": one.retired_at,
    }


def _own(role: str, pubkey: PubKey) -> dict[str, Any]:
    return {"name": role, "role": role, "npub": npub(pubkey), "pubkey": pubkey, "source": "derived", "state": "active",
            "epoch": 0, "created_at": None, "retired_at": None}  # fmt: skip
