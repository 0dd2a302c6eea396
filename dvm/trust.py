"""How far a customer is trusted, and what that gives it: a share of the work, quotes at once, free jobs a day. Pure.

Three classes: *unknown*, who shows proof of work or pays first; *known*, whom the owner has named; *paid before*,
whose settled sales are its credit. A key costs nothing, so an unknown one has nothing but what it does now.
"""

from dataclasses import dataclass
from enum import IntEnum

from core.money import Msat
from dvm.nonce import leading_zero_bits
from relays.event import Event

NOTHING = Msat(0)
MOST_CREDIT = 4  # times what an unknown customer may have open at once


class Trust(IntEnum):
    """The classes; the number multiplies a job's share of the workers."""

    UNKNOWN = 1
    KNOWN = 2
    PAID_BEFORE = 4

    @property
    def word(self) -> str:
        """As it is shown."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Standing:
    """What one customer has earned.

    Attributes:
        trust: its class.
        settled: what its settled sales brought.
        free_left: jobs that it may still have today without paying.
    """

    trust: Trust = Trust.UNKNOWN
    settled: Msat = NOTHING
    free_left: int = 0


STRANGER = Standing()


def standing_of(*, named: bool, settled: Msat, free_today: int, free_per_day: int) -> Standing:
    """A customer's standing from what is known of it.

    Args:
        named: the owner has named it.
        settled: what its settled sales brought.
        free_today: free jobs that it had today.
        free_per_day: what those who are named may have.
    """
    trust = Trust.PAID_BEFORE if settled else Trust.KNOWN if named else Trust.UNKNOWN
    return Standing(trust, settled, max(0, free_per_day - free_today) if named else 0)


def most_open(standing: Standing, price: Msat, base: int) -> int:
    """How many quotes and paid jobs it may have at once: beyond `base`, as many as its settled sales are worth."""
    match standing.trust:
        case Trust.UNKNOWN:
            return base
        case Trust.KNOWN:
            return MOST_CREDIT * base
        case Trust.PAID_BEFORE:
            return min(MOST_CREDIT * base, base + standing.settled.value // max(1, price.value))


def proven_bits(event: Event) -> int:
    """The work that an event's id shows, as far as its `nonce` tag commits to it (NIP-13); 0 if it shows none.

    Only the committed target counts: whoever mines for little and is lucky has not worked for more.
    """
    for tag in event.all("nonce"):
        if len(tag) > 2 and len(tag[2]) <= 3 and tag[2].isascii() and tag[2].isdigit():
            target = int(tag[2])
            return target if leading_zero_bits(event.id) >= target else 0
    return 0
