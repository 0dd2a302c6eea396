"""Faults planted in what is given in public (ADR 29), what is lent, and a Lightning wallet; see `planted`."""

import dataclasses
from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from core.change import replace
from core.money import Msat
from dvm import seller, tip
from dvm.lending import Lending
from tests.simulation.pure import billing, gift
from tests.simulation.pure.planted_way import rows
from wallet import lightning, verification
from wallet.lightning import Stage


def spent_stays(patch: MonkeyPatch) -> None:
    """What a nutzap has paid for stays its sender's credit."""
    rows(patch, tip.TRANSITIONS, (tip.State.OWED, tip.Spent), to=tip.State.OWED, do=lambda held, event: held)


def any_giver(patch: MonkeyPatch) -> None:
    """Whoever shows a coin first has given it, whatever its lock says."""
    old = verification.check_given

    def check(paid: Any, key: str, not_before: int, giver: str) -> None:
        named = verification.read_key_lock(paid.proofs[0].secret).giver
        old(paid, key, not_before, named or giver)

    patch.setattr(verification, "check_given", check)


def short_gift(patch: MonkeyPatch) -> None:
    """Nobody looks how soon others can take a coin that was given."""
    old = verification.check_given
    patch.setattr(verification, "check_given", lambda paid, key, not_before, giver: old(paid, key, 0, giver))


def beside_is_kept(patch: MonkeyPatch) -> None:
    """An invoice that is paid beside a nutzap is kept in silence."""
    for place in (tip.State.OWED, tip.State.REPAID):
        rows(
            patch, tip.TRANSITIONS, (place, tip.PaidTwice), to=place,
            do=lambda held, event: tip._without(held, event.deposit),
        )  # fmt: skip


def used_again(patch: MonkeyPatch) -> None:
    """A coin counts in each event that shows it."""
    patch.setattr(gift.Gifts, "_check_unused", lambda self, msg: None)


def given_forgotten(patch: MonkeyPatch) -> None:
    """A nutzap that was being taken is not taken up again after a restart."""
    patch.setattr(gift.Gifts, "restart", lambda self: None)


def face_counts(patch: MonkeyPatch) -> None:
    """A nutzap that is refused counts all the same."""

    def owe(held: Any, event: Any) -> Any:
        return replace(held, net=Msat(5_000), owed=Msat(5_000))

    patch.setitem(tip.TRANSITIONS, (tip.State.TAKEN, tip.Refused), (tip.Rule(tip.State.OWED, owe),))


def lends_again(patch: MonkeyPatch) -> None:
    """Who has not paid for what was lent is forgotten."""

    async def nobody(self: Any, customer: str) -> bool:
        return False

    patch.setattr(Lending, "_left_unpaid", nobody)


def lends_to_all(patch: MonkeyPatch) -> None:
    """Any key is lent to."""
    old = billing.standing_of
    patch.setattr(billing, "standing_of", lambda **known: old(**{**known, "named": True}))


def lends_more(patch: MonkeyPatch) -> None:
    """What is out already is not counted."""
    patch.setattr(billing.Billing, "_open_sales", lambda self: [])


def bill_forgotten(patch: MonkeyPatch) -> None:
    """An invoice that was not paid leaves its sale open."""
    patch.setitem(seller.TRANSITIONS, (seller.State.BILLED, seller.InvoiceLapsed), ())


def failed_is_over(patch: MonkeyPatch) -> None:
    """What a wallet calls failed is given up at once."""
    _nwc(patch, "rejected", to=Stage.FAILED, effect=lightning.Effect.RELEASE)


def absent_is_over(patch: MonkeyPatch) -> None:
    """What a wallet does not know of yet is given up, though the request may still arrive."""
    _nwc(patch, "not_arrived", to=Stage.FAILED, effect=lightning.Effect.RELEASE)


def pending_is_paid(patch: MonkeyPatch) -> None:
    """A payment that is under way is booked as paid."""
    _nwc(patch, "in_progress", to=Stage.PAID, effect=lightning.Effect.BOOK)


def _nwc(patch: MonkeyPatch, name: str, **changes: Any) -> None:
    changed = tuple(dataclasses.replace(row, **changes) if row.name == name else row for row in lightning.TRANSITIONS)
    patch.setattr(lightning, "TRANSITIONS", changed)
