"""What the wallet tells its memo, and what it makes of one: entries kept until they are finished, looked up, taken up.

Entries that a memo held are rows of their own (table `meta`, sealed), written in one unit before anything is done about
them, so that a process that dies goes on with what is left. Whatever is begun for them is an ordinary operation of the
wallet, and what is found is booked like coins that a restore finds.
"""

import base64
import logging
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

import orjson

from core.clock import Clock
from core.effect import Permit
from core.identifier import EffectId, OperationId, derived_id
from core.unit import Among, Delete, Insert, UnitOfWork, Within, Write
from wallet.auditor import Auditor
from wallet.cashu.book import KeysetBook
from wallet.cashu.derive import Derivation, lock_name
from wallet.cashu.port import BATCH, CoinState
from wallet.cashu.proof import Output, Proof, total
from wallet.cashu.select import split
from wallet.cashu.signature import unblind
from wallet.error import MintBusy, MintLied, TokenSpent
from wallet.journal import Account, postings
from wallet.memo import Memo, rounded
from wallet.model import Gained, Received
from wallet.payment import Kind, Operation, State
from wallet.pending import (
    Pending,
    coins_of,
    deposit_plan,
    lock_of,
    melt_plan,
    pending_of,
    read_pending,
    take_plan,
)
from wallet.planner import Planned
from wallet.purse import HELD, OPEN, Purse, Stored
from wallet.record import Plan, Vault
from wallet.teller import Request, Teller, conclude, result_of, settled

FOUND = "found/"  # in table `meta`: an entry of a memo that is not finished
OWED = "owed/"  # a payment to us that is to be claimed, at a mint that is away
SCANNED = "unscanned/"  # a mint that a memo named, and that was not searched for coins yet
_FORGET_S = 7 * 86_400  # after its locktime the customer has taken a payment back, or nobody ever will
_LIVE = Among((str(State.WAITING), *OPEN.values))
_log = logging.getLogger(__name__)


class Lookup(StrEnum):
    """What a mint says of a lock that a memo named."""

    HELD = "held"  # its coins are there, and our rows say so now
    GONE = "gone"  # the seller or a refund took them
    ABSENT = "absent"  # it never signed them


