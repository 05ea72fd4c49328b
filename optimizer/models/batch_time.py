"""How long a batch takes at a clock, learned from the batches that ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.models.least_squares import ForgettingLeastSquares
from optimizer.telemetry import BatchTimes, that_ran

Amount = TypeVar("Amount", float, NDArray[np.float64])

_MEMORY = 0.95
_MOST_WEIGHT = 8
_BELIEF_WEIGHT = 0.1
_FIXED_IMAGES = 4.0
"""Until batches of different sizes ran: a batch's fixed time is that of this many images."""
_CLOCKED_SHARE = 0.6
"""Until different clocks were seen: the share of the time that follows the clock (A100, ResNet-50: 0.56)."""


class BatchTimeModel:
    """Batch time affine in the batch, each part partly in proportion to the clock's period.

    t(b, f) = t0 + t1*b + (c0 + c1*b) * (F/f - 1), by least squares of relative errors that forgets.

    Args:
        reference_clock_mhz: F, the clock at which the last two terms vanish; None without clocks.
    """

    def __init__(self, reference_clock_mhz: int | None) -> None:
        self._reference_mhz = reference_clock_mhz
        self._fit = ForgettingLeastSquares(_MEMORY)
        self._typical: tuple[int, float] | None = None
        self._theta = (0.0, 0.0, 0.0, 0.0)

    @property
    def ready(self) -> bool:
        """Whether any batch was seen."""
        return self._typical is not None

    def observe(self, batches: Mapping[int, BatchTimes], clock_mhz: int | None) -> None:
        """Learn from the batches of one window, which ran at one clock."""
        seen = that_ran(batches)
        if not seen:
            return
        self._fit.forget()
        lag = float(self.lag(clock_mhz))
        for size, times in seen.items():
            weight = min(times.count, _MOST_WEIGHT) / _MOST_WEIGHT
            self._fit.observe((1.0, size, lag, size * lag), times.total_s / times.count, weight)
        largest = max(seen)
        self._typical = largest, seen[largest].total_s / seen[largest].count
        self._solve()

    def batch_s(self, batch: Amount, clock_mhz: Amount | None) -> Amount:
        """Return the seconds of a batch at a clock; arrays broadcast. The clock is None without clocks."""
        return self.batch_at_s(batch, self.lag(clock_mhz))

    def batch_at_s(self, batch: Amount, lag: Amount | float) -> Amount:
        """Return the same at what `lag` says of a clock, for whoever asks of the same clocks again."""
        fixed, per_image, clocked_fixed, clocked_per_image = self._theta
        seconds: Amount = (per_image + clocked_per_image * lag) * batch
        seconds += fixed + clocked_fixed * lag
        return seconds

    def export_state(self) -> dict[str, object]:
        """Return what was learned, for `import_state`."""
        return {"fit": self._fit.export_state(), "typical": self._typical}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        size, seconds = state["typical"]
        self._fit.import_state(state["fit"])
        self._typical = int(size), float(seconds)
        self._solve()

    def forget(self, share: float) -> None:
        """Keep only this share of the weight of what was observed."""
        self._fit.forget(share)

    def lag(self, clock_mhz: Amount | None) -> Amount | float:
        """Return how much longer a clock's period is than the reference's, as a share."""
        if clock_mhz is None or self._reference_mhz is None:
            return 0.0
        return self._reference_mhz / clock_mhz - 1.0

    def _solve(self) -> None:
        assert self._typical is not None, "something was observed"  # noqa: S101
        size, seconds = self._typical
        scale, share = 1.0 / seconds, _CLOCKED_SHARE
        beliefs = (
            ((scale, -scale * _FIXED_IMAGES, 0.0, 0.0), 0.0),
            ((-share * scale, 0.0, scale, 0.0), 0.0),
            ((-share * scale, -share * scale * size, scale, scale * size), 0.0),
        )
        fixed, per_image, clocked_fixed, clocked_per_image = self._fit.solve(beliefs, _BELIEF_WEIGHT)
        self._theta = fixed, per_image, clocked_fixed, clocked_per_image
