"""What an agent keeps beside its state, as one tick sees it. Pure."""

from typing import Any, Protocol

import orjson

from node.agent.replay.tape import Tape
from node.agent.tick.stage import MAX_ITEM_BYTES, Stage, ask, json_text, named


class Keep(Protocol):
    """What a context reads of its agent's own rows."""

    async def marked(self, mark: str) -> bool:
        """Whether an id was marked before this tick."""

    async def item(self, key: str) -> str | None:
        """A kept value as JSON, as of before this tick."""

    async def items(self, prefix: str) -> list[str]:
        """Keys of kept values, as of before this tick."""


class Memory:
    """Values that an agent keeps beside its state: JSON under keys, each read when it is needed.

    The agent's `/memory` shows the same ones as files: a key `x` as `/memory/context/x`, a key `/folder/x` as
    `/memory/folder/x`. A key that ends in a slash is a directory that was made there, with None as its value.
    """

    __slots__ = ("_keep", "_stage", "_tape")

    def __init__(self, keep: Keep, tape: Tape, stage: Stage) -> None:
        self._keep, self._tape, self._stage = keep, tape, stage

    async def get(self, key: str) -> Any:
        """A value, as this tick would leave it; None if there is none."""
        self._stage.open()

        async def fetch() -> bytes:
            staged = self._stage.items
            if key not in staged and key not in self._stage.known:
                self._stage.known.setdefault(key, await self._keep.item(key))
            value = staged[key] if key in staged else self._stage.known[key]
            return b"" if value is None else value.encode()

        body = await self._tape.read("item.get", (key,), fetch)
        return orjson.loads(body) if body else None

    async def list(self, prefix: str = "") -> list[str]:
        """Keys that begin so, sorted, as this tick would leave them."""
        self._stage.open()

        async def fetch() -> bytes:
            found = set(await self._keep.items(prefix))
            for key, value in self._stage.items.items():
                if value is None:
                    found.discard(key)
                elif key.startswith(prefix):
                    found.add(key)
            return orjson.dumps(sorted(found))

        keys: list[str] = orjson.loads(await self._tape.read("item.list", (prefix,), fetch))
        return keys

    def set(self, key: str, value: Any) -> None:
        """Keep a value when the tick is committed.

        Raises:
            InvalidInput: it is no JSON or over 64 KiB; or the key is no name.
        """
        self._stage.change()
        text = json_text(value, MAX_ITEM_BYTES, "A kept value")
        ask(self._stage.items, named(key, "key"), text)
        self._tape.tell("item.set", key, text)

    def delete(self, key: str) -> None:
        """Keep it no more, once the tick is committed."""
        self._stage.change()
        ask(self._stage.items, named(key, "key"), None)
        self._tape.tell("item.delete", key)
