"""What all open jobs of ours share: the parts that they act through, and who is told of their ends."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.clock import Clock
from core.effect import Gate
from core.identifier import PubKey
from core.money import Msat
from core.unit import UnitOfWork, Write
from dvm.conduct import deed_of
from dvm.envelope import Envelope
from dvm.exposure import Exposure
from dvm.fallback import asked
from dvm.fraud import FRAUD, told
from dvm.invoice import Checkout
from dvm.job import Purchase
from dvm.policy import Policy
from dvm.prepaying import Prepaying
from dvm.provider.provider import Provider
from dvm.reputation import Repute
from dvm.request import ComputeRequest
from dvm.unpacking import Unpacking
from dvm.view import PurchaseView
from relays.directory import Directory
from relays.key import Key
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.wallet import Wallet

Finished = Callable[[PurchaseView], Awaitable[Sequence[Write]]]


@dataclass(slots=True)
class Desk:
    """What all open jobs share. `spawn` starts a task that the buying service owns."""

    unit: UnitOfWork
    gate: Gate
    pool: Pool
    outbox: Outbox
    wallet: Wallet
    clock: Clock
    key: Key
    policy: Policy
    providers: Mapping[str, Provider]
    known_sellers: Callable[[int], frozenset[PubKey]]
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    closed: Callable[[str], None]
    envelope: Envelope
    unsecured: Callable[[str, str], Msat]  # out to a seller, by all jobs but one
    finished: list[Finished] = field(default_factory=list)
    moved: list[Finished] = field(default_factory=list)
    closing: list[Finished] = field(default_factory=list)
    directory: Directory | None = None
    repute: Repute = field(default_factory=Repute)
    own: Callable[[Purchase], Awaitable[ComputeRequest]] = asked  # with our own results in place of their jobs
    hear: Callable[[], None] = lambda: None  # begin to read answers in gift wraps
    checkout: Checkout | None = None  # without one no invoice is paid
    exposure: Exposure | None = None
    prepaying: Prepaying | None = None  # without it nothing is drawn from deposits
    unpacking: Unpacking | None = None  # without one no result is fetched from a file server
    seated: Callable[[str], None] = lambda panel: None  # told of a panel one of whose purchases has ended

    def learn(self, job: Purchase) -> None:
        """What a committed state tells of the seller; the rows are read again at the start."""
        if (deed := deed_of(job)) is not None:
            self.repute.learn(deed)
        if job.fault == FRAUD and job.payment is not None:
            self.repute.condemn(job.payment.seller, told(job.sealed_id))
