"""Reading everything that a relay has stored for a subscription, past any limit on one answer. Pure.

Relays answer newest first and stop at a limit of their own that is not known. So each filter is walked down by
`until` (inclusive, since one second may be cut in two) until an answer brings nothing older. Several filters
share one limit in some relays, hence each is walked by itself. Only verified events move the walk.
"""

from collections.abc import Sequence
from dataclasses import replace

from relays.filter import Filter

MAX_PAGES = 1_000
_SUSPECT = 50  # a page this full of one single second was probably cut


class CatchUp:
    """One walk. The first page is the subscription's own REQ; `turn` says what to ask next.

    Attributes:
        pages: answers that ended so far.
        hole: the earliest second of which events may be missing, if there is any.
        holes: places where events may be missing: a second with more events than one answer holds, or too many pages.
    """

    __slots__ = ("_count", "_filter", "_largest", "_oldest", "_todo", "_until", "hole", "holes", "pages")

    def __init__(self, filters: Sequence[Filter], pageable: Sequence[Filter]) -> None:
        single = len(filters) == 1 and len(pageable) == 1
        self._filter = pageable[0] if single else None
        self._todo = [] if single else list(pageable)
        self._until: int | None = None
        self._count = self._largest = self._oldest = 0
        self.pages = self.holes = 0
        self.hole: int | None = None

    def note(self, created_at: int) -> None:
        """A verified event of the page that is being read."""
        if self._count == 0 or created_at < self._oldest:
            self._oldest = created_at
        self._count += 1

    def turn(self, finished: bool | None) -> Filter | None:
        """The page has ended. The filter to ask next, or None when all was read.

        `finished` is NIP-67's word that there is no further page, if the relay gave it.
        """
        count, oldest, current = self._count, self._oldest, self._filter
        self._count = 0
        self.pages += 1
        if self.pages >= MAX_PAGES:
            self.holes += 1
            return None
        if current is None:  # several filters: one answer for all of them tells only whether there is anything
            return None if count == 0 or finished else self._next_filter()
        if count == 0 or finished:
            return self._next_filter()
        self._largest = max(self._largest, count)
        until = oldest
        if self._until is not None and oldest >= self._until:
            if 2 * count < self._largest:  # it could have sent older ones beside these, and did not
                return self._next_filter()
            if count >= _SUSPECT:
                self.holes += 1
                self.hole = oldest if self.hole is None else min(self.hole, oldest)
            until = self._until - 1
        if until < current.since:
            return self._next_filter()
        self._until = until
        return replace(current, until=until)

    def _next_filter(self) -> Filter | None:
        if not self._todo:
            return None
        self._filter = self._todo.pop()
        self._until, self._largest = None, 0
        return self._filter
