"""A setting of the machine, and the grid of settings that are legal.

Everything that proposes, checks, applies, logs or draws a setting speaks `OperatingPoint`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class OperatingPoint:
    """One setting. An axis that is None is not governed: whatever the device does is accepted.

    `max_delay_ms` is how long a batch may wait on an idle engine until it holds `batch_limit` images.
    """

    batch_limit: int
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = None
    max_delay_ms: float = 0.0

    def __str__(self) -> str:
        """Read as a person would say it, e.g. `batch <= 16 at 1095 MHz`."""
        parts = [f"batch <= {self.batch_limit}"]
        if self.max_delay_ms:
            parts.append(f"after {self.max_delay_ms:.3g} ms at most")
        if self.sm_clock_mhz is not None:
            parts.append(f"at {self.sm_clock_mhz} MHz")
        if self.memory_clock_mhz is not None:
            parts.append(f"memory at {self.memory_clock_mhz} MHz")
        if self.power_limit_w is not None:
            parts.append(f"under {self.power_limit_w:g} W")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class OperatingGrid:
    """The legal settings: every batch limit with every SM clock. Both axes ascend.

    The delay of a batch is no axis: any that is not negative is legal.

    Args:
        batch_limits: legal batch limits in images, at least one.
        sm_clocks_mhz: legal SM clocks; empty when the clock is not governed.
    """

    batch_limits: tuple[int, ...]
    sm_clocks_mhz: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, axis in (("batch_limits", self.batch_limits), ("sm_clocks_mhz", self.sm_clocks_mhz)):
            if list(axis) != sorted(set(axis)) or any(value <= 0 for value in axis):
                raise ValueError(f"{name} must be positive and strictly ascending, got {axis}")
        if not self.batch_limits:
            raise ValueError("batch_limits must name at least one batch size")

    @property
    def default(self) -> OperatingPoint:
        """The setting of a server without a governor: the largest batch at the highest clock."""
        return OperatingPoint(self.batch_limits[-1], self.sm_clocks_mhz[-1] if self.sm_clocks_mhz else None)

    def __contains__(self, point: OperatingPoint) -> bool:
        legal_clock = (
            point.sm_clock_mhz in self.sm_clocks_mhz if self.sm_clocks_mhz else point.sm_clock_mhz is None
        )
        return point.batch_limit in self.batch_limits and legal_clock

    def __iter__(self) -> Iterator[OperatingPoint]:
        clocks: tuple[int | None, ...] = self.sm_clocks_mhz or (None,)
        return (OperatingPoint(batch, clock) for batch in self.batch_limits for clock in clocks)

    def __len__(self) -> int:
        return len(self.batch_limits) * max(1, len(self.sm_clocks_mhz))

    def nearest(self, point: OperatingPoint) -> OperatingPoint:
        """Return the legal setting closest to `point` on each axis; an ungoverned axis becomes None.

        The delay stays as it is.
        """
        clock = None
        if self.sm_clocks_mhz:
            wanted = self.sm_clocks_mhz[-1] if point.sm_clock_mhz is None else point.sm_clock_mhz
            clock = _nearest(self.sm_clocks_mhz, wanted)
        limit = _nearest(self.batch_limits, point.batch_limit)
        return OperatingPoint(limit, clock, max_delay_ms=point.max_delay_ms)


def _nearest(axis: tuple[int, ...], wanted: int) -> int:
    index = bisect_left(axis, wanted)
    return min(axis[max(0, index - 1) : index + 1], key=lambda value: abs(value - wanted))
