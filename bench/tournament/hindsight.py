"""The best fixed setting of a cell, under one price after another.

What a setting does, its images and joules, does not depend on the price; so each is simulated once, and the
search of `static_oracle` runs over the same results for every price.
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
from optimizer.targets import Targets


class Hindsight:
    """Simulates fixed settings of one scenario without deadlines, and remembers them.

    Args:
        scenario: of the form `profit`; its prices do not matter.
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

    def keep(self, point: OperatingPoint, price_per_1000_images: float) -> Fixed:
        """Return what a setting does that is kept throughout."""
        account, arrived = self._run(point).account, self._scenario.arrivals_s.size
        return Fixed(point, Score.of(account, arrived, self.targets(price_per_1000_images)))

    def best(self, price_per_1000_images: float) -> Fixed:
        """Search the whole grid for the setting that earns the most under a price."""

        def trials(points: list[OperatingPoint]) -> Iterable[Trial]:
            return (self._trial(point, price_per_1000_images) for point in points)

        clocks_mhz = self._scenario.profile.sm_clocks_mhz
        point = best_setting(self._scenario.max_batch, clocks_mhz, trials)
        return self.keep(point, price_per_1000_images)

    def _trial(self, point: OperatingPoint, price: float) -> Trial:
        revenue = self.keep(point, price).score.revenue
        return Trial((0.0, revenue), self._run(point).largest_batch)

    def _run(self, point: OperatingPoint) -> FixedRun:
        if point not in self._kept:
            self._kept[point] = self._settings.serve(point)
        return self._kept[point]
