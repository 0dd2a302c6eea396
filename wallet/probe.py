"""Whether a mint shows the preimage with which a payment was claimed (NUT-07, NUT-14): tried with one coin, once a day.

A sealed result is bought only where that holds: a mint that hides the preimage takes the money and keeps the key. What
a mint lists in `/v1/info` is asked first; then a coin of ours is locked to ourselves, co-signed, claimed and looked at.
Each try is one effect at the gate under the mint's name and the day, so that it is made once a day however often the
node restarts, and takes at most `MOST_SAT` from the wallet. An outcome is good for two days: a mint that was away for a
moment when it was to be tried again is not distrusted for that.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import orjson

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Outcome, OutcomeState, Repeated
from core.error import InvalidInput, VendoError
from core.identifier import EffectId, OperationId, derived_id
from core.money import Msat
from core.unit import Insert, UnitOfWork, Update, Within, Write
from relays.key import Keyring
from wallet.cashu.lock import revealed
from wallet.cashu.port import Mint
from wallet.error import InsufficientFunds, MintRefused, TokenRejected, TooDear
from wallet.model import Locked, LockTerms, Unlock
from wallet.payment import State
from wallet.teller import first_of
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

NEEDED = (7, 10, 11, 12, 14)  # NUTs that a mint must list
MOST_SAT = 6  # that one try may take from the wallet; what is not fees comes back
DAY_S, GOOD_S, LOCK_S = 86_400, 2 * 86_400, 600
LOOK_S, UNPROVEN_S = 60.0, 5.0
PATH, KEY = "/mint/probe", "probe/"  # in the ledger, and in table `meta`


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one mint. `at` is when it was found (Unix seconds, 0 if never), `reason` why it is not proven.

    While a try's money is out, `effect` is its effect, `name` what its operations are named after, `locktime` theirs.
    """

    mint: str
    proven: bool = False
    at: int = 0
    reason: str = "not tried yet"
    effect: str = ""
    name: str = ""
    locktime: int = 0


