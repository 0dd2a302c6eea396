"""Times in cron's own words: five fields, names, ranges, steps, lists, `@hourly` and its like, in a time zone. Pure.

`cronsim` reads the fields as Debian's cron does; here stand what it is given and what is made of what it answers.
UTC unless a zone is named: `CRON_TZ=Europe/Zurich 30 6 * * MON-FRI`. Where clocks are changed:

* a rule with fixed minutes and hours keeps to the clock on the wall. A time that does not exist (02:30, when 02:00 is
  followed by 03:00) comes at the first minute that does; a time that comes twice counts once, the first time;
* a rule with a `*` in its minutes or hours keeps to time as it passes: nothing comes in the hour that is left out, and
  it comes in both of two hours that have one name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from core.error import InvalidInput

MAX_TEXT = 200
LAST_MS = 4_102_444_800_000
"""The year 2100: no time after it is looked for."""

_ZONE = "CRON_TZ="
_FIELD = re.compile(r"[0-9A-Za-z*/,#-]+")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_STEPPED = re.compile(r"([0-9A-Z]+)-([0-9A-Z]+)/0*[1-9][0-9]*")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_NUMBERS = {name: str(number) for words, low in ((_DAYS, 0), (_MONTHS, 1)) for number, name in enumerate(words, low)}
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Cron:
    """A rule that was read: its five fields, and the name of its time zone (`UTC` or IANA's)."""

    fields: str
    zone: str

    def __str__(self) -> str:
        return self.fields if self.zone == "UTC" else f"{_ZONE}{self.zone} {self.fields}"

    def after(self, at_ms: int) -> int | None:
        """The next time after this one, both in Unix ms; None if there is none in this century."""
        return next(self._times(at_ms), None)

    def between(self, low_ms: int, high_ms: int, most: int) -> int:
        """How many times lie after `low_ms` and not after `high_ms`; counting ends at `most`."""
        count = 0
        for found in self._times(low_ms):
            if found > high_ms or count >= most:
                break
            count += 1
        return count

    def _times(self, at_ms: int) -> Iterator[int]:
        last = at_ms
        if not 0 <= at_ms < LAST_MS:
            return
        for found in CronSim(self.fields, datetime.fromtimestamp(at_ms / 1000, _zone(self.zone))):
            time_ms = int(found.timestamp()) * 1000
            if time_ms >= LAST_MS:
                return
            if time_ms > last:  # where a clock is set back the library may name a time that has passed
                last = time_ms
                yield time_ms


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if _ZONE_NAME.fullmatch(name) is None:
        raise InvalidInput(f"This is no name of a time zone: {name[:60]!r}.")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInput(f"There is no time zone called {name[:60]!r}.") from error


def _field(word: str) -> str:
    """A field for the library, which takes `5-5/2` for `5/2` (from 5 to the end): a range of one is that one."""
    return ",".join(_term(term) for term in word.upper().split(","))


def _term(term: str) -> str:
    ends = _STEPPED.fullmatch(term)
    if ends is None or _NUMBERS.get(ends[1], ends[1]) != _NUMBERS.get(ends[2], ends[2]):
        return term
    return ends[1]


@lru_cache(1_024)
def read_cron(text: str) -> Cron:
    """A rule in cron's words, `CRON_TZ=<zone>` before it if it is not in UTC.

    Raises:
        InvalidInput: it is none, names a zone that is not known, or a day that never comes.
    """
    if not 0 < len(text) <= MAX_TEXT or not text.isascii():
        raise InvalidInput(f"A cron rule is 1 to {MAX_TEXT} ASCII characters.")
    zone, words = "UTC", text.split()
    if words and words[0].startswith(_ZONE):
        zone, words = words[0].removeprefix(_ZONE), words[1:]
        _zone(zone)
    if len(words) == 1 and words[0].startswith("@"):
        named = _NAMED.get(words[0].lower())
        if named is None:
            raise InvalidInput(f"{words[0][:40]!r} is none of {', '.join(_NAMED)}.")
        words = named.split()
    if len(words) != 5 or any(_FIELD.fullmatch(word) is None for word in words):
        raise InvalidInput("A cron rule has five fields: minute, hour, day of month, month, day of week.")
    found = Cron(" ".join(map(_field, words)), zone)
    try:
        if found.after(0) is None:
            raise InvalidInput("This cron rule names a time that never comes.")
    except CronSimError as error:
        raise InvalidInput(f"This is no cron rule: {error}.") from error
    return found
