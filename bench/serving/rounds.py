"""Measuring several subjects in turns, and the ratios between them with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds: its median, and the lowest and highest round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise one value per round; at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        digits = 2 if abs(self.median) < 100 else 0
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} .. {self.high:,.{digits}f})"


def in_turns(
    subjects: Mapping[str, Callable[[], T]], rounds: int, console: Console | None = None
) -> dict[str, list[T]]:
    """Measure every subject once a round. The order rotates: none always follows the same neighbour."""
    names = list(subjects)
    found: dict[str, list[T]] = {name: [] for name in names}
    for round_ in range(rounds):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            if console:
                console.print(f"  round {round_ + 1} of {rounds}: {name}", style="dim")
            found[name].append(subjects[name]())
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> Spread:
    """Summarise the ratios of two subjects that were measured in the same rounds."""
    return Spread.of([ours / theirs for ours, theirs in zip(of, to, strict=True)])


def best(found: Mapping[str, Sequence[float]]) -> str:
    """Name the subject with the highest median."""
    return max(found, key=lambda name: statistics.median(found[name]))
