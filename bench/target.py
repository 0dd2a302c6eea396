"""A number that was promised, beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """`value` is None if it could not be measured, which counts as missed."""

    name: str
    bound: float
    value: float | None
    at_least: bool = True
    unit: str = "×"

    @property
    def kept(self) -> bool:
        """Whether the promise holds in this run."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name, "bound": self.bound, "at_least": self.at_least, "unit": self.unit, "value": self.value,
            "kept": self.kept,
        }  # fmt: skip


@dataclass(slots=True)
class Section:
    """What one part of the bench found out. `rows` have the same keys each; all but the first are numbers or text."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "title": self.title, "rows": self.rows, "targets": [one.to_dict() for one in self.targets],
            "notes": self.notes,
        }  # fmt: skip


def ratio(over: float | None, under: float | None) -> float | None:
    """One by the other, to three digits; None if one of them is not there."""
    return round(over / under, 3) if over is not None and under else None


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
