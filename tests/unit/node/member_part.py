"""A table of leases in memory, and a clock that the test moves: what members of one database see of each other."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from node.storage.error import Fenced, StoreFailed
from node.storage.seat import Place, Roll, Seat


class TurnedClock:
    """Time that stands still until the test turns it."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> int:
        return int(self.at)

    def millis(self) -> int:
        return round(self.at * 1_000)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until - 1e-9:
            await asyncio.sleep(0)

    async def turn(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, in steps in which everybody gets a turn."""
        until = self.at + seconds
        while self.at < until - 1e-9:
            self.at = min(until, self.at + step)
            for _ in range(20):
                await asyncio.sleep(0)


class Table:
    """The leases and who holds which agent, by the rules of `node.storage.lease`, without a database."""

    def __init__(self, clock: TurnedClock, lease_s: float) -> None:
        self.clock, self.lease_s = clock, lease_s
        self.tokens: dict[int, int] = {}
        self.seats: dict[int, tuple[str, float, str]] = {}  # slot → lock, end, about
        self.steward, self.term = "", 0
        self.agents: dict[str, str] = {}
        self.due: list[str] = []
        self.is_down = False
        self.claims: list[tuple[str, ...]] = []

    def _out(self, slot: int) -> str:
        id_ = Place(slot, self.tokens[slot]).id
        del self.seats[slot]
        self.tokens[slot] += 1
        self.steward = "" if self.steward == id_ else self.steward
        self.agents = {name: "" if holder == id_ else holder for name, holder in self.agents.items()}
        return id_

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreFailed

    async def join(self, lock: str, about: str) -> Place:
        await self._answer()
        for slot in [slot for slot, (held, _, _) in self.seats.items() if held == lock]:
            self._out(slot)
        slot = next(slot for slot in range(100) if slot not in self.seats)
        self.tokens.setdefault(slot, 1)
        self.seats[slot] = (lock, self.clock.at + self.lease_s, about)
        return Place(slot, self.tokens[slot])

    async def renew(self, place: Place, about: str, *, judge: bool = True) -> Roll:
        await self._answer()
        if place.slot not in self.seats or self.tokens[place.slot] != place.token:
            raise Fenced
        self.seats[place.slot] = (self.seats[place.slot][0], self.clock.at + self.lease_s, about)
        late = [slot for slot, (_, end, _) in self.seats.items() if judge and end < self.clock.at]
        out = tuple(map(self._out, late))
        if not self.steward:
            self.steward, self.term = place.id, self.term + 1
        seats = tuple(
            Seat(Place(slot, self.tokens[slot]), round((end - self.clock.at) * 1_000), said)
            for slot, (_, end, said) in sorted(self.seats.items())
        )
        return Roll(seats, self.steward, self.term, out)

    async def leave(self, place: Place) -> None:
        await self._answer()
        if self.tokens.get(place.slot) == place.token and place.slot in self.seats:
            self._out(place.slot)

    async def claim(self, place: Place, agents: Collection[str]) -> set[str]:
        await self._answer()
        self.claims.append(tuple(agents))
        taken = {name for name in agents if self.agents.get(name, "") in ("", place.id)}
        self.agents.update(dict.fromkeys(taken, place.id))
        return taken

    async def release(self, place: Place, agents: Collection[str]) -> None:
        await self._answer()
        for name in agents:
            if self.agents.get(name) == place.id:
                self.agents[name] = ""

    async def waiting(self, limit: int) -> list[str]:
        await self._answer()
        return [name for name in self.due if not self.agents.get(name)][:limit]


class Line:
    """What members hear of each other."""

    def __init__(self) -> None:
        self.heard: list[Callable[[str], None]] = []
        self.words: list[str] = []

    async def hear(self, heard: Callable[[str], None]) -> None:
        self.heard.append(heard)

    async def ring(self, words: Sequence[str]) -> None:
        self.words += words
        for word in words:
            for heard in self.heard:
                heard(word)
