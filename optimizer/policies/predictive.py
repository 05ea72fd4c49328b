"""Learns how long batches take and what they cost, and goes where it predicts the most revenue.

Every setting within reach is scored by the revenue expected on the present load. Among those that keep the
SLO with a margin and leave room for a surge, the best is taken if it saves enough to be worth a move; the
present one may stay up to a narrower margin, so that noise makes nothing wander. When the SLO is missed or
work piles up, it goes to the fast point at once, stays for a while, and trusts its latency forecasts less.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.candidates import candidates
from optimizer.policies.evidence import SloWatch, why_unfit
from optimizer.policies.forecast import Forecast, Forecaster
from optimizer.policies.policy import Decision
from optimizer.revenue import Targets
from optimizer.telemetry import Window

_MARGIN_TO_MOVE, _MARGIN_TO_STAY = 0.85, 0.95
"""The shares of the SLO that the expected p99 may reach at a new setting, and at the present one."""
_HEADROOM, _MOST_HEADROOM = 3.0, 0.75
"""A new setting must serve this many times the load, or at least this share of what is possible at all."""
_WORTH_MOVING = 0.01
_HOLD_WINDOWS = 5


class PredictivePolicy:
    """Implements `Policy` by prediction. See the module for the idea.

    Args:
        grid: the legal settings.
    """

    def __init__(self, grid: OperatingGrid) -> None:
        self._grid = grid
        self._forecaster = Forecaster(grid)
        self._watch = SloWatch()
        self._hold = 0
        self._last_point: OperatingPoint | None = None

    @property
    def name(self) -> str:
        """Always `predictive`."""
        return "predictive"

    def decide(self, window: Window, targets: Targets) -> Decision:
        """Learn from a window and choose the setting for the next."""
        last, self._last_point = self._last_point, window.point
        unfit = why_unfit(window, settled=last is not None and last.sm_clock_mhz == window.point.sm_clock_mhz)
        surged = self._arrived(window)
        if unfit is None:
            self._forecaster.learn(window)
        trouble = self._watch.trouble(window, targets)
        if trouble is not None:
            return self._flee(window.point, targets, trouble, foreseeable=unfit is None and not surged)
        if unfit is not None:
            return Decision(window.point, f"{window.point}: {unfit}")
        self._forecaster.learn_latency(window, targets)
        return self._improve(window.point, targets)

    def _arrived(self, window: Window) -> bool:
        """Learn the arrival rate; True when more came than was to be expected."""
        arrivals = self._forecaster.arrivals
        expected = arrivals.cautious_rate_per_s * window.duration_s
        arrivals.observe(window.traffic.arrived, window.duration_s)
        return window.traffic.arrived > expected

    def _improve(self, point: OperatingPoint, targets: Targets) -> Decision:
        """Move to the setting that is predicted to earn the most, if it is worth moving at all."""
        here = self._forecaster.at(point, targets)
        forecasts = [self._forecaster.at(other, targets) for other in candidates(self._grid, point)]
        good = self._roomy(forecasts, targets)
        if self._hold > 0:
            self._hold -= 1
            return self._decision(here, good, "waits for calm to last")
        stays = _in_time(here, targets, _MARGIN_TO_STAY) and _under_cap(here, targets)
        if not good:
            best = here if stays else _last_resort(forecasts, targets)
            return self._decision(best, forecasts, "nothing else keeps SLO and power cap for sure")
        best = min(good, key=_rank)
        if stays and here.cost_per_s - best.cost_per_s <= _WORTH_MOVING * here.cost_per_s:
            return self._decision(here, good, "nothing earns clearly more")
        return self._decision(best, good, "earns the most")

    def _roomy(self, forecasts: Sequence[Forecast], targets: Targets) -> Sequence[Forecast]:
        """Return what keeps the targets with room for a surge; without such, all that keeps them."""
        rate_per_s = self._forecaster.arrivals.rate_per_s
        possible_per_s = _fast(forecasts, targets).capacity_per_s
        needed_per_s = min(_HEADROOM * rate_per_s, _MOST_HEADROOM * possible_per_s)
        good = [f for f in forecasts if _in_time(f, targets, _MARGIN_TO_MOVE) and _under_cap(f, targets)]
        return [f for f in good if f.capacity_per_s >= needed_per_s] or good

    def _flee(self, point: OperatingPoint, targets: Targets, trouble: str, *, foreseeable: bool) -> Decision:
        """Go to the fast point at once. Where that is no change, the load is simply too much."""
        clock_mhz = None if point.sm_clock_mhz is None else self._grid.sm_clocks_mhz[-1]
        if not self._forecaster.ready:
            start = OperatingPoint(self._grid.batch_limits[-1], clock_mhz)
            return Decision(start, f"{start}: {trouble}, and no batch seen yet")
        fastest = [OperatingPoint(limit, clock_mhz) for limit in self._grid.batch_limits]
        forecasts = [self._forecaster.at(other, targets) for other in fastest]
        fast = _fast(forecasts, targets)
        if foreseeable and fast.point != point:
            self._forecaster.distrust()
        self._hold = _HOLD_WINDOWS
        return self._decision(fast, forecasts, trouble)

    def _decision(self, chosen: Forecast, rivals: Sequence[Forecast], why: str) -> Decision:
        others = [forecast for forecast in rivals if forecast.point != chosen.point]
        rival = min(others, key=_rank, default=None)
        load = f"{self._forecaster.arrivals.rate_per_s:.0f} images/s"
        against = f"; next best {rival.point}: {rival}" if rival else ""
        return Decision(
            point=chosen.point,
            reason=f"{chosen.point}: {why}; on {load} expects {chosen}{against}",
            predicted_revenue_per_s=chosen.revenue_per_s,
            predicted_p99_ms=chosen.p99_ms,
            predicted_power_w=chosen.power_w,
            runner_up=rival.point if rival else None,
            runner_up_revenue_per_s=rival.revenue_per_s if rival else None,
        )


def _in_time(forecast: Forecast, targets: Targets, margin: float) -> bool:
    """Whether a setting keeps the SLO: the p99 with a margin, and two full batches in a row."""
    return max(forecast.p99_ms / margin, forecast.two_batches_ms) <= targets.slo_p99_ms


def _under_cap(forecast: Forecast, targets: Targets) -> bool:
    power_w, cap_w = forecast.power_w, targets.power_cap_w
    return power_w is None or cap_w is None or power_w <= cap_w


def _last_resort(forecasts: Sequence[Forecast], targets: Targets) -> Forecast:
    """Return the way to the power cap that keeps the SLO, or else the fast point: the SLO goes first."""
    over = [f for f in forecasts if _in_time(f, targets, _MARGIN_TO_MOVE) and not _under_cap(f, targets)]
    return min(over, key=lambda f: f.power_w or 0.0) if over else _fast(forecasts, targets)


def _fast(forecasts: Sequence[Forecast], targets: Targets) -> Forecast:
    """Return the highest throughput with two full batches in a row in the SLO, else the quickest batch."""

    def speed(forecast: Forecast) -> tuple[bool, float]:
        fits = forecast.two_batches_ms <= targets.slo_p99_ms
        return fits, forecast.capacity_per_s if fits else -forecast.two_batches_ms

    return max(forecasts, key=speed)


def _rank(forecast: Forecast) -> tuple[float, float]:
    """Least is best: what costs least, then what has most capacity to spare."""
    return forecast.cost_per_s, -forecast.capacity_per_s
