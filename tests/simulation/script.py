"""What one run is made of: who wants what, and what goes wrong. Plain values; a run follows from its script alone."""

from dataclasses import dataclass, field

from core.money import Money
from tests.simulation.wire import Weather

PAID, FREE = 5050, 5055


@dataclass(frozen=True)
class Crash:
    """A node dies at the n-th commit whose label starts so, before or after that is applied; or at a time.

    It is away for `down` seconds, or for a moment.
    """

    node: str
    label: str = ""
    number: int = 1
    after: bool = True
    at: float | None = None
    down: float | None = None


@dataclass(frozen=True)
class Trigger:
    """After a node's n-th commit whose label starts so, this happens.

    `rotate` the mint's keyset, or `cancel` the jobs. For some seconds the mint is `away`, in `outage` (what is sent to
    it is lost), `flaky` (no swap gets through), `refusing` or `blind` (restores nothing). Any other word is the `Fault`
    of the next swap.
    """

    node: str
    label: str
    action: str
    seconds: float = 0.0
    number: int = 1


@dataclass(frozen=True)
class Job:
    """What the customer wants, and when."""

    key: str
    at: float = 0.0
    kind: int = PAID
    maximum: Money | None = None
    cancel_at: float | None = None
    again: bool = False  # asked for twice under the same key
    timeout_s: int | None = None
    ticks: bool = False  # a tick commits it with what else it decided, and begins it then


@dataclass(frozen=True)
class Script:
    """One run: everything in it follows from this and the seed."""

    seed: int
    weather: Weather = field(default_factory=lambda: Weather(delay=0.05))
    faults: float = 0.0
    unpriced: float = 0.0
    unit: str = "uusd"
    order: tuple[str, ...] = ("dvm", "builtin")
    jobs: tuple[Job, ...] = (Job("job-0"),)
    crashes: tuple[Crash, ...] = ()
    adversaries: tuple[str, ...] = ()
    partition: tuple[str, float, float] | None = None
    funds: int = 120
    clumsy: float = 0.0  # how often a provider fails or is late
    late_in_day: bool = False  # midnight (UTC) comes during the run
    prices: tuple[int, int] = (7, 11)
    sellers: int = 2
    known: bool = True
    per_seller: int = 30_000
    triggers: tuple[Trigger, ...] = ()
    spare: bool = False  # a second built-in provider
    latency: float = 0.05  # seconds, at most, that a question after coins takes to the mint; and as many back
    atomic: bool = False  # results are sold sealed (ADR 25)
    orders: str = ""  # who takes orders without money (mode A): "", "rogues", or "all"
    hides: bool = False  # the mint does not show with what a coin was spent
    storm: float = 3.0  # seconds from the last job's end until the weather clears
