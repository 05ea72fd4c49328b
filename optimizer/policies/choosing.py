"""What can be chosen on a landscape, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optimizer.policies.landscape import Landscape

_MOST, _PERHAPS_MOST = "earns the most", "may earn the most, and is hardly known"
_HELD = "saves the next surge from being late"
_WORTH_MOVING, _PATIENCE = 0.01, 15.0
"""The gain a change of clock must promise at once; after so many calm windows half of it is enough."""
_WORTH_TRYING = 0.02
"""The gain that a clock must promise to be tried where much is hoped for."""
_UNSEEN = 0.002
"""The share of all that could be earned that a clock must promise to be tried below the one needed of late.

Surges come that never came; where images are worth far more than energy they cost more than trying teaches.
"""
_REST_MARGIN = 1.25
"""What a clock can serve where it never ran is a guess, and at rest a higher clock costs next to nothing."""
_MUCH_LOWER = 0.75
"""As the traffic of before is forgotten, lower clocks would do: it goes there in few steps, not in many."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting on a landscape, and why."""

    row: int
    column: int
    why: str


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen now.

    Args:
        land: every setting scored.
        column: the present clock.
        strong: the clock that held the highest load of late, or a lower one that will; or the fast one.
        surges_per_window: how often the load rises.
        curiosity: the share of a cost that may be taken off for what is unknown.
        calm: windows since the last alarm, surge or change of clock.
    """

    land: Landscape
    column: int
    strong: int
    surges_per_window: float
    curiosity: float
    calm: int

    def best(self) -> Choice:
        """Return the setting that earns the most; at the present clock, unless another earns clearly more."""
        land, column = self.land, self.column
        promising = land.most_promising(self.curiosity)
        row, best = self._held_through(*promising)
        why = _HELD if best != promising[1] else _MOST if best == land.best()[1] else _PERHAPS_MOST
        here = land.best_at(column)
        here_cost, cost = land.cost_per_s(*here), land.cost_per_s(row, best)
        if best == column:
            return Choice(row, best, why)
        enough = _WORTH_MOVING / (1.0 + self.calm / _PATIENCE) * abs(here_cost)
        if math.isinf(here_cost) or here_cost - cost > enough:
            return Choice(row, best, why)
        if land.hopes:
            enough = max(enough, _WORTH_TRYING * abs(here_cost))
        if here_cost - land.least_cost_per_s(best, self.curiosity) > enough:
            return Choice(row, best, "may earn more, and was never tried")
        return Choice(*here, "no other clock earns clearly more")

    def _held_through(self, row: int, column: int) -> tuple[int, int]:
        """Return this setting, or that for the next surge where the lower clock saves less than surges cost.

        Each surge that finds the clock too low costs about a window at the fast point.
        """
        land = self.land
        if not column < self.strong < land.fast_column:
            return row, column
        held = land.best_at(self.strong)
        at_fast = land.revenue_per_s(land.greedy_row(land.fast_column), land.fast_column)
        a_surge = land.revenue_per_s(*held) - at_fast
        risk, held_cost = self.surges_per_window * max(0.0, a_surge), land.cost_per_s(*held)
        pays = land.cost_per_s(row, column) + risk <= held_cost
        hoped = land.least_cost_per_s(column, self.curiosity) + _UNSEEN * land.most_per_s
        return (row, column) if pays or hoped + risk <= held_cost else held

    def here(self, why: str) -> Choice:
        """Return the best at the present clock."""
        return Choice(self.land.best_row(self.column), self.column, why)

    def fast(self, why: str) -> Choice:
        """Return the fast point."""
        land, column = self.land, self.land.fast_column
        return Choice(land.greedy_row(column) if land.holds(column) else 0, column, why)

    def refuge(self, why: str, *, relieved: bool) -> Choice:
        """Return the clock that is known to hold such a load, if no more is wrong; else the fast point."""
        land, column = self.land, self.strong
        usable = column < land.fast_column and land.holds(column)
        return Choice(land.greedy_row(column), column, why) if relieved and usable else self.fast(why)

    def resting(self, peak_rate_per_s: float, *, already: bool) -> Choice:
        """Return the lowest clock that could take up the traffic of before, should it come back.

        Args:
            peak_rate_per_s: that traffic, in images.
            already: whether it rests already; then only a much lower clock is worth going to.
        """
        land, column = self.land, self.column
        clocks_mhz = land.clocks_mhz or (1,)
        needed = _REST_MARGIN * peak_rate_per_s
        enough = [
            at
            for at in range(len(clocks_mhz))
            if land.capacity_per_s(at) >= needed and land.rests_in_time(at)
        ]
        lowest = enough[0] if enough else column
        hardly_lower = clocks_mhz[lowest] > _MUCH_LOWER * clocks_mhz[column]
        stays = already and column in enough and hardly_lower
        return Choice(0, column if stays else lowest, "nothing arrives")
