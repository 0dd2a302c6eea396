"""The saga of one Lightning payment or invoice at a wallet over NWC, as a pure machine (DESIGN §4.4, M5; NIP-47).

A payment's row, with its payment hash and the very bytes of its request, is durable before anything leaves. Then only
these end it: a preimage that hashes to the payment hash; a request that never left; a code with which the wallet says
that it tried nothing, *and* a look-up that finds nothing; or a look-up that calls it failed, or finds nothing, once
that can no longer change. Wallets are known to answer "failed" and pay all the same a little later, so such a word
counts only after some time, and never against a look-up that says "pending".

Everything else is *unknown*, and is looked up by its payment hash. One operation has one invoice, and one invoice one
operation; what may go out again is the same request with the same id, which a wallet knows.

An invoice of ours waits until a look-up says that it was paid, and is booked once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from core.identifier import OperationId, is_hex64
from relays.nip47 import Code, Transaction

GRACE_S = 30
"""A wallet that said "failed" may still be at it for so long."""
LATE_S = 900
"""So long after an invoice's expiry a payment that no wallet knows of cannot be under way any more."""
GIVE_UP_S = 14 * 86_400
"""So long after its invoice's expiry a payment in doubt may be given up: whoever is paid may hold it for days."""
GIVEN_UP = "given_up"
"""The transition, and the reason of a payment that counts as paid since nobody waits for its wallet's word any more."""
UNPAID_S = 7 * 86_400
"""So long after its expiry an invoice of ours is looked at; some wallets take money late."""
MAX_SENDS = 5
_MAX_CODE = 64

# The wallet says that it tried nothing.
UNTRIED = frozenset(
    {
        Code.INSUFFICIENT_BALANCE,
        Code.QUOTA_EXCEEDED,
        Code.RESTRICTED,
        Code.UNAUTHORIZED,
        Code.NOT_IMPLEMENTED,
        Code.UNSUPPORTED_ENCRYPTION,
    }
)
# It says that it tried, and that it is over.
TRIED = frozenset({Code.PAYMENT_FAILED})


class Direction(StrEnum):
    """Whether money goes or comes."""

    PAY = "pay"
    INVOICE = "invoice"


class Stage(StrEnum):
    """Where it stands. `waiting` is an invoice of ours that nobody has paid yet."""

    PREPARED = "prepared"
    SENT = "sent"
    UNKNOWN = "unknown"
    WAITING = "waiting"
    PAID = "paid"
    FAILED = "failed"


ENDED = frozenset({Stage.PAID, Stage.FAILED})


