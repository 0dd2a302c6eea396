"""Finds coins again from the seed: asks the mint about every output that we could have made (NUT-09, NUT-13)."""

import logging

from core.clock import Clock
from core.unit import Write
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation
from wallet.cashu.mint import BATCH
from wallet.cashu.port import CoinState
from wallet.cashu.proof import Proof
from wallet.cashu.signature import unblind
from wallet.error import MintLied
from wallet.journal import Account, postings
from wallet.model import Restored
from wallet.purse import OPEN, Purse

# Refused swaps leave holes in the counters; a hundred and more were seen in a row.
GAP = 300
_log = logging.getLogger(__name__)


class Restorer:
    """Scans a mint's keysets, also those no longer active.

    Args:
        purse: the rows.
        derive: makes outputs from counters.
        clock: stamps postings.
    """

    def __init__(self, purse: Purse, derive: Derivation, clock: Clock) -> None:
        self._purse = purse
        self._derive = derive
        self._clock = clock

    async def restore(self, book: KeysetBook) -> Restored:
        """Add coins that the mint holds unspent and the database does not know. Counters rise past every hit.

        Nobody may choose coins or counters of this mint meanwhile.

        Raises:
            Unavailable: the mint did not answer; what was found so far is kept.
        """
        await book.refresh()
        planned = {
            output.secret
            for stored in await self._purse.operations(state=OPEN)
            for group in (stored.plan.outputs, *stored.plan.past)
            for output in group
        }
        amount = coins = 0
        for keyset in sorted(book.infos):
            found = [proof for proof in await self._scan(book, keyset) if proof.secret not in planned]
            added = await self._add(book, found)
            amount += sum(proof.amount for proof in added)
            coins += len(added)
        return Restored(book.mint.url, amount, coins, len(book.infos))

    async def _scan(self, book: KeysetBook, keyset: str) -> list[Proof]:
        keys = (await book.keys(keyset)).keys
        used = await self._purse.counter(keyset)
        proofs: list[Proof] = []
        counter, last = 0, -1
        while counter <= max(last, (used or 0) - 1) + GAP:
            outputs = [self._derive.output(keyset, counter + place, 1) for place in range(BATCH)]
            signatures = await book.mint.restore(outputs)
            for place, output in enumerate(outputs):
                signature = signatures.get(output.b)
                if signature is None:
                    continue
                last = counter + place
                if signature.amount not in keys or signature.keyset != keyset:
                    raise MintLied("The mint restored an amount or keyset that does not exist.")
                whole = self._derive.output(keyset, last, signature.amount)
                proofs.append(unblind(whole, signature, keys[signature.amount]))
            counter += BATCH
        await self._purse.commit(self._purse.count(keyset, used, last + 1))
        return proofs

    async def _add(self, book: KeysetBook, proofs: list[Proof]) -> list[Proof]:
        known = await self._purse.known([proof.y for proof in proofs])
        fresh = [proof for proof in proofs if proof.y not in known]
        if not fresh:
            return []
        reports = await book.mint.states([proof.y for proof in fresh])
        unspent = [proof for proof in fresh if reports[proof.y].state is CoinState.UNSPENT]
        writes: list[Write] = [
            self._purse.insert(proof, book.mint.url, book.unit, "live", "restore") for proof in unspent
        ]
        amount = sum(proof.amount for proof in unspent)
        moves = {Account.WALLET: amount, Account.RESTORED: -amount}
        writes += postings("restore", book.mint.url, book.unit, self._clock.now(), moves)
        await self._purse.commit(writes)
        _log.info("coins restored", extra={"action": "wallet_restored", "amount": amount, "coins": len(unspent)})
        return unspent
