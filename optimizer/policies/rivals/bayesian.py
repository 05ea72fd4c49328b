"""PolyThrottle (Yan, Wang, Venkataraman, MLSys 2024): constrained Bayesian optimisation of clock and batch.

One Gaussian process models the energy of an image, another the latency; the next setting tried is the one
with the greatest expected improvement in energy times the probability that it keeps the SLO.

Left open or different here, chosen in its favour: energy and p99 are modelled as logarithms (both span
decades), with a linear and a Matern 5/2 kernel, so that slow settings are foreseen; at most 5 batch limits
(as in the original) and 24 clocks are candidates; it begins with the server's default and two settings not
far from it, for random ones would often lose the SLO; it measures a setting for 2 s after leaving out 1 s,
or until the SLO is missed; after that it goes back to the default until the p99 is within the SLO again; it
ends after 20 settings, or when an improvement of less than 1 % is expected, and keeps the best that kept
the SLO; and since it knows no load, it begins anew when the load leaves that of the search by more than a
quarter, or the SLO is missed, in two windows in a row.

The linear algebra runs in one thread: shared among more, as the library does by default, a search step on
twenty settings took ten times the processor time, with the same outcome to the last digit.

Needs scikit-learn: `pip install 'boulton[tournament]'`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.policy import Decision
from optimizer.policies.rivals.reading import stay, to, why_ignored, without_clock_if_none
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_MOST_LIMITS, _MOST_CLOCKS = 5, 24
_BUDGET = 20
_LEAST_IMPROVEMENT = 0.01
_SETTLE_S, _MEASURE_S = 1.0, 2.0
_FIRST = ((1.0, 0.9), (0.75, 0.8))
"""The settings tried after the default: shares of the largest batch limit and of the highest clock."""
_CHANGED, _TIMES_CHANGED = 0.25, 2
_NOISE = 1e-3
_ROUNDING_S = 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Sample:
    """What was measured at a setting; the p99 as a share of the SLO."""

    point: OperatingPoint
    joules_per_image: float
    p99_share: float

    @property
    def feasible(self) -> bool:
        return self.p99_share <= 1.0


@dataclass
class _Trial:
    """What accumulates at one setting. The first `_SETTLE_S` count for nothing."""

    waited_s: float = 0.0
    duration_s: float = 0.0
    joules: float = 0.0
    images: int = 0
    arrived: int = 0
    p99_ms: float = 0.0

    def add(self, window: Window, joules: float, slo_ms: float) -> bool:
        """Add a window; True once there is enough, which is at once when it missed the SLO."""
        missed = (window.traffic.latency_p99_ms or 0.0) > slo_ms
        if self.waited_s < _SETTLE_S - _ROUNDING_S and not missed:
            self.waited_s += window.duration_s
            return False
        self.duration_s += window.duration_s
        self.joules += joules
        self.images += window.traffic.completed
        self.arrived += window.traffic.arrived
        self.p99_ms = max(self.p99_ms, window.traffic.latency_p99_ms or 0.0)
        return missed or self.duration_s >= _MEASURE_S - _ROUNDING_S


class BayesianPolicy:
    """Implements `Policy`. See the module for the rule.

    Args:
        grid: the legal settings.

    Raises ModuleNotFoundError without scikit-learn.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._grid = grid
        self._surrogate = _Surrogate(_candidates(grid), grid)
        self._restart()

    @property
    def name(self) -> str:
        """Always `bayesian`."""
        return "bayesian"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Measure, and go on with the search; or watch what was found."""
        if why := why_ignored(window):
            return stay(self._grid, window, why)
        joules = window.device.energy.joules
        if joules is None:
            return stay(self._grid, window, "energy is not measured")
        here = without_clock_if_none(self._point, window)
        if window.point != here:
            return self._go(window, self._point, "begins")
        if self._found_per_s is not None:
            return self._watch(window, targets, self._found_per_s)
        if self._recovering:
            return self._recover(window, targets)
        if not self._trial.add(window, joules, targets.slo_p99_ms):
            return to(here, "waits and measures")
        return self._judge(window, targets)

    def _restart(self) -> None:
        self._point = self._grid.default
        self._samples: list[_Sample] = []
        self._trial = _Trial()
        self._recovering = False
        self._found_per_s: float | None = None
        self._changes = 0

    def _go(self, window: Window, point: OperatingPoint, why: str) -> Decision:
        self._point, self._trial = point, _Trial()
        return to(without_clock_if_none(point, window), why)

    def _recover(self, window: Window, targets: Targets) -> Decision:
        """Stay at the default until the SLO holds again."""
        if (window.traffic.latency_p99_ms or 0.0) > targets.slo_p99_ms:
            return to(without_clock_if_none(self._point, window), "recovers from a missed SLO")
        self._recovering = False
        return self._propose(window, window.traffic.arrived / window.duration_s)

    def _judge(self, window: Window, targets: Targets) -> Decision:
        """Note what was measured; go on from there."""
        trial = self._trial
        share = trial.p99_ms / targets.slo_p99_ms
        sample = _Sample(self._point, trial.joules / trial.images, share)
        self._samples.append(sample)
        if not sample.feasible:
            self._recovering = True
            return self._go(window, self._grid.default, f"p99 {trial.p99_ms:.1f} ms missed the SLO")
        return self._propose(window, trial.arrived / trial.duration_s)

    def _propose(self, window: Window, rate_per_s: float) -> Decision:
        """Try the next setting, or keep the best."""
        tried = len(self._samples)
        if tried <= len(_FIRST):
            limits, clocks = _FIRST[tried - 1]
            return self._go(window, self._share(limits, clocks), "tries where it always begins")
        point, improvement = self._surrogate.best(self._samples)
        if tried < _BUDGET and improvement >= _LEAST_IMPROVEMENT:
            return self._go(window, point, f"expects to save {improvement:.0%}")
        self._found_per_s = rate_per_s
        kept = min(
            (sample for sample in self._samples if sample.feasible),
            key=lambda sample: sample.joules_per_image,
            default=None,
        )
        why = f"the best of {tried} settings" if kept else "none of the settings tried keeps the SLO"
        return self._go(window, kept.point if kept else self._grid.default, why)

    def _watch(self, window: Window, targets: Targets, found_per_s: float) -> Decision:
        rate_per_s = window.traffic.arrived / window.duration_s
        missed = (window.traffic.latency_p99_ms or 0.0) > targets.slo_p99_ms
        other = abs(rate_per_s - found_per_s) > _CHANGED * found_per_s
        self._changes = self._changes + 1 if missed or other else 0
        if self._changes < _TIMES_CHANGED:
            return to(without_clock_if_none(self._point, window), "found")
        self._restart()
        return self._go(window, self._point, "the load has changed" if other else "the SLO is missed")

    def _share(self, limits: float, clocks: float) -> OperatingPoint:
        default = self._grid.default
        clock_mhz = None if default.sm_clock_mhz is None else round(clocks * default.sm_clock_mhz)
        return self._grid.nearest(OperatingPoint(round(limits * default.batch_limit), clock_mhz))


class _Process(Protocol):
    """A Gaussian process, as scikit-learn has it."""

    def fit(self, where: Array, values: Array) -> object: ...

    def predict(self, where: Array, *, return_std: bool) -> tuple[Array, Array]: ...


class _Libraries(Protocol):
    """The numerical libraries in this process, as threadpoolctl has them."""

    def limit(self, *, limits: int) -> AbstractContextManager[object]: ...


class _Surrogate:
    """What energy and latency are expected at every candidate, from the settings tried."""

    def __init__(self, candidates: Sequence[OperatingPoint], grid: OperatingGrid) -> None:
        self._candidates = candidates
        self._largest = math.log2(grid.batch_limits[-1]) or 1.0
        self._highest = grid.sm_clocks_mhz[-1] if grid.sm_clocks_mhz else 1
        self._where = self._features(candidates)
        self._energy, self._latency = _process(), _process()
        self._libraries = _libraries()

    def best(self, samples: Sequence[_Sample]) -> tuple[OperatingPoint, float]:
        """Return the candidate of the most constrained expected improvement, and that, as a share."""
        tried = self._features([sample.point for sample in samples])
        energies = np.log([max(1e-9, sample.joules_per_image) for sample in samples])
        shares = np.log([max(1e-9, sample.p99_share) for sample in samples])
        energy, energy_sd = self._predict(self._energy, tried, energies)
        share, share_sd = self._predict(self._latency, tried, shares)
        feasible = [e for e, sample in zip(energies, samples, strict=True) if sample.feasible]
        least = min(feasible, default=float(energies.max()))
        gain = _expected_improvement(least - energy, energy_sd) * _normal_cdf(-share / share_sd)
        known = {sample.point for sample in samples}
        gain[[point in known for point in self._candidates]] = 0.0
        index = int(np.argmax(gain))
        return self._candidates[index], float(gain[index])

    def _predict(self, process: _Process, tried: Array, values: Array) -> tuple[Array, Array]:
        with warnings.catch_warnings(), self._libraries.limit(limits=1):
            warnings.simplefilter("ignore")  # a length scale at its bound is no matter here
            process.fit(tried, values)
            mean, deviation = process.predict(self._where, return_std=True)
        return mean, np.maximum(1e-9, deviation)

    def _features(self, points: Sequence[OperatingPoint]) -> Array:
        """Return one row a point: batch limit, as a logarithm, and clock, both as shares of the largest."""
        return np.array(
            [
                (
                    math.log2(p.batch_limit) / self._largest,
                    math.log2((p.sm_clock_mhz or self._highest) / self._highest),
                )
                for p in points
            ]
        )


def _libraries() -> _Libraries:
    """Return what limits the threads of the libraries that are loaded by now."""
    from threadpoolctl import ThreadpoolController

    libraries: _Libraries = ThreadpoolController()
    return libraries


def _process() -> _Process:
    try:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import DotProduct, Matern, WhiteKernel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "policy bayesian needs scikit-learn: pip install 'boulton[tournament]'"
        ) from error
    curve = Matern([0.5, 0.5], [(0.05, 5.0), (0.05, 5.0)], nu=2.5)
    kernel = DotProduct() + curve + WhiteKernel(_NOISE, (1e-5, 1e-1))
    process: _Process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    return process


def _expected_improvement(gain: Array, deviation: Array) -> Array:
    z = gain / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return gain * _normal_cdf(z) + deviation * density


def _normal_cdf(z: Array) -> Array:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in z])


def _candidates(grid: OperatingGrid) -> list[OperatingPoint]:
    """Return every combination of the batch limits nearest to halvings and of evenly spaced clocks."""
    halvings = [grid.batch_limits[-1] / 2**n for n in range(_MOST_LIMITS)]
    limits = sorted({min(grid.batch_limits, key=lambda limit: abs(limit - half)) for half in halvings})
    axis, count = grid.sm_clocks_mhz, min(_MOST_CLOCKS, len(grid.sm_clocks_mhz))
    picked = np.linspace(0, len(axis) - 1, count).round().astype(int).tolist()
    clocks: Sequence[int | None] = [axis[index] for index in picked] or [None]
    return [OperatingPoint(limit, clock) for limit in limits for clock in clocks]
