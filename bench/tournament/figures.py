"""Figures with their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the report.

    Args:
        name: what it is, for a person.
        value: None when there was nothing to compute it from.
        target: what it is compared with; None when it is only told.
        least: whether the target is a lower bound (else an upper one).
        strict: whether reaching it exactly is not enough.
        note: over how many cells, and what was left out.
    """

    name: str
    value: float | None
    target: float | None = None
    least: bool = True
    strict: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without a value or a target."""
        if self.value is None or self.target is None:
            return None
        if self.value == self.target:
            return not self.strict
        return (self.value > self.target) == self.least

    @property
    def bound(self) -> str:
        """The target as a person would write it."""
        if self.target is None:
            return ""
        sign = (">" if self.least else "<") + ("" if self.strict else "=")
        return f"{sign} {self.target:g}"


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None of nothing."""
    return fmean(values) if values else None


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of the values do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
