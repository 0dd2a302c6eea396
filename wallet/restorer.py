"""Finds coins again from the seed: asks the mint about every output that we could have made (NUT-09, NUT-13)."""

import logging
from collections.abc import Collection

from core.clock import Clock
from core.unit import Write
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation
from wallet.cashu.port import BATCH, CoinState
from wallet.cashu.proof import Output, Proof, total
from wallet.cashu.signature import unblind
from wallet.error import MintLied
from wallet.journal import Account, postings
from wallet.model import Restored
from wallet.purse import OPEN, Purse

# Refused swaps leave holes in the counters; more than a hundred were seen in a row.
GAP = 300
# No wallet is so far beyond its counter; a mint that signs more is only there to keep us busy.
MOST = 100_000
_log = logging.getLogger(__name__)


async def scan(
    book: KeysetBook, derive: Derivation, keyset: str, used: int = 0, *, first: int = 0
) -> tuple[list[Proof], int]:
    """Every coin that the mint ever signed for this seed in one keyset, and the counter after the last of them.

    `first` is the counter at which to begin; then only coins from there on are found.

    Raises:
        Unavailable: the mint does not answer.
        MintLied: what it restored cannot be true.
    """
    proofs: list[Proof] = []
    counter, last = first, first - 1
    while counter <= max(last, used - 1) + GAP:
        if counter > used + MOST:
            raise MintLied("The mint restores coins without end.")
        outputs = [derive.output(keyset, counter + place, 1) for place in range(BATCH)]
        signatures = await book.mint.restore(outputs)
        keys = (await book.keys(keyset)).keys if signatures else {}
        for place, output in enumerate(outputs):
            signature = signatures.get(output.b)
            if signature is None:
                continue
            last = counter + place
            if signature.amount not in keys or signature.keyset != keyset:
                raise MintLied("The mint restored an amount or keyset that does not exist.")
            whole = derive.output(keyset, last, signature.amount)
            proofs.append(unblind(whole, signature, keys[signature.amount]))
        counter += BATCH
    return proofs, last + 1


async def unspent(book: KeysetBook, proofs: list[Proof]) -> list[Proof]:
    """Those of these coins that can be spent now."""
    reports = await book.mint.states([proof.y for proof in proofs])
    return [proof for proof in proofs if reports[proof.y].state is CoinState.UNSPENT]


class Restorer:
    """Scans a mint's keysets, also those no longer active, into the database.

    Args:
        purse: the rows.
        derive: makes outputs from counters.
        clock: stamps postings.
    """

    def __init__(self, purse: Purse, derive: Derivation, clock: Clock) -> None:
        self._purse = purse
        self._derive = derive
        self._clock = clock

    async def restore(self, book: KeysetBook, given_up: Collection[Output] = ()) -> Restored:
        """Add coins that the mint holds unspent and the database does not know. Counters rise past every hit.

        Nobody may choose coins or counters of this mint meanwhile. What open operations have asked for is theirs, but
        for outputs that they have `given_up`.

        Raises:
            Unavailable: the mint did not answer; what was found so far is kept.
        """
        await book.refresh()
        planned = {
            output.secret
            for stored in await self._purse.operations(state=OPEN)
            for group in (stored.plan.outputs, *stored.plan.past)
            for output in group
        } - {output.secret for output in given_up}
        amount = coins = 0
        for keyset in sorted(book.infos):
            used = await self._purse.counter(keyset)
            found, after = await scan(book, self._derive, keyset, used or 0)
            await self._purse.commit(self._purse.count(keyset, used, after))
            added = await self._add(book, [proof for proof in found if proof.secret not in planned])
            amount += total(added)
            coins += len(added)
        return Restored(book.mint.url, amount, coins, len(book.infos), book.unit)

    async def guard(self, book: KeysetBook) -> None:
        """Raise counters past outputs that the mint has signed already: then the database is an old copy.

        A counter used twice would hand out a coin twice. Nobody may choose counters of this mint meanwhile.

        Raises:
            Unavailable: the mint does not answer.
            MintLied: it calls something signed that it did not sign.
        """
        for keyset in [keyset for keyset in sorted(book.infos) if book.usable(keyset)]:
            used = await self._purse.counter(keyset)
            _, after = await scan(book, self._derive, keyset, used or 0, first=used or 0)
            if after != (used or 0):
                _log.error(
                    "the database is an old copy; restore", extra={"action": "wallet_old_copy", "keyset": keyset}
                )
                await self._purse.commit(self._purse.count(keyset, used, after))

    async def _add(self, book: KeysetBook, proofs: list[Proof]) -> list[Proof]:
        known = await self._purse.known([proof.y for proof in proofs])
        fresh = [proof for proof in proofs if proof.y not in known]
        if not fresh:
            return []
        added = await unspent(book, fresh)
        writes: list[Write] = [
            self._purse.insert(proof, book.mint.url, book.unit, "live", "restore") for proof in added
        ]
        moves = {Account.WALLET: total(added), Account.RESTORED: -total(added)}
        writes += postings("restore", book.mint.url, book.unit, self._clock.now(), moves)
        await self._purse.commit(writes)
        _log.info("coins restored", extra={"action": "wallet_restored", "amount": total(added), "coins": len(added)})
        return added
