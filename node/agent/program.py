"""What an agent's code is given and what it may do: read and write files, keep state, say things.

A program acts on nothing but its `Context`. Everything it asks for in one tick is committed with the tick, or not at
all; nothing leaves the process before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import orjson

from core.error import InvalidInput
from core.identifier import PubKey, derived_id
from fs.namespace import Namespace
from fs.protocol import Stat
from fs.session import Session
from relays.key import npub

State: TypeAlias = dict[str, Any]
MAX_RECORDS = 200
MAX_RECORD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a tick happens.

    Attributes:
        envelope_id: unique per agent; the same trigger never ends two ticks.
        cause: message, event, manual, initialize or alarm.
        source: where it came in: nostr, control-plane, market, node.
        sender: who sent it: a public key, `operator`, or empty.
        payload: what it says.
        at: when it arrived, Unix seconds.
    """

    envelope_id: str
    cause: str
    source: str
    sender: str
    payload: Mapping[str, Any]
    at: int


class Files:
    """The agent's namespace as one tick sees it. Calls get keys that a repeated tick finds again."""

    def __init__(self, namespace: Namespace, session: Session, agent: str, envelope_id: str) -> None:
        self._namespace, self._session = namespace, session
        self._agent, self._envelope_id, self._calls = agent, envelope_id, 0

    def _keyed(self, key: str | None) -> Session:
        self._calls += 1
        return self._session.with_key(key or derived_id("tick", self._agent, self._envelope_id, str(self._calls)))

    async def list(self, path: str) -> list[Stat]:
        """What is in a directory.

        Raises:
            VendoError: as `fs.namespace.Namespace.list`.
        """
        return await self._namespace.list(path, self._session)

    async def read(self, path: str) -> bytes:
        """The whole content of a file.

        Raises:
            VendoError: as `fs.namespace.Namespace.read`.
        """
        return await self._namespace.read(path, self._session)

    async def write(self, path: str, body: bytes) -> None:
        """Replace a file's content when the tick is committed.

        Raises:
            VendoError: as `fs.namespace.Namespace.write`.
        """
        await self._namespace.write(path, body, self._keyed(None))

    async def call(self, path: str, body: bytes, key: str | None = None) -> bytes:
        """Send one record; what it causes begins when the tick is committed.

        Args:
            path: the file to call.
            body: the record.
            key: the idempotency key; one that derives from agent, envelope and count if None.

        Raises:
            VendoError: as `fs.namespace.Namespace.call`.
        """
        return await self._namespace.call(path, body, self._keyed(key))


@dataclass(slots=True)
class Context:
    """What a program has in one tick.

    Attributes:
        agent: its own name.
        now: Unix seconds, the same for the whole tick.
        state: what it remembers, JSON; change it in place.
        fs: its files.
        records: what it said, for the trace: (type, JSON).
    """

    agent: str
    now: int
    state: State
    fs: Files
    records: list[tuple[str, str]] = field(default_factory=list)

    def log(self, kind: str, **data: Any) -> None:
        """Add a record to the agent's trace.

        Raises:
            InvalidInput: it is too long, or there are too many in this tick.
        """
        body = orjson.dumps(data).decode()
        if len(body) > MAX_RECORD_BYTES or len(self.records) >= MAX_RECORDS:
            raise InvalidInput("A tick says at most 200 things of 16 KiB each.")
        self.records.append((kind[:64], body))

    async def send_dm(self, to: PubKey, text: str, key: str | None = None) -> None:
        """Send an encrypted message (NIP-17) when the tick is committed.

        Raises:
            Refused: the gate said no.
        """
        await self.fs.call(f"/nostr/dm/{npub(to)}", text.encode(), key)


class Program(Protocol):
    """An agent's code. `version` is that of its state."""

    name: str
    version: int

    def initial(self) -> State:
        """The state of a new agent."""

    def migrate(self, version: int, state: State) -> State:
        """State of an older version in today's form.

        Raises:
            InvalidInput: it cannot be used.
        """

    async def on_trigger(self, ctx: Context, trigger: Trigger) -> None:
        """Deal with one trigger. What is raised here makes the tick void; it is tried again later."""


Programs: TypeAlias = Mapping[str, Program]
Namespaces: TypeAlias = Callable[[str], Namespace]