class Recollection:
    """One per wallet.

    Args:
        unit: the database.
        purse: the wallet's rows in it.
        vault: seals entries.
        derive: makes outputs again.
        teller: begins what takes coins.
        auditor: books coins that others took.
        clock: stamps postings.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        purse: Purse,
        vault: Vault,
        derive: Derivation,
        teller: Teller,
        auditor: Auditor,
        clock: Clock,
    ) -> None:
        self._unit, self._purse, self._vault, self._derive = unit, purse, vault, derive
        self._teller, self._auditor, self._clock = teller, auditor, clock

    # ------------------------------------------------------------------ what is told

    async def memo(self) -> Memo:
        """All that a restore from the words alone would not find, as the database says now."""
        operations = await self._purse.operations(state=_LIVE)
        rows = await self._unit.select("proof", {"state": "locked"}, columns=("operation",), distinct=True)
        names = tuple(sorted({str(row["operation"]) for row in rows} - {stored.op.id for stored in operations}))
        for start in range(0, len(names), 200):
            operations += await self._purse.operations(id=Among(names[start : start + 200]), kind=str(Kind.LOCK))
        told = {one.op_id: one for one in (*await self.kept(), *await self._owed())}
        for stored in operations:
            for one in pending_of(stored.op.id, stored.op.kind, stored.mint, stored.unit, stored.amount, stored.plan):
                told[one.op_id] = one
        where = ("mint", "unit")
        held = await self._unit.select("proof", {"state": HELD}, columns=where, distinct=True)
        mints = {(str(row["mint"]), str(row["unit"])) for row in held}
        mints |= {(stored.mint, stored.unit) for stored in operations} | await self.unscanned()
        counters = {str(row["keyset"]): rounded(int(row["next"])) for row in await self._unit.select("counter")}
        return Memo(frozenset(mints), counters, tuple(told.values()))

    async def owe(self, op_id: str, mint: str, unit: str, plan: Plan) -> None:
        """A claim cannot begin now. Whoever claims tries again; a restore from the words is to know of it."""
        entries = pending_of(op_id, Kind.CLAIM, mint, unit, total(plan.inputs), plan)
        await self._purse.commit([self._sealed(OWED, one) for one in entries])

    async def _owed(self) -> list[Pending]:
        """Claims that have not begun; what has, or what is long over, is forgotten."""
        owed: list[Pending] = []
        over: list[Pending] = []
        for one in await self._opened(OWED):
            begun = await self._purse.find(one.op_id.partition("/")[0]) is not None
            late = one.due and self._clock.now() > one.due + _FORGET_S
            (over if begun or late else owed).append(one)
        if over:
            await self._unit.commit([Delete("meta", {"key": OWED + one.op_id}) for one in over])
        return owed

    # ------------------------------------------------------------------ what was read

    async def keep(self, memo: Memo, units: Iterable[str]) -> list[Pending]:
        """Make durable what a memo says, counters included; they are never lowered. The entries that are new here.

        `units` are those that this wallet handles; the rest of the memo is not kept.
        """
        known = frozenset(units)
        writes: list[Write] = []
        for keyset, counter in sorted(memo.counters.items()):
            writes += self._purse.count(keyset, await self._purse.counter(keyset), counter)
        for mint, unit in sorted(memo.mints):
            if unit in known:
                writes.append(Insert("meta", {"key": f"{SCANNED}{unit} {mint}", "value": ""}, or_ignore=True))
        fresh = [one for one in memo.pending if one.unit in known and await self._purse.find(one.op_id) is None]
        for one in fresh:
            writes.append(self._sealed(FOUND, one))
        if writes:
            await self._unit.commit(writes)
        return fresh

    def _sealed(self, prefix: str, one: Pending) -> Insert:
        raw = self._vault.seal(orjson.dumps(one.to_dict()), prefix + one.op_id)
        row = {"key": prefix + one.op_id, "value": base64.b64encode(raw).decode()}
        return Insert("meta", row, or_ignore=True)

    async def _opened(self, prefix: str) -> list[Pending]:
        rows = await self._unit.select("meta", {"key": Within(prefix, prefix[:-1] + "0")})
        opened = [self._vault.open(base64.b64decode(row["value"]), row["key"]) for row in rows]
        return [read_pending(orjson.loads(raw)) for raw in opened]

    async def kept(self) -> list[Pending]:
        """Entries that are not finished, what is due first first.

        Raises:
            SealBroken: a row was changed.
        """
        return sorted(await self._opened(FOUND), key=lambda one: (one.due, one.op_id))

    async def drop(self, one: Pending) -> None:
        """An entry is finished, or an ordinary operation of the wallet from now on."""
        await self._unit.commit([Delete("meta", {"key": FOUND + one.op_id})])

    async def unscanned(self) -> set[tuple[str, str]]:
        """Mints and units that a memo named and that were not searched for coins yet."""
        rows = await self._unit.select("meta", {"key": Within(SCANNED, SCANNED[:-1] + "0")})
        pairs = (str(row["key"]).removeprefix(SCANNED).partition(" ") for row in rows)
        return {(mint, unit) for unit, _, mint in pairs}

    async def scanned(self, mint: str, unit: str) -> None:
        """A mint was searched for coins."""
        await self._unit.commit([Delete("meta", {"key": f"{SCANNED}{unit} {mint}"})])

    # ------------------------------------------------------------------ locks

    async def lock(self, found: Pending) -> Lookup:
        """Have the row of a lock, and of those of its coins that the mint holds unspent. Asks every time.

        Raises:
            MintUnlisted: its mint is not one of ours.
            Unavailable, MintRejected, MintLied: the mint did not say all.
        """
        book = self._teller.book(found.mint, found.unit)
        if await self._purse.find(found.op_id) is not None:
            held = await self._purse.coins(operation=found.op_id, state="locked")
            return Lookup.HELD if held else Lookup.GONE
        await book.known()
        pairs = await self._signed(book, self._outputs(found))
        if not pairs:
            return Lookup.ABSENT
        proofs = [proof for proof, _ in pairs]
        reports = await book.mint.states([proof.y for proof in proofs])
        if any(report.state is CoinState.PENDING for report in reports.values()):
            raise MintBusy("The mint is still at work with coins of this lock.")
        unspent = [(proof, output) for proof, output in pairs if reports[proof.y].state is CoinState.UNSPENT]
        if not unspent:
            return Lookup.GONE
        await self._book(found, unspent)
        return Lookup.HELD

    async def taken(self, found: Pending) -> bool:
        """Ask the mint whether a lock that we hold was taken since, and book what was (NUT-07).

        Raises:
            MintUnlisted: its mint is not one of ours.
            Unavailable: the mint does not answer.
        """
        coins = await self._purse.coins(operation=found.op_id, state="locked")
        if coins:
            await self._auditor.spent(self._teller.book(found.mint, found.unit), [coin.y for coin in coins])
        return not await self._purse.coins(operation=found.op_id, state="locked")

    def _outputs(self, found: Pending) -> list[Output]:
        """Every output that the lock could have asked for, in whichever attempt."""
        lock, made = lock_of(found.body["terms"]), []
        for attempt in range(1, found.body["attempts"] + 1):
            for keyset, amount in found.body["tries"]:
                for place, part in enumerate(split(amount)):
                    name = lock_name(found.op_id, keyset, place, attempt)
                    secret = lock.secret(self._derive.lock_nonce(name))
                    made.append(self._derive.lock_output(name, keyset, part, secret))
        return list({output.b: output for output in made}.values())

    @staticmethod
    async def _signed(book: KeysetBook, outputs: list[Output]) -> list[tuple[Proof, Output]]:
        found = []
        for start in range(0, len(outputs), BATCH):
            some = outputs[start : start + BATCH]
            signatures = await book.mint.restore(some)
            for output in some:
                signature = signatures.get(output.b)
                if signature is None:
                    continue
                if (signature.keyset, signature.amount) != (output.keyset, output.amount):
                    raise MintLied("The mint restored another amount or keyset than was asked for.")
                keys = (await book.keys(output.keyset)).keys
                found.append((unblind(output, signature, keys[output.amount]), output))
        return found

    async def _book(self, found: Pending, pairs: list[tuple[Proof, Output]]) -> None:
        """The lock's row, as done, and its coins; from where the refund is an ordinary one."""
        proofs = [proof for proof, _ in pairs]
        plan = Plan(
            derived_id("found", found.op_id),
            outputs=tuple(output for _, output in pairs),
            terms=found.body["terms"],
            copied=True,
        )
        operation = Operation(OperationId(found.op_id), Kind.LOCK, State.DONE)
        stored = Stored(
            operation, plan, found.mint, found.unit, EffectId(""), total(proofs), 0, "restored", self._clock.now(), 0
        )
        moves = {Account.LOCKED: total(proofs), Account.RESTORED: -total(proofs)}
        writes: list[Write] = [
            self._purse.begin(stored, conclude(stored, (), proofs)),
            *(self._purse.insert(proof, found.mint, found.unit, "locked", found.op_id) for proof in proofs),
            *postings(found.op_id, found.mint, found.unit, self._clock.now(), moves),
        ]
        await self._purse.commit(writes)
        _log.info("a locked payment was found", extra={"action": "lock_restored", "amount": total(proofs)})

    # ------------------------------------------------------------------ what becomes an operation of its own

    async def deposit(self, op_id: OperationId, found: Pending, effect_id: EffectId) -> State:
        """A deposit that may be paid: looked at from now on like any other."""
        stored = await self._purse.find(op_id)
        if stored is None:
            plan = deposit_plan(derived_id("found", found.op_id), found)
            stored = self._stored(op_id, Kind.DEPOSIT, State.WAITING, found, plan, effect_id)
            await self._purse.commit([self._purse.begin(stored)])
        return stored.op.state

    async def melt(self, op_id: OperationId, found: Pending, effect_id: EffectId) -> State:
        """A payment over Lightning that was under way: only looked up, and its coins are tied up until that is known.

        Before coins are searched for: those that the mint gives back would be taken for free ones.
        """
        stored = await self._purse.find(op_id)
        if stored is None:
            plan = melt_plan(found)
            stored = self._stored(op_id, Kind.MELT, State.UNKNOWN, found, plan, effect_id)
            known = await self._purse.known([proof.y for proof in plan.inputs])
            free = [coin for coin in known.values() if coin.state == "live"]
            missing = [proof for proof in plan.inputs if proof.y not in known]
            moves = {Account.WALLET: total(missing), Account.RESTORED: -total(missing)}
            await self._purse.commit(
                [
                    self._purse.begin(stored),
                    *(self._purse.move(coin, "reserved", op_id) for coin in free),
                    *(self._purse.insert(proof, found.mint, found.unit, "reserved", op_id) for proof in missing),
                    *postings(op_id, found.mint, found.unit, self._clock.now(), moves),
                ]
            )
        return stored.op.state

    async def take(self, op_id: OperationId, found: Pending, effect_id: EffectId, permit: Permit) -> Received | Gained:
        """Coins that were being taken: what is still there is taken now.

        Raises:
            TokenSpent: they were taken before, by us or by somebody else.
            VendoError: as `Wallet.claim`.
        """
        book = self._teller.book(found.mint, found.unit)
        digest = derived_id("found", found.op_id)
        wanted = Request(op_id, Kind.CLAIM, found.mint, found.unit, effect_id, digest)

        async def make() -> Planned:
            coins = [replace(coin, keyset=await book.expand(coin.keyset)) for coin in coins_of(found)]
            reports = await book.mint.states([coin.y for coin in coins])
            there = [coin for coin in coins if reports[coin.y].state is CoinState.UNSPENT]
            if any(report.state is CoinState.PENDING for report in reports.values()):
                raise MintBusy("The mint is still at work with these coins.")
            if not there:
                raise TokenSpent
            return await self._teller.planner.take(take_plan(digest, found, there), book)

        result = result_of(settled(await self._teller.perform(wanted, permit, make)))
        assert isinstance(result, Received | Gained)
        return result

    @staticmethod
    def _stored(
        op_id: OperationId, kind: Kind, state: State, found: Pending, plan: Plan, effect_id: EffectId
    ) -> Stored:
        operation = Operation(op_id, kind, state, copied=True)
        return Stored(operation, plan, found.mint, found.unit, effect_id, found.amount, plan.fee, "", 0, 0)
