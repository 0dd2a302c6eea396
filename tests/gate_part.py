"""A gate for tests: over any database, at a time that the test sets."""

import asyncio

from core.effect import EffectClass, Intent
from core.money import Money, Msat
from node.gate.gate import LedgerUnit, NodeGate
from node.gate.ledger import ledger_seal
from node.gate.limits import Limits
from node.storage.memory import MemoryDatabase
from relays.key import Key

KEY = Key(b"\x07" * 32)
START = 1_800_000_000  # 2027-01-15 08:00 UTC
LIMITS = Limits.of("msat", per_job=1_000, per_day=5_000, per_seller=2_000)
SELLER = "ab" * 32


class SetClock:
    """Time that stands still until the test moves it."""

    def __init__(self, now: int = START) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def millis(self) -> int:
        return self.at * 1_000

    def monotonic(self) -> float:
        return float(self.at)

    async def sleep(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until:
            await asyncio.sleep(0.001)


def memory(clock: SetClock) -> MemoryDatabase:
    return MemoryDatabase(ledger_seal(KEY), clock)


async def open_gate(unit: LedgerUnit, clock: SetClock, limits: Limits = LIMITS) -> NodeGate:
    gate = NodeGate(unit, clock, limits, KEY.pubkey)
    await gate.load()
    return gate


def intent(
    key: str = "k",
    reserve: int | Money | None = 100,
    *,
    body: bytes = b"{}",
    caller: str = "operator",
    path: str = "/compute/new",
    effect: EffectClass = EffectClass.IRREVERSIBLE,
) -> Intent:
    amount = Msat(reserve) if isinstance(reserve, int) else reserve
    return Intent(caller, path, key, body, effect, f"job-{key}", amount, {"kind": 5001})
