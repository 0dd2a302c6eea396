"""Which events were handled lately, in bounded memory. Pure."""


class Seen:
    """Ids with their `created_at`, remembered for between `size` and twice `size` further ids.

    Two generations instead of an exact queue: a look-up is one or two dictionary reads and nothing is moved.
    An id may be put in only after its event was verified; otherwise a forgery would hide the genuine event.
    """

    __slots__ = ("_new", "_old", "_size")

    def __init__(self, size: int = 50_000) -> None:
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._size = size

    def get(self, event_id: str) -> int | None:
        """The verified `created_at` under which the id was put in, or None."""
        found = self._new.get(event_id)
        return self._old.get(event_id) if found is None else found

    def between(self, since: int, until: int) -> list[tuple[int, str]]:
        """(created_at, id) of what was put in with a date from `since` to `until`, both included."""
        return [
            (created_at, event_id)
            for known in (self._old, self._new)
            for event_id, created_at in known.items()
            if since <= created_at <= until
        ]

    def add(self, event_id: str, created_at: int) -> None:
        """Remember a verified event."""
        if len(self._new) >= self._size:
            self._old, self._new = self._new, {}
        self._new[event_id] = created_at
