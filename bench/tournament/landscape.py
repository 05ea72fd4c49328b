"""The revenue of every fixed setting of a cell, coarsely: the ground on which a policy walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.tournament.ground import scenario_of
from bench.tournament.hindsight import Hindsight
from bench.tournament.plan import Settings
from bench.tournament.results import Ground
from optimizer.operating_point import OperatingPoint

LIMITS, CLOCKS = 14, 14


@dataclass(frozen=True, slots=True)
class Landscape:
    """Revenue over that of the best fixed setting; a row a batch limit, a column a clock."""

    batch_limits: Sequence[int]
    sm_clocks_mhz: Sequence[int]
    ratios: Sequence[Sequence[float]]


def survey(ground: Ground, settings: Settings) -> Landscape:
    """Simulate settings across the grid, at the cell's price; close together where batches are small."""
    scenario = scenario_of(ground.cell, settings, ground.targets)
    hindsight, best = Hindsight(scenario), abs(ground.oracle.score.revenue) or 1.0
    limits = _spread(np.geomspace(1, settings.max_batch, LIMITS))
    clocks = scenario.profile.sm_clocks_mhz
    chosen = [clocks[index] for index in _spread(np.linspace(0, len(clocks) - 1, CLOCKS))]
    ratios = [
        [hindsight.worth(OperatingPoint(limit, clock), ground.targets) / best for clock in chosen]
        for limit in limits
    ]
    return Landscape(limits, chosen, ratios)


def _spread(places: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    return sorted({round(place) for place in places.tolist()})
