"""How work is bought: the policy behind `/compute/policy`. Pure."""

from dataclasses import dataclass

from core.error import InvalidInput
from core.money import MicroUsd, Money
from dvm.request import MAX_INPUT_BYTES

MARKET = "dvm"
BUILTIN = "builtin"
DEFAULT_MAX = MicroUsd(50_000)
PREFERENCES = ("cost",)


@dataclass(frozen=True, slots=True)
class Policy:
    """How work is bought.

    Attributes:
        order: who is asked, in this order and under one job id: `dvm` is the market, `builtin` every built-in
            provider that serves the kind, any other word the built-in provider of that name.
        prefer: which admissible quote wins; `cost` is the cheapest, fees included.
        default_max: what a job may cost when it names no maximum; its unit is that of the node's budgets.
        quote_window_ms: how long quotes are collected.
        patience_ms: how much longer a seller that says `processing` without a price is waited for when no
            quote is admissible.
        timeout_s: seconds from the request to the end of the seller's time.
        fallback_timeout_s: seconds that one built-in provider has.
        lock_margin_s: the refund of locked money opens this long after the seller's time.
        max_input_bytes: all inputs of a job together.
    """

    order: tuple[str, ...] = (MARKET, BUILTIN)
    prefer: str = "cost"
    default_max: Money = DEFAULT_MAX
    quote_window_ms: int = 1_500
    patience_ms: int = 10_000
    timeout_s: int = 60
    fallback_timeout_s: int = 60
    lock_margin_s: int = 300
    max_input_bytes: int = MAX_INPUT_BYTES

    def __post_init__(self) -> None:
        if self.prefer not in PREFERENCES:
            raise InvalidInput(f"prefer is one of {', '.join(PREFERENCES)}.")
        if not self.order or len(set(self.order)) != len(self.order):
            raise InvalidInput("order names at least one source of work, and each only once.")

    def to_dict(self) -> dict[str, str | int | list[str]]:
        """As `/compute/policy` shows it."""
        return {
            "order": list(self.order),
            "prefer": self.prefer,
            f"default_max_{self.default_max.unit}": self.default_max.value,
            "quote_window_ms": self.quote_window_ms,
            "patience_ms": self.patience_ms,
            "timeout_s": self.timeout_s,
            "fallback_timeout_s": self.fallback_timeout_s,
            "lock_margin_s": self.lock_margin_s,
            "max_input_bytes": self.max_input_bytes,
        }
