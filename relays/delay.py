"""How long things take lately, as quantiles of the last few hundred. Pure."""

from collections import deque

KEPT = 512


class Delay:
    """The last measurements of one thing, in seconds."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """One more measurement. A clock that is behind makes no negative delays."""
        self._last.append(max(0.0, seconds))

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0 to 1) of the measurements do not exceed, or None without any."""
        if not self._last:
            return None
        ordered = sorted(self._last)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
