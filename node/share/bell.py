"""Members that share a database tell each other that something was committed.

Best effort, and never the only way: what is not heard is found by looking at the tables, a second later.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from core.error import VendoError

log = logging.getLogger(__name__)

AGENTS, GIVE, WORK, CHANGE, LEFT = "agents", "give", "work", "change", "left"
_NAMES = 200  # in one word: it has at most 8,000 bytes, and a name 31
_MOST = 20_000


class Wire(Protocol):
    """What carries words: `node.storage.lease.Leases`."""

    async def hear(self, heard: Callable[[str], None]) -> None:
        """Have every word told."""

    async def ring(self, words: Sequence[str]) -> None:
        """Tell all members, oneself too."""


class Bell:
    """One member's bell. A service: `run` listens, and rings what was gathered meanwhile in one go.

    Args:
        wire: carries the words.
        own: this member's id; it does not hear itself.
    """

    def __init__(self, wire: Wire, own: Callable[[], str]) -> None:
        self._wire, self._own = wire, own
        self._names: dict[str, dict[str, None]] = {AGENTS: {}, GIVE: {}}
        self._words: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._on: dict[str, list[Callable[[Sequence[str]], None]]] = {
            word: [] for word in (AGENTS, GIVE, WORK, CHANGE, LEFT)
        }

    def on(self, word: str, heard: Callable[[Sequence[str]], None]) -> None:
        """Call back when another member rings this word; with names, for those that have any."""
        self._on[word].append(heard)

    def agents(self, names: Iterable[str]) -> None:
        """Something waits for these agents."""
        self._tell(AGENTS, names)

    def give(self, names: Iterable[str]) -> None:
        """Somebody waits for these agents themselves."""
        self._tell(GIVE, names)

    def _tell(self, word: str, names: Iterable[str]) -> None:
        if len(self._names[word]) < _MOST:
            self._names[word].update(dict.fromkeys(names))
            self._wake.set()

    def work(self) -> None:
        """Something was committed that the steward goes on with."""
        self._words[WORK] = None
        self._wake.set()

    def change(self) -> None:
        """Agents, their keys or their rules are not what they were."""
        self._words[CHANGE] = None
        self._wake.set()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Listen and ring until `stop`."""
        try:
            await self._wire.hear(self._heard)
        except VendoError as error:  # it listens from the next connection on
            log.warning("the others are not heard yet", extra={"action": "bell_waits", "code": error.code})
        ready.set()
        ringing = asyncio.create_task(self._ring(), name="bell")
        try:
            await stop.wait()
        finally:
            ringing.cancel()
            await asyncio.gather(ringing, return_exceptions=True)

    async def _ring(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            told = [" ".join((self._own(), *page)) for word in self._names for page in self._pages(word)]
            told += [f"{self._own()} {word}" for word in self._words]
            self._words.clear()
            try:
                await self._wire.ring(told)
            except VendoError as error:
                log.warning("the others were not told", extra={"action": "bell_lost", "code": error.code})

    def _pages(self, word: str) -> list[list[str]]:
        names = list(self._names[word])
        self._names[word].clear()
        return [[word, *names[start : start + _NAMES]] for start in range(0, len(names), _NAMES)]

    def _heard(self, words: str) -> None:
        sender, _, rest = words.partition(" ")
        word, *names = rest.split(" ")
        if sender != self._own():
            for heard in self._on.get(word, ()):
                heard(names)
