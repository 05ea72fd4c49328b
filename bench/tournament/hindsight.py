"""The best fixed setting of a cell, under one price or form of the objective after another.

What a setting does, its images and joules, does not depend on what they are worth; so each is simulated once,
and the search of `static_oracle` runs over the same results for every price and form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bench.simulate.fixed_settings import FixedRun, FixedSettings
from bench.simulate.scenario import Scenario
from bench.simulate.search import Trial, best_setting
from bench.tournament.results import Fixed
from bench.tournament.score import Score
from optimizer.operating_point import OperatingPoint
from optimizer.revenue import Outcome, score
from optimizer.targets import Targets


class Hindsight:
    """Simulates fixed settings of one scenario without deadlines, and remembers them.

    Args:
        scenario: its prices and its form do not matter.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._settings = FixedSettings(scenario)
        self._kept: dict[OperatingPoint, FixedRun] = {}

    def targets(self, price_per_1000_images: float) -> Targets:
        """Return the scenario's targets at a price, which a late image costs too."""
        return replace(
            self._scenario.targets,
            price_per_1000_images=price_per_1000_images,
            late_penalty_per_1000_images=price_per_1000_images,
        )

    def keep(self, point: OperatingPoint, targets: Targets) -> Fixed:
        """Return what a setting does that is kept throughout."""
        return Fixed(point, Score.of(self._run(point).account, self._arrived, targets))

    def worth(self, point: OperatingPoint, targets: Targets) -> float:
        """Return the score of a setting by the form of the targets; higher is better."""
        account = self._run(point).account
        outcome = Outcome(
            duration_s=self._scenario.end_s,
            in_time=float(self._arrived - account.images_late),
            late=float(account.images_late),
            joules=account.energy_j,
            latency_ms=account.mean_latency_ms,
        )
        return float(score(targets, outcome).total)

    def best(self, targets: Targets) -> OperatingPoint:
        """Search the whole grid for the setting that is worth the most."""

        def trials(points: list[OperatingPoint]) -> Iterable[Trial]:
            return (self._trial(point, targets) for point in points)

        return best_setting(self._scenario.max_batch, self._scenario.profile.sm_clocks_mhz, trials)

    @property
    def _arrived(self) -> int:
        return int(self._scenario.arrivals_s.size)

    def _trial(self, point: OperatingPoint, targets: Targets) -> Trial:
        return Trial((0.0, self.worth(point, targets)), self._run(point).largest_batch)

    def _run(self, point: OperatingPoint) -> FixedRun:
        if point not in self._kept:
            self._kept[point] = self._settings.serve(point)
        return self._kept[point]
