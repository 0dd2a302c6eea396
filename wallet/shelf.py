"""The books of all mints that may be asked, by address and unit. One per wallet.

A mint's units are not configured: a book is opened when the mint lists keysets in a unit that is handled, or when a row
names it. No book is opened at a mint that is not on the shelf.
"""

from collections.abc import Callable

from core.clock import Clock
from wallet.amount import SAT, UNITS
from wallet.cashu.address import canonical_url
from wallet.cashu.book import KeysetBook
from wallet.cashu.port import Mint
from wallet.cashu.roll import Roll


class Shelf(dict[tuple[str, str], KeysetBook]):
    """Canonical address and unit → the keysets there. `shelf[...]` opens what is missing, and never anything else.

    Args:
        clock: says when what is known of a mint is old.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.on_open: Callable[[KeysetBook], None] = lambda _: None
        self._clock = clock
        self._rolls: dict[str, Roll] = {}

    def __missing__(self, key: tuple[str, str]) -> KeysetBook:
        mint, unit = key
        if mint not in self._rolls or unit not in UNITS:
            raise KeyError(key)
        roll = self._rolls[mint]
        book = KeysetBook(roll.mint, unit, self._clock, roll=roll)
        # The rows of a mint are an old copy's in all its units, or in none (`wallet.copy`).
        book.copied = any(other.copied for other in self.at(mint))
        self[key] = book
        self.on_open(book)
        return book

    def add(self, mint: Mint, *, retired: bool = False) -> None:
        """One more mint, unless it is there."""
        url = canonical_url(mint.url)
        if url in self._rolls:
            return
        roll = self._rolls[url] = Roll(mint, self._clock, retired=retired)
        roll.on_news = lambda: self._open_listed(url)
        self[url, SAT]

    def _open_listed(self, mint: str) -> None:
        for unit in self._rolls[mint].units:
            if unit in UNITS:
                self[mint, unit]

    def at(self, mint: str) -> list[KeysetBook]:
        """The books of one mint."""
        return [book for (url, _), book in self.items() if url == mint]

    def roll(self, mint: str) -> Roll | None:
        """What a mint says, by its canonical address."""
        return self._rolls.get(mint)

    def pin(self, mint: str, unit: str, keyset: str) -> None:
        """Coins of this keyset are ours, or are about to be."""
        if (roll := self._rolls.get(mint)) is not None:
            roll.pin(keyset, unit)

    @property
    def mints(self) -> tuple[str, ...]:
        """Canonical addresses of the trusted mints, in the owner's order."""
        return tuple(url for url, roll in self._rolls.items() if not roll.retired)

    @property
    def known(self) -> tuple[str, ...]:
        """Canonical addresses of all mints, trusted or not."""
        return tuple(self._rolls)