class Probe:
    """Tries the mints of a node.

    Args:
        unit: the database.
        gate: the node's gate.
        wallet: locks and claims.
        keyring: preimages derive from it.
        clock: time.
        mints: clients of the wallet's trusted mints.
    """

    def __init__(
        self, unit: UnitOfWork, gate: Gate, wallet: Wallet, keyring: Keyring, clock: Clock, mints: Sequence[Mint]
    ) -> None:
        self._unit, self._gate, self._wallet, self._keyring, self._clock = unit, gate, wallet, keyring, clock
        self._mints = mints
        self._found = {mint.url: Finding(mint.url) for mint in mints}

    def proven(self, mint: str) -> bool:
        """Whether a sealed result may be paid for at this mint."""
        found = self._found.get(mint)
        return found is not None and found.proven and self._clock.now() - found.at <= GOOD_S

    def findings(self) -> list[dict[str, Any]]:
        """What is known of each mint, for people."""
        return [
            {"mint": one.mint, "proven": self.proven(one.mint), "at": one.at or None, "reason": one.reason}
            for one in self._found.values()
        ]

    async def load(self) -> None:
        """Read what was found before."""
        for row in await self._unit.select("meta", {"key": Within(KEY, "probe0")}):
            found = Finding(**orjson.loads(row["value"]))
            if found.mint in self._found:
                self._found[found.mint] = found

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Try each mint once a day until `stop`."""
        await self.load()
        ready.set()
        while not stop.is_set():
            wait = LOOK_S if all(map(self.proven, self._found)) else UNPROVEN_S
            for mint in self._mints:
                try:
                    await self.look(mint)
                except VendoError as error:  # it goes on in a minute: nothing depends on it now
                    wait = LOOK_S
                    log.info("a mint could not be tried", extra={"action": "probe_failed", "code": error.code})
            await first_of(stop, wait, self._clock)

    async def look(self, mint: Mint) -> None:
        """Try this mint if it is time to, or go on with a try.

        Raises:
            VendoError: it cannot be said now; the next call goes on.
        """
        found = self._found[mint.url]
        if not found.effect and (self._clock.now() - found.at < DAY_S or not await self._begin(mint)):
            return
        await self._go_on(self._found[mint.url])

    async def _begin(self, mint: Mint) -> bool:
        """Whether a try was begun: not without NUTs that are needed, nor without money, nor twice a day."""
        now = self._clock.now()
        held = [one for one in await self._wallet.balance() if (one.mint, one.unit) == (mint.url, "sat")]
        if sum(one.live for one in held) < MOST_SAT:
            return False
        missing = [str(nut) for nut in NEEDED if nut not in await mint.nuts()]
        if missing:
            reason = f"it does not list NUT-{', NUT-'.join(missing)}"
            await self._keep(Finding(mint.url, False, now, reason))
            return False
        name = f"{mint.url}/{now // DAY_S}"
        subject = derived_id("probe", name)
        note: dict[str, str | int] = {"mint": mint.url, "most_sat": MOST_SAT}
        staged = await self._gate.stage(
            Intent("node", PATH, name, b"", EffectClass.EXTERNAL, subject, note=note)
        )  # fmt: skip
        if isinstance(staged, Repeated):
            return False
        begun = replace(self._found[mint.url], effect=staged.effect_id, name=name, locktime=now + LOCK_S)
        await self._keep(begun, staged.writes)
        return True

    async def _keep(self, found: Finding, writes: Sequence[Write] = ()) -> None:
        value, key = orjson.dumps(asdict(found)).decode(), KEY + found.mint
        row = Insert("meta", {"key": key, "value": ""}, or_ignore=True)
        await self._unit.commit([*writes, row, Update("meta", {"key": key}, {"value": value})])
        self._found[found.mint] = found

    async def _end(self, found: Finding, reason: str = "") -> None:
        """The try's money is final."""
        detail: dict[str, str | int] = {"mint": found.mint, "proven": int(not reason), "reason": reason}
        state = OutcomeState.FAIL if reason else OutcomeState.COMMIT
        writes = await self._gate.settle(EffectId(found.effect), Outcome(state, detail=detail))
        await self._keep(Finding(found.mint, not reason, self._clock.now(), reason), list(writes))
        log.info("a mint was tried", extra={"action": "mint_probed", "mint": found.mint, "reason": reason})

    # ---- one try; every step may be repeated

    async def _go_on(self, found: Finding) -> None:
        effect = EffectId(found.effect)
        permit = self._gate.permit(effect)
        lock, refund = self._operation(found, "lock"), self._operation(found, "refund")
        preimage = self._keyring.derive("probe", found.name)
        hash_ = sha256(preimage).hexdigest()
        terms = LockTerms(
            found.mint,
            Msat.of_sat(1),
            self._wallet.key.compressed,
            found.locktime,
            quote_id=lock,
            hash=hash_,
            cosigner=found.name,
        )
        try:
            locked = await self._wallet.lock(lock, terms, Msat.of_sat(MOST_SAT), effect, permit)
        except (MintRefused, TooDear, InsufficientFunds, InvalidInput) as error:
            if isinstance(error, MintRefused) and await self._wallet.find(lock) is None:
                raise  # the mint did not answer, and nothing was begun
            return await self._end(found, f"a coin could not be locked: {error.code}")
        back = await self._wallet.find(refund)
        if back is not None and back.state is State.DONE:
            return await self._end(found, "a locked coin could not be claimed, and was taken back")
        try:
            unlock = Unlock(preimage.hex(), await self._wallet.cosign(lock, found.name))
            claim = self._operation(found, "claim")
            await self._wallet.claim(claim, locked.payload, effect, permit, unlock=unlock)
        except (TokenRejected, MintRefused):
            if self._clock.now() <= found.locktime + 2:
                raise
            await self._wallet.refund(refund, lock, effect, permit)
            return await self._end(found, "a locked coin could not be claimed, and was taken back")
        await self._end(found, await self._shown(found, locked, hash_))

    async def _shown(self, found: Finding, locked: Locked, hash_: str) -> str:
        """What is wrong with what the mint says of the claimed coins; empty if they show the preimage."""
        seen = await self._wallet.spent(found.mint, locked.ys)
        shown = all(revealed(coin.witness, hash_) is not None for coin in seen.coins.values())
        return "" if shown and str(seen.state) == "SPENT" else "it does not show the preimage of a claimed coin"

    @staticmethod
    def _operation(found: Finding, step: str) -> OperationId:
        return OperationId(derived_id("probe", found.name, step))
