"""Tokens that others pay with: what one is worth here, before a mint is asked, and taking it as one effect.

Whoever sells something other than a job for a token (a stranger's way in, the right to write to the relay) uses this.
The wallet receives the token under an operation that derives from the caller's key, so a token that comes twice under
one key is taken once, and a lost answer is looked up instead of asked for again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from core.effect import EffectClass, Permit
from core.identifier import EffectId, OperationId
from fs.service.treasury import OperationEnded
from fs.session import Role, Session
from wallet.cashu.proof import total
from wallet.cashu.token import decode
from wallet.error import PaymentUnknown
from wallet.model import Received
from wallet.payment import State

TRIES = 20  # operations under one key; an operation that has ended without success moved nothing

Act = Callable[[OperationId, EffectId, Permit], Awaitable[Mapping[str, Any]]]


class Mover(Protocol):
    """Moves money as one effect: `fs.service.treasury.Treasurer`."""

    async def move(
        self, session: Session, name: str, body: bytes, note: Mapping[str, str | int], effect: EffectClass, act: Act
    ) -> dict[str, Any]:
        """Do it, once however often it is asked for."""


class Purse(Protocol):
    """What takes tokens: `wallet.wallet.Wallet`."""

    @property
    def mints(self) -> Sequence[str]:
        """The only mints that count."""

    async def receive(self, op_id: OperationId, token: str, effect_id: EffectId, permit: Permit) -> Received:
        """Swap a token for coins of our own."""


class Collected(NamedTuple):
    """A token is ours: by which operation, and how much of it was left after the mint's fee, in sats."""

    op_id: OperationId
    amount_sat: int


class Collector:
    """Takes tokens for one wallet."""

    def __init__(self, purse: Purse, mover: Mover) -> None:
        self._purse, self._mover = purse, mover

    @property
    def mints(self) -> tuple[str, ...]:
        """Where tokens may be from."""
        return tuple(self._purse.mints)

    def worth(self, token: str) -> int | None:
        """Sats on the face of a token; None if it is of another mint. Asks nobody, so strangers cost nothing.

        Raises:
            TokenRejected: it is no token.
        """
        payment = decode(token)
        if _plain(payment.mint) not in {_plain(mint) for mint in self._purse.mints}:
            return None
        return total(payment.proofs) if payment.unit == "sat" else 0

    async def take(
        self, caller: str, key: str, name: str, token: str, body: bytes, note: Mapping[str, str | int]
    ) -> Collected:
        """Make a token ours.

        Args:
            caller: who takes it, as the gate names it.
            key: the idempotency key.
            name: the file below `/wallet` under which the effect stands.
            token: `cashuB…`.
            body: what is paid for; only its digest is kept.
            note: facts for the ledger, without secrets.

        Raises:
            TokenRejected, MintRefused: it is not taken, and never was.
            OperationEnded: it was tried too often.
            PaymentUnknown: nobody knows yet; the same call finds out later.
            VendoError: what else the gate, the wallet or the database raised; nothing was begun.
        """

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            received = await self._purse.receive(op_id, token, effect_id, permit)
            return {"amount_sat": received.amount_sat}

        ended = OperationEnded()
        for place in range(TRIES):
            session = Session(caller, Role.OPERATOR, f"{key}:{place}" if place else key)
            try:
                answer = await self._mover.move(session, name, body, note, EffectClass.EXTERNAL, act)
            except OperationEnded as error:
                ended = error
                continue
            if answer.get("state", State.DONE) != State.DONE:
                raise PaymentUnknown  # it was begun before, and nobody knows yet what became of it
            return Collected(OperationId(answer["op_id"]), int(answer.get("amount_sat", 0)))
        raise ended


def _plain(mint: str) -> str:
    return mint.strip().rstrip("/").casefold()
