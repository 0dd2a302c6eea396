"""Comparing with a relay what both hold (NIP-77), instead of reading it all again. Pure.

One exchange per REQ. What the relay has and we have not is then fetched by ids, at most 100 in a request.
"""

from collections import deque
from collections.abc import Sequence

from relays.filter import Filter
from relays.negentropy import Initiator, Vector
from relays.subscription import Stream

IDS_A_REQUEST = 100
SILENCE_S = 20.0
MAX_NEEDED = 100_000


class Reconciliation:
    """One exchange, and the fetching after it.

    Attributes:
        stream: whose events they are.
        sub_id: under which the exchange runs; empty once it has ended.
        first: it replaces the reading of what is stored; otherwise it looks for what was lost.
        heard_at: monotonic seconds of the relay's last word.
        fetching: the name of the request by ids that is open.
    """

    __slots__ = ("_filter", "_initiator", "_needed", "fetching", "first", "heard_at", "stream", "sub_id")

    def __init__(
        self, stream: Stream, sub_id: str, wanted: Filter, held: Sequence[tuple[int, str]], mono: float, *, first: bool
    ) -> None:
        self.stream = stream
        self.sub_id = sub_id
        self.first = first
        self.heard_at = mono
        self.fetching = ""
        self._filter = wanted
        self._initiator = Initiator(Vector(held))
        self._needed: deque[str] = deque()

    def start(self) -> tuple[Filter, str]:
        """What NEG-OPEN says: the filter, and the first message in hex."""
        return self._filter, self._initiator.start()

    def receive(self, message: str, mono: float) -> str | None:
        """NEG-MSG came. The message to answer with, or None when the exchange has ended.

        Raises:
            MalformedSync: it is no such message, or the exchange does not come to an end.
        """
        self.heard_at = mono
        step = self._initiator.receive(message)
        self._needed.extend(step.need[: MAX_NEEDED - len(self._needed)])
        return step.reply

    def following(self) -> Filter | None:
        """The next request by ids, or None when all has been fetched."""
        ids = [self._needed.popleft() for _ in range(min(IDS_A_REQUEST, len(self._needed)))]
        return Filter(ids=frozenset(ids), limit=len(ids)) if ids else None

    @property
    def is_silent(self) -> bool:
        """Whether the relay has yet to say something in the exchange itself."""
        return bool(self.sub_id)
