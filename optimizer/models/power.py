"""What power a load draws at a clock, learned from measured windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.models.least_squares import ForgettingLeastSquares, Four

Amount = TypeVar("Amount", float, NDArray[np.float64])

_MEMORY = 0.95
_BELIEF_WEIGHT = 0.1
_LEAST_W = 1e-3
_SHARES = (0.15, 0.02, 0.33, 0.5)
"""Until loads and clocks differed: idle, awake, clocked and working parts of the power of full load.

A busy A100 at its lowest clock draws hardly more than an idle one (public fits): to be awake costs little.
"""
_KNEE = 0.64
_FLOOR = 0.84
"""The relative voltage stays at the floor up to this share of the highest clock (A100, public fits)."""


class PowerModel:
    """Mean power = idle + busy * (awake + clocked * f/F * v^2) + images/s * work * v^2.

    `busy` is the share of time in which a batch runs, v the voltage relative to that at the highest clock F,
    taken to be flat and then rising; the four coefficients are fitted, so the curve is a shape and no more.

    Args:
        reference_clock_mhz: F; None without clocks.
    """

    def __init__(self, reference_clock_mhz: int | None) -> None:
        self._reference_mhz = reference_clock_mhz
        self._fit = ForgettingLeastSquares(_MEMORY)
        self._theta: tuple[float, ...] = ()
        self._last = (1.0, 1.0, 1.0)

    @property
    def ready(self) -> bool:
        """Whether any window was measured."""
        return bool(self._theta)

    def observe(self, watts: float, busy: float, images_per_s: float, clock_mhz: int | None) -> None:
        """Learn from a window's mean power; ignores one without, and idle ones before the first work."""
        if watts < _LEAST_W or not (self.ready or (busy > 0.0 and images_per_s > 0.0)):
            return
        self._fit.forget()
        self._fit.observe(self._features(float(busy), float(images_per_s), clock_mhz), float(watts))
        self._believe(watts, busy, images_per_s)

    def _believe(self, watts: float, busy: float, images_per_s: float) -> None:
        """Solve, with beliefs scaled by this window, or by the last one that had work."""
        if busy > 0.0 and images_per_s > 0.0:
            self._last = watts, busy, images_per_s
        watts, busy, images_per_s = self._last
        idle, awake, clocked, work = _SHARES
        full_w = watts / (idle + (1.0 - idle) * busy)
        full_images_per_s = images_per_s / busy
        scale = 1.0 / full_w
        beliefs = (
            ((scale, 0.0, 0.0, 0.0), idle),
            ((0.0, scale, 0.0, 0.0), awake),
            ((0.0, 0.0, scale, 0.0), clocked),
            ((0.0, 0.0, 0.0, scale * full_images_per_s), work),
        )
        self._theta = self._fit.solve(beliefs, _BELIEF_WEIGHT)

    def watts(self, busy: float, images_per_s: float, clock_mhz: int | None) -> float:
        """Return the mean power of a load."""
        features = self._features(busy, images_per_s, clock_mhz)
        return sum(theta * feature for theta, feature in zip(self._theta, features, strict=True))

    @property
    def busy(self) -> float:
        """The share of the time in which batches ran, in the last window that had work."""
        return self._last[1]

    @property
    def idle_w(self) -> float:
        """Power while nothing runs."""
        return self._theta[0]

    def running_w(self, batch: Amount, batch_s: Amount, clock_mhz: Amount | None) -> Amount:
        """Return what a running batch draws on top of the idle power; arrays broadcast."""
        return self.running_at_w(batch, batch_s, self.pace(clock_mhz))

    def running_at_w(
        self, batch: Amount, batch_s: Amount, pace: tuple[Amount | float, Amount | float]
    ) -> Amount:
        """Return the same at what `pace` says of a clock, for whoever asks of the same clocks again."""
        _, awake, clocked, work = self._theta
        share, square = pace
        running_w: Amount = work * square * batch
        running_w /= batch_s
        running_w += awake + clocked * share * square
        return running_w

    def export_state(self) -> dict[str, object]:
        """Return what was learned, for `import_state`."""
        return {"fit": self._fit.export_state(), "theta": list(self._theta), "last": list(self._last)}

    def import_state(self, state: Mapping[str, Any]) -> None:
        """Start from an exported state. Raises ValueError, KeyError or TypeError for anything else."""
        theta = tuple(float(value) for value in state["theta"])
        if theta and (len(theta) != 4 or not all(0.0 <= value < math.inf for value in theta)):
            raise ValueError(f"expected 4 coefficients, none negative, got {theta}")
        watts, busy, images_per_s = (float(value) for value in state["last"])
        self._fit.import_state(state["fit"])
        self._theta, self._last = theta, (watts, busy, images_per_s)

    def forget(self, share: float) -> None:
        """Keep only this share of the weight of what was observed."""
        self._fit.forget(share)

    def _features(self, busy: float, images_per_s: float, clock_mhz: int | None) -> Four:
        share, square = map(float, self.pace(clock_mhz))
        return 1.0, busy, busy * share * square, images_per_s * square

    def pace(self, clock_mhz: Amount | None) -> tuple[Amount | float, Amount | float]:
        """Return the clock as a share of the highest, and the square of the voltage there."""
        if clock_mhz is None or self._reference_mhz is None:
            return 1.0, 1.0
        share = clock_mhz / self._reference_mhz
        return share, (_FLOOR + (1.0 - _FLOOR) * np.maximum(0.0, (share - _KNEE) / (1.0 - _KNEE))) ** 2
