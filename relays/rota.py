"""Whose turn it is: many keys, few sockets, at a relay that takes one key per connection. Pure.

Each key gets its turn, those longest without one first. A key keeps its socket until all that waited for it was read;
one that got something lately keeps it longer, but such keys hold at most half of the sockets while others wait.
"""

from collections.abc import Iterable
from typing import NamedTuple

LEAST_S = 5.0
FIRST_S = 0.2  # the same, while there are keys that have not had any turn yet
MOST_S = 60.0
HOT_S = 120.0


class Turn(NamedTuple):
    """Keys that get a socket now, and keys that give theirs up."""

    start: list[str]
    stop: list[str]


class Rota:
    """The turns of one relay's sockets."""

    def __init__(self, sockets: int) -> None:
        self._sockets = sockets
        self._active: dict[str, float] = {}
        self._served: dict[str, int] = {}  # key -> the number of its last turn
        self._turns = 0
        self._heard: dict[str, float] = {}

    @property
    def active(self) -> Iterable[str]:
        """The keys that have a socket."""
        return self._active

    def heard(self, key: str, mono: float) -> None:
        """Something came for a key."""
        self._heard[key] = mono

    def ended(self, key: str) -> None:
        """A key's socket is gone for another reason."""
        self._active.pop(key, None)

    def turn(self, keys: Iterable[str], read: Iterable[str], mono: float, closing: int = 0) -> Turn:
        """Who starts and who stops now.

        Args:
            keys: all keys that want to be listened for.
            read: those with a socket for which all that waited has been read.
            mono: monotonic seconds.
            closing: sockets that are given up but not closed yet; those that stop now are not free either.
        """
        wanted = dict.fromkeys(keys)
        stop = [key for key in self._active if key not in wanted]
        for key in stop:
            del self._active[key]
        self._served = {key: number for key, number in self._served.items() if key in wanted}
        self._heard = {key: at for key, at in self._heard.items() if key in wanted}
        waiting = [key for key in wanted if key not in self._active]
        waiting.sort(key=lambda key: self._served.get(key, -1))
        free = max(0, self._sockets - len(self._active) - closing - len(stop))
        wanting = len(waiting) - free - closing - len(stop)
        if wanting > 0:
            least = FIRST_S if waiting[0] not in self._served else LEAST_S
            over = self._over(set(read), mono, least)[:wanting]
            for key in over:
                del self._active[key]
            stop += over
        start = waiting[:free]
        for key in start:
            self._turns += 1
            self._active[key], self._served[key] = mono, self._turns
        return Turn(start, stop)

    def _over(self, read: set[str], mono: float, least: float) -> list[str]:
        """The keys whose turn may end now, those that had it longest first."""
        may = [
            key
            for key, since in self._active.items()
            if mono - since >= MOST_S or (key in read and mono - since >= least)
        ]
        hot = [key for key in may if mono - self._heard.get(key, -HOT_S) < HOT_S and mono - self._active[key] < HOT_S]
        kept = set(hot[: self._sockets // 2])
        return sorted((key for key in may if key not in kept), key=lambda key: self._active[key])
