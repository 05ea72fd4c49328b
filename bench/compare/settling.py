"""When a warm-up is over: three blocks of batches in a row are equally fast."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

BLOCKS = 3
LEAST_BATCHES = 3
"""In a block."""


@dataclass(frozen=True, slots=True)
class SettlingRule:
    """The rule.

    Args:
        block_s: a block lasts at least this long, and at least `LEAST_BATCHES` batches.
        tolerance: the medians of the last `BLOCKS` blocks are apart by this share at most.
        limit_s: after this long the warm-up ends unsettled.
    """

    block_s: float = 0.2
    tolerance: float = 0.05
    limit_s: float = 10.0

    def __str__(self) -> str:
        """Read as a person would say it."""
        return (
            f"until the medians of {BLOCKS} blocks in a row, each of {self.block_s:g} s and {LEAST_BATCHES} "
            f"batches or more, are within {self.tolerance:.0%}, for at most {self.limit_s:g} s"
        )


@dataclass(slots=True)
class Settling:
    """Watches a warm-up: tell it each batch's time until it is `over`."""

    rule: SettlingRule
    seconds: float = 0.0
    batches: int = 0
    settled: bool = False
    _block: list[float] = field(default_factory=list)
    _medians: list[float] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether to end the warm-up."""
        return self.settled or (self.seconds >= self.rule.limit_s and self.batches >= LEAST_BATCHES)

    def add(self, batch_s: float) -> None:
        """Take one batch's time."""
        self.seconds += batch_s
        self.batches += 1
        self._block.append(batch_s)
        if len(self._block) >= LEAST_BATCHES and sum(self._block) >= self.rule.block_s:
            self._close_block()

    def _close_block(self) -> None:
        self._medians.append(statistics.median(self._block))
        self._block.clear()
        last = self._medians[-BLOCKS:]
        self.settled = len(last) == BLOCKS and max(last) <= min(last) * (1.0 + self.rule.tolerance)