class Found(StrEnum):
    """What a look-up says. `unproven`: the wallet calls it settled and shows no preimage that fits.

    `unsure`: it finds nothing, and has never been seen to find a payment that it made; some find invoices alone.
    """

    SETTLED = "settled"
    PENDING = "pending"
    FAILED = "failed"
    EXPIRED = "expired"
    ABSENT = "absent"
    UNSURE = "unsure"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class LightningLimits:
    """What may be paid, in msat.

    Attributes:
        per_payment: the most for one payment, without its fee.
        per_day: the most in 24 hours, fees included, and all that is in doubt.
        fee_base, fee_ppm: a fee may be so much, or so many millionths of the amount: the larger counts.
    """

    per_payment: int
    per_day: int
    fee_base: int
    fee_ppm: int

    def fee(self, amount: int) -> int:
        """What the fee for this amount may be, rounded up."""
        return max(self.fee_base, -(-amount * self.fee_ppm // 1_000_000))


@dataclass(frozen=True, slots=True)
class Payment:
    """The machine's state. Times in Unix seconds.

    Attributes:
        id: the operation.
        direction: out or in.
        stage: where it stands.
        expires_at: of the invoice.
        until: the request's own expiration; it is not sent again after that.
        sends: how often the request has left, or may have.
        rejected: the wallet's last error code, or empty.
        since: when it was last sent or rejected.
        copied: it is looked up and never sent: the row comes from an old copy of the database, or its effect has ended.
        relays: in how many copies each request leaves, one for each relay of the wallet.
    """

    id: OperationId
    direction: Direction
    stage: Stage
    expires_at: int
    until: int = 0
    sends: int = 0
    rejected: str = ""
    since: int = 0
    copied: bool = False
    relays: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether no second copy of the request can be on its way."""
        return self.sends * self.relays <= 1 and not self.copied


@dataclass(frozen=True, slots=True)
class Begun:
    """Its row is durable."""

    now: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The process started again, or whoever drove it gave up."""

    now: int


@dataclass(frozen=True, slots=True)
class Proven:
    """A preimage that hashes to the payment hash."""


@dataclass(frozen=True, slots=True)
class NeverSent:
    """No relay of the wallet was connected: nothing left."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The wallet answered with an error."""

    code: str
    now: int


@dataclass(frozen=True, slots=True)
class Silent:
    """It may have left, and no answer came that says how it ended; or one that cannot be true."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What the wallet knows of the payment hash."""

    found: Found
    now: int


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """The wallet did not answer the look-up, or answered something odd."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Its owner waits no longer for the wallet's word: it counts as paid, since it may have been."""

    now: int


Event: TypeAlias = Begun | Restarted | Proven | NeverSent | Rejected | Silent | LookedUp | LookUpFailed | GivenUp


class Effect(StrEnum):
    """What the driver does next."""

    SEND = "send"
    LOOK_UP = "look_up"
    BOOK = "book"
    RELEASE = "release"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Transition:
    """From one of `stages`, on an event of this type for which `when` holds. The first that fits is taken."""

    name: str
    stages: frozenset[Stage]
    event: type
    to: Stage
    effect: Effect
    when: Callable[[Payment, Event], bool] = lambda payment, event: True


def _too_late(payment: Payment, event: Event) -> bool:
    """Before the first try: nobody takes the request or the invoice any more."""
    if not isinstance(event, Begun | Restarted):
        return False
    return not payment.copied and event.now >= min(payment.expires_at, payment.until)


def _copied(payment: Payment, event: Event) -> bool:
    return payment.copied


def _first(payment: Payment, event: Event) -> bool:
    return payment.sends == 1


def _is(*found: Found) -> Callable[[Payment, Event], bool]:
    def holds(payment: Payment, event: Event) -> bool:
        return isinstance(event, LookedUp) and event.found in found

    return holds


_NOT_FOUND = (Found.ABSENT, Found.UNSURE)
_gone = _is(Found.FAILED, Found.EXPIRED, Found.ABSENT)
_unseen = _is(Found.FAILED, Found.EXPIRED, Found.ABSENT, Found.UNSURE)


def _untried(payment: Payment, event: Event) -> bool:
    """Sent once, turned away before any try, and the wallet knows of nothing."""
    return _unseen(payment, event) and payment.rejected in UNTRIED and payment.is_alone


def _failed_for_good(payment: Payment, event: Event) -> bool:
    """The wallet says twice, with time between, that nothing came of it.

    Of several copies of a request one may still be on its way: then not before the wallet would ignore it.
    """
    quiet = max(payment.since, 0 if payment.is_alone else payment.until) + GRACE_S
    if not isinstance(event, LookedUp) or event.now < quiet:
        return False
    if event.found is Found.FAILED:
        return True
    return _gone(payment, event) and payment.rejected in UNTRIED | TRIED and not payment.copied


def _over(payment: Payment, event: Event) -> bool:
    """Nothing is known of it, and its invoice expired long ago."""
    return _gone(payment, event) and isinstance(event, LookedUp) and event.now >= payment.expires_at + LATE_S


def _not_arrived(payment: Payment, event: Event) -> bool:
    """Nobody knows of it, nobody has refused it, and the request may still be taken."""
    absent = isinstance(event, LookedUp) and event.found in _NOT_FOUND and event.now < payment.until
    again = payment.rejected in ("", Code.RATE_LIMITED) and payment.sends < MAX_SENDS
    return absent and again and not payment.copied


def may_give_up(payment: Payment, now: int) -> bool:
    """Whether a payment in doubt is so old that its owner may give it up."""
    in_doubt = payment.direction is Direction.PAY and payment.stage in _OPEN
    return in_doubt and now >= payment.expires_at + GIVE_UP_S


def _given_up(payment: Payment, event: Event) -> bool:
    return isinstance(event, GivenUp) and may_give_up(payment, event.now)


def _unpaid(payment: Payment, event: Event) -> bool:
    return isinstance(event, LookedUp) and event.now >= payment.expires_at + UNPAID_S


_PREPARED = frozenset({Stage.PREPARED})
_SENT = frozenset({Stage.SENT})
_OPEN = frozenset({Stage.SENT, Stage.UNKNOWN})
_WAITING = frozenset({Stage.WAITING})

TRANSITIONS: tuple[Transition, ...] = (
    Transition("copied", _PREPARED, Restarted, Stage.UNKNOWN, Effect.LOOK_UP, _copied),
    Transition("too_late", _PREPARED, Begun, Stage.FAILED, Effect.RELEASE, _too_late),
    Transition("too_late", _PREPARED, Restarted, Stage.FAILED, Effect.RELEASE, _too_late),
    Transition("begun", _PREPARED, Begun, Stage.SENT, Effect.SEND),
    Transition("resumed", _PREPARED, Restarted, Stage.SENT, Effect.SEND),
    Transition("paid", _OPEN, Proven, Stage.PAID, Effect.BOOK),
    # Only the very first try can be known to have never left.
    Transition("never_sent", _SENT, NeverSent, Stage.FAILED, Effect.RELEASE, _first),
    Transition("still_unreachable", _OPEN, NeverSent, Stage.UNKNOWN, Effect.WAIT),
    Transition("rejected", _OPEN, Rejected, Stage.UNKNOWN, Effect.LOOK_UP),
    Transition("silent", _OPEN, Silent, Stage.UNKNOWN, Effect.LOOK_UP),
    Transition("restarted", _OPEN, Restarted, Stage.UNKNOWN, Effect.LOOK_UP),
    Transition("look_up_failed", _OPEN, LookUpFailed, Stage.UNKNOWN, Effect.WAIT),
    Transition("found", _OPEN, LookedUp, Stage.PAID, Effect.BOOK, _is(Found.SETTLED)),
    Transition("in_progress", _OPEN, LookedUp, Stage.UNKNOWN, Effect.WAIT, _is(Found.PENDING)),
    # Money may have left; without a preimage nobody can say for what.
    Transition("unproven", _OPEN, LookedUp, Stage.UNKNOWN, Effect.WAIT, _is(Found.UNPROVEN)),
    Transition("turned_away", _OPEN, LookedUp, Stage.FAILED, Effect.RELEASE, _untried),
    Transition("failed", _OPEN, LookedUp, Stage.FAILED, Effect.RELEASE, _failed_for_good),
    Transition("over", _OPEN, LookedUp, Stage.FAILED, Effect.RELEASE, _over),
    Transition("not_arrived", _OPEN, LookedUp, Stage.UNKNOWN, Effect.SEND, _not_arrived),
    Transition("doubtful", _OPEN, LookedUp, Stage.UNKNOWN, Effect.WAIT),
    Transition(GIVEN_UP, _OPEN, GivenUp, Stage.PAID, Effect.BOOK, _given_up),
    # A wallet lied for longer than was waited: the books follow the money.
    Transition("paid_after_all", frozenset({Stage.FAILED}), Proven, Stage.PAID, Effect.BOOK),
    Transition("received", _WAITING, LookedUp, Stage.PAID, Effect.BOOK, _is(Found.SETTLED)),
    Transition("unpaid", _WAITING, LookedUp, Stage.FAILED, Effect.RELEASE, _unpaid),
    Transition("not_yet", _WAITING, LookedUp, Stage.WAITING, Effect.WAIT),
)


def step(payment: Payment, event: Event) -> tuple[Payment, Effect | None, str]:
    """The next state, what to do, and the transition's name. Events that fit nothing change nothing."""
    for row in TRANSITIONS:
        if payment.stage in row.stages and isinstance(event, row.event) and row.when(payment, event):
            return _moved(payment, event, row), row.effect, row.name
    return payment, None, ""


def _moved(payment: Payment, event: Event, row: Transition) -> Payment:
    moved = replace(payment, stage=row.to)
    if isinstance(event, Rejected):
        return replace(moved, rejected=event.code[:_MAX_CODE], since=event.now)
    if row.effect is Effect.SEND and isinstance(event, Begun | Restarted | LookedUp):
        return replace(moved, sends=payment.sends + 1, rejected="", since=event.now)
    return moved


# ---------------------------------------------------------------------- what an answer proves


def proves(preimage: object, payment_hash: str) -> bool:
    """Whether a text is the preimage: only who was paid can have shown it (BOLT-11)."""
    if not is_hex64(preimage):
        return False
    return hashlib.sha256(bytes.fromhex(str(preimage))).hexdigest() == payment_hash


def paid_out(found: Transaction, payment_hash: str) -> Found:
    """What a look-up says of a payment of ours.

    A wallet that is both sides, or that shows somebody else's invoice, has proven nothing: its invoice's preimage is
    known to it before anybody pays.
    """
    proven = proves(found.preimage, payment_hash)
    if found.payment_hash != payment_hash or found.direction == "incoming":
        return Found.UNPROVEN
    if found.state in ("failed", "expired"):
        return Found.UNPROVEN if proven else Found(found.state)
    if found.state in ("pending", "accepted"):
        return Found.PENDING
    settled = found.state == "settled" or found.settled_at is not None
    if proven and (settled or found.direction == "outgoing"):
        return Found.SETTLED
    return Found.UNPROVEN if settled else Found.PENDING


def paid_in(found: Transaction, payment_hash: str) -> Found:
    """What a look-up says of an invoice of ours. Its preimage proves nothing: the wallet made it."""
    if found.payment_hash != payment_hash or found.direction == "outgoing":
        return Found.UNPROVEN
    if found.state == "settled" or (not found.state and found.settled_at is not None):
        return Found.SETTLED
    return Found(found.state) if found.state in ("failed", "expired") else Found.PENDING
