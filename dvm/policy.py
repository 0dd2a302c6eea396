"""How work is bought: the policy behind `/compute/policy`. Pure."""

from dataclasses import dataclass

from core.error import InvalidInput
from core.money import MicroUsd, Money, Msat
from dvm.preference import Prefer
from dvm.redundancy import DETERMINISTIC
from dvm.request import MAX_INPUT_BYTES

MARKET = "dvm"
BUILTIN = "builtin"
DEFAULT_MAX = MicroUsd(50_000)
MAX_UNSECURED = Msat(50_000)


@dataclass(frozen=True, slots=True)
class Policy:
    """How work is bought.

    Attributes:
        order: who is asked, in this order and under one job id: `dvm` is the market, `builtin` every built-in
            provider that serves the kind, any other word the built-in provider of that name.
        prefer: which admissible quote wins, if a job does not say (`dvm.preference`).
        spread: draw one of the best three instead of always taking the best.
        default_max: what a job may cost when it names no maximum; its unit is that of the node's budgets.
        quote_window_ms: how long quotes are collected.
        patience_ms: how much longer a seller that says `processing` without a price is waited for when no
            quote is admissible.
        timeout_s: seconds from the request to the end of the seller's time.
        fallback_timeout_s: seconds that one built-in provider has.
        lock_margin_s: the refund of locked money opens this long after the seller's time.
        max_input_bytes: all inputs of a job together.
        deterministic: kinds of which several sellers' results can be compared.
        invoices: whether sellers are paid over Lightning who take nothing else.
        max_unsecured: what one seller may have been paid so before it has delivered.
    """

    order: tuple[str, ...] = (MARKET, BUILTIN)
    prefer: Prefer = Prefer.COST
    spread: bool = False
    default_max: Money = DEFAULT_MAX
    quote_window_ms: int = 1_500
    patience_ms: int = 10_000
    timeout_s: int = 60
    fallback_timeout_s: int = 60
    lock_margin_s: int = 300
    max_input_bytes: int = MAX_INPUT_BYTES
    deterministic: tuple[int, ...] = DETERMINISTIC
    invoices: bool = False
    max_unsecured: Msat = MAX_UNSECURED

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) != len(self.order):
            raise InvalidInput("order names at least one source of work, and each only once.")

    def to_dict(self) -> dict[str, str | int | bool | list[str] | list[int]]:
        """As `/compute/policy` shows it."""
        return {
            "order": list(self.order),
            "prefer": self.prefer.value,
            "spread": self.spread,
            f"default_max_{self.default_max.unit}": self.default_max.value,
            "quote_window_ms": self.quote_window_ms,
            "patience_ms": self.patience_ms,
            "timeout_s": self.timeout_s,
            "fallback_timeout_s": self.fallback_timeout_s,
            "lock_margin_s": self.lock_margin_s,
            "max_input_bytes": self.max_input_bytes,
            "deterministic": list(self.deterministic),
            "invoices": self.invoices,
            "max_unsecured_msat": self.max_unsecured.value,
        }
