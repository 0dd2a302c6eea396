"""What sellers give back of deposits that this database does not know: after a restore, their rows are lost (ADR 27).

A seller that has earned something of a deposit claims it and gives the rest back in a gift wrap, which nobody here
waits for any more. Whoever made a deposit can tell by its words alone that a message is about one of theirs: it repeats
the deposit's key, which derives from the words and the deposit's id, and which only its seller was told.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from core.error import InvalidInput
from core.identifier import derived_id
from core.unit import Among, Insert, UnitOfWork
from dvm import prepaid
from node.backup.unpack import RESTORED
from node.recovery import Recovery
from relays.error import MalformedEvent, NotForUs
from relays.event import Event
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import DM, GIFT_WRAP
from relays.nip17 import Rumor, unwrap
from wallet.cashu.address import canonical_url
from wallet.cashu.proof import total
from wallet.cashu.token import Payment, decode
from wallet.error import MintUnlisted
from wallet.memo import Memo
from wallet.payment import Kind
from wallet.pending import Pending, pending_of
from wallet.record import Plan

log = logging.getLogger(__name__)

MAIL = "market/remainder"
LISTENS = "remainder"  # in table `meta`: something was restored here once


class Mail(Protocol):
    """Relays, as far as they are needed here: `relays.pool.Pool`."""

    def subscribe(
        self,
        name: str,
        filters: Sequence[Filter],
        handler: Callable[[Event, str], Awaitable[None]],
        *,
        backdated: bool = False,
    ) -> None:
        """Have the handler called for every event that matches."""


class Remainder:
    """One per node; hears nothing where nothing was ever restored.

    Args:
        unit: the database.
        pool: relays.
        keyring: the node's key, and those of its deposits.
        recovery: takes the coins, for as long as it takes.
    """

    def __init__(self, unit: UnitOfWork, pool: Mail, keyring: Keyring, recovery: Recovery) -> None:
        self._unit, self._pool, self._keyring, self._recovery = unit, pool, keyring, recovery

    async def load(self) -> None:
        """At the start: listen again if anything was ever restored here, also from a backup: its rows are old.

        Raises:
            VendoError: the database failed.
        """
        if await self._unit.select("meta", {"key": Among((LISTENS, RESTORED))}):
            self._hear()

    async def listen(self) -> None:
        """Something is restored: from now on, also after a restart.

        Raises:
            VendoError: the database failed; nothing is listened to.
        """
        await self._unit.commit([Insert("meta", {"key": LISTENS, "value": ""}, or_ignore=True)])
        self._hear()

    def _hear(self) -> None:
        ours = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({self._keyring.node.pubkey})})
        self._pool.subscribe(MAIL, [ours], self._on_wrap, backdated=True)

    async def _on_wrap(self, event: Event, relay: str) -> None:
        """Keep what came back; the pool hands the event over again if that failed.

        Raises:
            MintUnlisted: it lies at a mint that is not asked for anything.
            VendoError: the database failed.
        """
        try:
            rumor = unwrap(self._keyring.node, event)
        except (NotForUs, MalformedEvent):
            return
        id_ = rumor.value("deposit") or ""
        if not self._is_rest(rumor, id_) or await self._unit.select("deposit", {"side": "buyer", "id": id_}, limit=1):
            return
        try:
            payment = decode(rumor.content)
            payment = replace(payment, mint=canonical_url(payment.mint))
        except InvalidInput:
            return
        if not self._recovery.is_known(payment.mint):
            raise MintUnlisted
        fresh = await self._recovery.take_in(Memo(pending=entries(id_, payment)))
        if fresh:
            log.info("a seller gave back the rest of a deposit", extra={"action": "remainder_found", "deposit": id_})

    def _is_rest(self, rumor: Rumor, id_: str) -> bool:
        says = rumor.kind == DM and rumor.value(prepaid.TAG) == prepaid.ACCOUNT and bool(rumor.content)
        return says and prepaid.is_id(id_) and rumor.value("key") == self._key(id_)

    def _key(self, id_: str) -> str:
        return self._keyring.key(prepaid.VOUCHER_KEY, id_).compressed


def entries(deposit: str, payment: Payment) -> tuple[Pending, ...]:
    """Coins that came back, as what is to be taken. A deposit's first token counts: an honest seller makes no other."""
    plan = Plan("", inputs=payment.proofs)
    name = derived_id("remainder", deposit)
    return pending_of(name, Kind.RECEIVE, payment.mint, payment.unit, total(payment.proofs), plan)
