"""What a wallet does whose rows come from an old copy of the database: ask first, and repeat nothing (DESIGN §6).

Between the copy and now the same seed may have paid, earned and minted, and no row tells of it. So before anything is
begun at a mint again, once for each mint:

1. operations that would pay somebody are only looked up (`Operation.copied`): what the mint signed for them is booked,
   and what it did not sign is never sent, since it may have been paid in another way meanwhile. If its coins were
   spent for something else, that is known to have moved money;
2. counters rise past everything that the mint ever signed for this seed (NUT-09, NUT-13), and coins that are found so
   are ours;
3. coins that were spent meanwhile (NUT-07) are written off.

Both sides of what happened meanwhile are posted to one account, `elsewhere`: its balance is what left the wallet in
the time that nobody remembers. A mint that does not answer is asked again; until then nothing is begun there.
"""

import logging
from dataclasses import replace

from core.clock import Clock
from core.unit import Delete, Insert, UnitOfWork, Update, Within, Write
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation
from wallet.cashu.port import BATCH, CoinState
from wallet.cashu.proof import total
from wallet.error import MintBusy
from wallet.journal import Account, postings
from wallet.payment import Kind, State
from wallet.purse import OPEN, Coin, Purse
from wallet.restorer import scan
from wallet.shelf import Shelf

KEY = "copied/"
LIFE = "memo"  # in table `meta`: under which name this database writes its memo, and how often it did
_PENDING, _FOUND, _SAME, _MOVED = "pending", "pending, moved", "same", "moved"
_PAYS = frozenset({Kind.LOCK, Kind.SEND, Kind.MELT})
_log = logging.getLogger(__name__)


def moved(mint: str) -> Update:
    """That money moved at a mint that is still to be asked; for the commit that books what showed it."""
    return Update("meta", {"key": KEY + mint, "value": _PENDING}, {"value": _FOUND}, rows=None)


class OldCopy:
    """Which mints are still to be asked, and the asking.

    Args:
        purse: the rows.
        derive: makes outputs from counters.
        unit: remembers which mints were asked (table `meta`).
        clock: stamps postings.
        books: the mints. A mint has been asked once it was asked in each of its units.
    """

    def __init__(self, purse: Purse, derive: Derivation, unit: UnitOfWork, clock: Clock, books: Shelf) -> None:
        self._purse, self._derive, self._unit, self._clock, self._books = purse, derive, unit, clock, books

    async def mark(self) -> None:
        """The rows are an old copy's. Durable when it returns; again, it asks every mint once more.

        Its memo goes on under a new name, so that what relays hold of the life that is forgotten stays there.
        """
        await self._unit.commit([Delete("meta", {"key": LIFE})])
        for mint in self._books.known:
            key = KEY + mint
            await self._unit.commit(
                [
                    Insert("meta", {"key": key, "value": _PENDING}, or_ignore=True),
                    Update("meta", {"key": key}, {"value": _PENDING}),
                ]
            )
            for book in self._books.at(mint):
                book.copied, book.guarded = True, False
        for stored in [
            *await self._purse.operations(state=OPEN),
            *await self._purse.operations(state=str(State.WAITING)),
        ]:
            if stored.op.kind in _PAYS or stored.op.kind is Kind.DEPOSIT:
                marked = replace(stored, plan=replace(stored.plan, copied=True))
                await self._purse.commit([self._purse.change(stored, marked)])

    async def load(self) -> None:
        """At start: which mints were not asked yet."""
        pending = {mint for mint, state in (await self.states()).items() if state.startswith(_PENDING)}
        for book in list(self._books.values()):
            book.copied = book.mint.url in pending

    async def states(self) -> dict[str, str]:
        """Mint → `pending` (with `, moved` if something was found), `same` (nothing has happened there) or `moved`."""
        rows = await self._unit.select("meta", {"key": Within(KEY, KEY[:-1] + "0")})
        return {row["key"].removeprefix(KEY): row["value"] for row in rows}

    async def forget(self) -> None:
        """What was found out is not needed any more."""
        known = await self.states()
        await self._unit.commit([Delete("meta", {"key": KEY + mint}) for mint in known])

    async def settle(self, book: KeysetBook) -> None:
        """Ask a mint. Nobody may choose coins or counters of it meanwhile, and its operations were looked up before.

        Raises:
            Unavailable: it does not answer, or says of something that it is still at it; what was found is kept.
            MintLied: what it restored cannot be true.
        """
        if await self._purse.operations(mint=book.mint.url, unit=book.unit, state=OPEN):
            raise MintBusy("Operations from before the copy are still looked up at this mint.")
        await book.refresh()
        await book.heard()
        for keyset in sorted(book.infos):
            await self._find(book, keyset)
        await self._write_off(book)
        if any(other.copied for other in self._books.at(book.mint.url) if other is not book):
            book.copied = False  # the mint is not done: after a crash all its units are asked again
            return
        said = _MOVED if (await self.states())[book.mint.url] == _FOUND else _SAME
        await self._purse.commit([self._say(book, said)])
        book.copied = False
        _log.info("a copied wallet was compared", extra={"action": "wallet_copy_settled", "outcome": said})

    async def _find(self, book: KeysetBook, keyset: str) -> None:
        """Coins beyond the counter that the copy knows. The coins and the new counter are one unit."""
        used = await self._purse.counter(keyset)
        found, after = await scan(book, self._derive, keyset, used or 0, first=used or 0)
        known = await self._purse.known([proof.y for proof in found])
        fresh = [proof for proof in found if proof.y not in known]
        reports = await book.mint.states([proof.y for proof in fresh]) if fresh else {}
        if any(report.state is CoinState.PENDING for report in reports.values()):
            # They may be given back, and then nobody would look for them below the counter.
            raise MintBusy("The mint is still at work with coins that are newer than the copy.")
        live = [proof for proof in fresh if reports[proof.y].state is CoinState.UNSPENT]
        writes: list[Write] = [
            *(self._purse.insert(proof, book.mint.url, book.unit, "live", "copy") for proof in live),
            *self._post(book, total(live)),
            *self._purse.count(keyset, used, after),
        ]
        if writes:
            await self._purse.commit([*writes, self._say(book, _FOUND)])

    async def _write_off(self, book: KeysetBook) -> None:
        coins = await self._purse.coins(mint=book.mint.url, unit=book.unit, state="live")
        gone: list[Coin] = []
        for start in range(0, len(coins), BATCH):
            some = coins[start : start + BATCH]
            reports = await book.mint.states([coin.y for coin in some])
            if any(reports[coin.y].state is CoinState.PENDING for coin in some):
                raise MintBusy("The mint is still at work with some of these coins.")
            gone += [coin for coin in some if reports[coin.y].state is CoinState.SPENT]
        if gone:
            amount = sum(coin.amount for coin in gone)
            writes: list[Write] = [*map(self._purse.spend, gone), *self._post(book, -amount)]
            await self._purse.commit([*writes, self._say(book, _FOUND)])

    @staticmethod
    def _say(book: KeysetBook, state: str) -> Update:
        return Update("meta", {"key": KEY + book.mint.url}, {"value": state})

    def _post(self, book: KeysetBook, amount: int) -> list[Insert]:
        moves = {Account.WALLET: amount, Account.ELSEWHERE: -amount}
        return postings("copy", book.mint.url, book.unit, self._clock.now(), moves)
