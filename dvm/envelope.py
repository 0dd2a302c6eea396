"""What a buyer tells a seller in gift wraps (payment, order, co-signature), and how a sealed result is opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from core.clock import Clock
from core.identifier import PubKey
from dvm.error import BadSeal, NoFraud
from dvm.fraud import FRAUD, Proof, make
from dvm.job import Payment, Purchase
from dvm.seal import SEAL_KEY, Pair, open_sealed
from dvm.settlement import Settlement
from relays.blob import sealed_part
from relays.error import MalformedEvent
from relays.event import Draft, Event, parse_json
from relays.key import Keyring
from relays.kind import DM
from relays.nip17 import wrap
from wallet.wallet import Wallet


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all open jobs share.

    Attributes:
        keyring: its node key signs messages; the keys of each job derive from its seed and the job's id.
        wallet: signs beside the seller.
        clock: stamps messages.
        settlement: in which modes we buy.
        proven: whether a mint was found to show preimages.
    """

    keyring: Keyring
    wallet: Wallet
    clock: Clock
    settlement: Settlement
    proven: Callable[[str], bool]

    def modes(self, mints: Sequence[str]) -> tuple[str, ...]:
        """In which modes a job takes a sealed result: none unless a mint of it shows preimages."""
        return self.settlement.modes if self.settlement.atomic and any(map(self.proven, mints)) else ()

    def jobkey(self, job_id: str) -> tuple[str, str]:
        """The job's keys for the seal and for co-signing, compressed hex. Neither is its refund key."""
        return self.keyring.key(SEAL_KEY, job_id).compressed, self.wallet.cosign_pubkey(job_id)

    def half(self, job: Purchase) -> str:
        """Our public half of the job's seal, compressed hex; empty if it is not paid for a sealed result."""
        atomic = job.payment is not None and job.payment.atomic
        return self.keyring.key(SEAL_KEY, job.job_id).compressed if atomic else ""

    def paid(self, job: Purchase, payment: Payment, payload: Mapping[str, Any]) -> Event:
        """The token, a NUT-18 payload, in a gift wrap to the seller. This is also the acceptance of the quote."""
        tags: tuple[tuple[str, ...], ...] = (
            ("p", payment.seller),
            ("e", job.request_id),
            ("quote", payment.quote_id),
        )
        if payment.mode:
            tags += (("seal", payment.mode),)
        if payment.deposit:
            tags += (("voucher", payment.deposit),)
        draft = Draft(DM, orjson.dumps(payload).decode(), tags, self.clock.now())
        return wrap(self.keyring.node, PubKey(payment.seller), draft)

    def ordered(self, job: Purchase, payment: Payment) -> Event:
        """The acceptance of a quote without money, in a gift wrap: the work comes first (mode A)."""
        tags = (("p", payment.seller), ("e", job.request_id), ("quote", payment.quote_id), ("order", payment.mode))
        return wrap(self.keyring.node, PubKey(payment.seller), Draft(DM, "", tags, self.clock.now()))

    async def cosigned(self, job: Purchase, payment: Payment) -> Event:
        """Our signatures in a gift wrap to the seller. Made only when the sealed result becomes durable."""
        signatures = await self.wallet.cosign(payment.op_id, job.job_id)
        tags = (("p", payment.seller), ("e", job.request_id), ("quote", payment.quote_id), ("cosig", *signatures))
        return wrap(self.keyring.node, PubKey(payment.seller), Draft(DM, "", tags, self.clock.now()))

    def proof(self, job: Purchase) -> Proof:
        """What shows to anybody that the seller's key does not open its sealed result.

        Raises:
            NoFraud: it does, or the job was private: its result is signed in a form that only we can read.
        """
        if job.fault != FRAUD or not job.sealed:
            raise NoFraud("This job ended with no fraud that could be shown.")
        if job.private:
            raise NoFraud("A private job's result is signed in a form that nobody else can read.")
        return make(parse_json(job.sealed), job.preimage, self.keyring.key(SEAL_KEY, job.job_id).secret)

    def unsealed(self, job: Purchase, preimage: str) -> str:
        """What the preimage that the mint shows opens: the result, or the key of one that is too large for its event.

        Raises:
            BadSeal: it does not open what the seller signed.
        """
        payment = job.payment
        assert payment is not None  # a preimage is only sought for a payment
        pair = Pair(self.keyring.key(SEAL_KEY, job.job_id), payment.seal_key, job.request_id)
        try:
            content = sealed_part(parse_json(job.sealed))
        except MalformedEvent as error:
            raise BadSeal(error.message) from error
        return open_sealed(content, job.pt_hash, bytes.fromhex(preimage), pair)
