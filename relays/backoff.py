"""How long to wait before the next try: full jitter, doubling, and forgiven only by a connection that lived. Pure."""

from collections.abc import Callable

Jitter = Callable[[float], float]  # a random number of seconds from 0 up to the given one

BASE_S = 0.5
CAP_S = 60.0
HEALTHY_S = 30.0
_FLOOR_S = 0.05


def pause(tries: int, jitter: Jitter, base: float = BASE_S, cap: float = CAP_S) -> float:
    """Seconds to wait after that many failures in a row."""
    return max(_FLOOR_S, jitter(min(cap, base * 2.0 ** min(tries, 32))))


class Backoff:
    """The tries of one thing that should stay up. Short-lived successes do not reset it, so no storm can start."""

    __slots__ = ("_jitter", "_up_at", "tries")

    def __init__(self, jitter: Jitter) -> None:
        self._jitter = jitter
        self._up_at: float | None = None
        self.tries = 0

    def up(self, mono: float) -> None:
        """It works since now (monotonic seconds)."""
        self._up_at = mono

    def down(self, mono: float) -> float:
        """It failed or ended; how many seconds to wait."""
        lived = 0.0 if self._up_at is None else mono - self._up_at
        self._up_at = None
        self.tries = 0 if lived >= HEALTHY_S else self.tries + 1
        return pause(self.tries, self._jitter)
