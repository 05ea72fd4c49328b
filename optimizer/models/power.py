"""What power a load draws at a clock, learned from measured windows."""

from __future__ import annotations

from optimizer.models.least_squares import ForgettingLeastSquares

_MEMORY = 0.95
_BELIEF_WEIGHT = 0.1
_LEAST_W = 1e-3
_SHARES = (0.1, 0.2, 0.2, 0.5)
"""Until loads and clocks differed: idle, awake, clocked and working parts of the power of full load."""
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
        self._fit = ForgettingLeastSquares(4, _MEMORY)
        self._theta: tuple[float, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether any window was measured."""
        return bool(self._theta)

    def observe(self, watts: float, busy: float, images_per_s: float, clock_mhz: int | None) -> None:
        """Learn from a window's mean power; ignores one without power or work."""
        if watts < _LEAST_W or busy <= 0.0 or images_per_s <= 0.0:
            return
        self._fit.forget()
        self._fit.observe(self._features(busy, images_per_s, clock_mhz), watts)
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
        self._theta = tuple(float(value) for value in self._fit.solve(beliefs, _BELIEF_WEIGHT))

    def watts(self, busy: float, images_per_s: float, clock_mhz: int | None) -> float:
        """Return the mean power of a load."""
        features = self._features(busy, images_per_s, clock_mhz)
        return sum(theta * feature for theta, feature in zip(self._theta, features, strict=True))

    def _features(self, busy: float, images_per_s: float, clock_mhz: int | None) -> tuple[float, ...]:
        share = 1.0 if clock_mhz is None or self._reference_mhz is None else clock_mhz / self._reference_mhz
        square = (_FLOOR + (1.0 - _FLOOR) * max(0.0, (share - _KNEE) / (1.0 - _KNEE))) ** 2
        return 1.0, busy, busy * share * square, images_per_s * square
