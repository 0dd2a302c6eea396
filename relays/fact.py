"""What each relay said of itself and what we found out by trying, kept in the database (table `relay_fact`)."""

import logging

from core.clock import Clock
from core.error import VendoError
from core.unit import Insert, UnitOfWork, Update, Value, Write
from relays.error import MalformedEvent
from relays.limitation import Traits, parse_traits
from relays.nip11 import Information, parse_information

log = logging.getLogger(__name__)

TABLE = "relay_fact"
FRESH_S = 3_600  # how long a relay's own word is believed before it is asked again
_KEPT = 10_000


class Facts:
    """One row for each relay that was ever asked."""

    def __init__(self, unit: UnitOfWork, clock: Clock) -> None:
        self._unit = unit
        self._clock = clock
        self._information: dict[str, tuple[Information, int]] = {}
        self._traits: dict[str, Traits] = {}
        self._saved: dict[str, tuple[str, str]] = {}
        self._changed: set[str] = set()

    async def load(self) -> None:
        """Read what earlier runs found."""
        for row in await self._unit.select(TABLE, order=("-at",), limit=_KEPT):
            url, text, traits = str(row["url"]), str(row["information"]), str(row["traits"])
            self._saved[url] = (text, traits)
            self._traits[url] = parse_traits(traits)
            try:
                self._information[url] = (parse_information(text.encode()), int(row["at"]))
            except MalformedEvent:
                continue  # it had said nothing

    def traits(self, url: str) -> Traits:
        """What was found out about a relay; the one object that its connections change."""
        return self._traits.setdefault(url, Traits())

    def information(self, url: str) -> Information:
        """What the relay said last; an empty document if it never did."""
        return self._information[url][0] if url in self._information else Information()

    def is_fresh(self, url: str) -> bool:
        """Whether the relay need not be asked again yet."""
        known = self._information.get(url)
        return known is not None and self._clock.now() - known[1] < FRESH_S

    def note(self, url: str, information: Information | None) -> None:
        """The relay was asked. None if it gave no document: then its last one still counts."""
        if information is not None:
            self._information[url] = (information, self._clock.now())
            self._changed.add(url)

    async def save(self) -> None:
        """Write what has changed. A failure is logged, and the next call tries again."""
        for url, traits in self._traits.items():
            if traits.to_json() != self._saved.get(url, ("", "{}"))[1] and traits != Traits():
                self._changed.add(url)
        if not self._changed:
            return
        changed = set(self._changed)
        rows = {url: (self._text(url), self.traits(url).to_json()) for url in changed}
        writes: list[Write] = []
        for url, (text, traits_text) in rows.items():
            at = self._information[url][1] if url in self._information else self._clock.now()
            values: dict[str, Value] = {"information": text, "traits": traits_text, "at": at}
            writes += [
                Insert(TABLE, {"url": url, **values}, or_ignore=True),
                Update(TABLE, {"url": url}, values),
            ]
        try:
            await self._unit.commit(writes)
        except VendoError as error:
            log.warning("Facts on relays were not written: %s", error, extra={"action": "facts_failed"})
            return
        self._saved.update(rows)
        self._changed -= changed

    def _text(self, url: str) -> str:
        return self._information[url][0].to_json() if url in self._information else ""
