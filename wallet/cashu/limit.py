"""What a mint lets in and out over Lightning: least and most, or nothing at all (NUT-04, 05, 06). Pure."""

from dataclasses import dataclass, field

from wallet.error import MintLimited


@dataclass(frozen=True, slots=True)
class Limit:
    """For one direction, in whole units; None is no limit."""

    least: int | None = None
    most: int | None = None
    disabled: bool = False

    def check(self, amount: int, unit: str, what: str) -> None:
        """Whether the mint would do `what` with this amount.

        Raises:
            MintLimited: it says that it would not.
        """
        if self.disabled:
            raise MintLimited(f"The mint has switched off {what} over Lightning.")
        if self.least is not None and amount < self.least:
            raise MintLimited(f"For {what} the mint takes at least {self.least} {unit}; this is {amount}.")
        if self.most is not None and amount > self.most:
            raise MintLimited(f"For {what} the mint takes at most {self.most} {unit}; this is {amount}.")


@dataclass(frozen=True, slots=True)
class Limits:
    """A mint's limits by unit. A unit that is missing was not spoken of: then the mint itself will say."""

    deposits: dict[str, Limit] = field(default_factory=dict)
    withdrawals: dict[str, Limit] = field(default_factory=dict)

    def deposit(self, unit: str) -> Limit:
        """For coins bought with Lightning (NUT-04)."""
        return self.deposits.get(unit, Limit())

    def withdrawal(self, unit: str) -> Limit:
        """For invoices paid with coins (NUT-05)."""
        return self.withdrawals.get(unit, Limit())
