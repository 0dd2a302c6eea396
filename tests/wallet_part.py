"""Wallets over a model mint, for tests: a clock that is moved by hand, databases that survive their wallets."""

from collections.abc import Callable, Sequence

from core.effect import Permit
from core.identifier import EffectId
from core.unit import UnitOfWork
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from wallet.cashu.port import Mint
from wallet.wallet import Wallet

BUYER_WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
SELLER_WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
EFFECT = EffectId("effect")
PERMIT = Permit(EFFECT)


class HandClock:
    """Moves only when told to, or when somebody sleeps."""

    def __init__(self, now: int = 1_800_000_000) -> None:
        self.seconds = float(now)

    def now(self) -> int:
        return int(self.seconds)

    def millis(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)


def allow(_: Permit) -> None:
    """A gate that lets everything through."""


def make_wallet(
    words: str,
    mints: Sequence[Mint],
    clock: HandClock,
    unit: UnitOfWork | None = None,
    check: Callable[[Permit], None] = allow,
    retired: Sequence[Mint] = (),
) -> Wallet:
    """A wallet; without `unit` with an empty database."""
    held = MemoryDatabase(clock=clock) if unit is None else unit
    return Wallet(held, Keyring(words), clock, check, mints, permit_for=Permit, retired=retired)
