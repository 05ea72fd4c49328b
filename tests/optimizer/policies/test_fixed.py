from __future__ import annotations

import pytest

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.fixed import fixed
from optimizer.revenue import Targets
from optimizer.telemetry import Traffic, Window


@pytest.mark.parametrize("clocks", [(), (500, 1000)])
@pytest.mark.parametrize("late", [0, 100])
def test_it_keeps_the_default_whatever_happens(clocks: tuple[int, ...], late: int) -> None:
    grid = OperatingGrid((1, 2, 8), clocks)
    elsewhere = OperatingPoint(1, clocks[0] if clocks else None)
    window = Window(0.0, 1.0, elsewhere, Traffic(arrived=100, completed=100, late=late))
    assert fixed(grid).decide(window, Targets()).point == grid.default
