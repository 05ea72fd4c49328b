from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from optimizer.operating_point import OperatingGrid, OperatingPoint
from optimizer.policies.candidates import candidates

axes = st.lists(st.integers(1, 2000), min_size=1, max_size=200, unique=True).map(
    lambda axis: tuple(sorted(axis))
)


@given(axes, axes, st.data())
def test_candidates_are_legal_bounded_and_include_the_present(
    limits: tuple[int, ...], clocks: tuple[int, ...], data: st.DataObject
) -> None:
    grid = OperatingGrid(limits, clocks)
    here = OperatingPoint(data.draw(st.sampled_from(limits)), data.draw(st.sampled_from(clocks)))
    found = candidates(grid, here)
    assert here in found
    assert all(point in grid for point in found)
    assert len(set(found)) == len(found)
    assert any(point.sm_clock_mhz == clocks[-1] for point in found), "the way up is always open"
    lower = [clock for clock in clocks if clock < here.sm_clock_mhz]
    if lower:
        lowest = min(point.sm_clock_mhz for point in found)
        assert lowest < here.sm_clock_mhz, "there is always a step down"
        assert lowest >= min(0.8 * here.sm_clock_mhz, lower[-1])
    larger = [limit for limit in limits if limit > here.batch_limit]
    assert max(point.batch_limit for point in found) == (larger[0] if larger else here.batch_limit)


def test_without_a_clock_only_batch_limits_vary() -> None:
    grid = OperatingGrid((1, 2, 4, 8), (500, 1000))
    assert candidates(grid, OperatingPoint(2)) == [OperatingPoint(1), OperatingPoint(2), OperatingPoint(4)]
