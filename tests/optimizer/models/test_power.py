from __future__ import annotations

import pytest

from optimizer.models.power import PowerModel

TOP = 1500


def true_w(busy: float, images_per_s: float, clock: int) -> float:
    """A law of the model's kind: idle, awake, clocked and working parts under a floor voltage."""
    share = clock / TOP
    square = (0.84 + 0.16 * max(0.0, (share - 0.64) / 0.36)) ** 2
    return 25 + busy * (35 + 60 * share * square) + 0.02 * images_per_s * square


def test_it_learns_load_and_clock() -> None:
    model = PowerModel(TOP)
    assert not model.ready
    loads = [(0.2, 400), (0.6, 2500), (0.9, 5000), (0.4, 700)]
    for index in range(60):
        (busy, rate), clock = loads[index % 4], (1500, 1200, 800)[index % 3]
        model.observe(true_w(busy, rate, clock), busy, rate, clock)
    for busy, rate, clock in ((0.5, 2000, 1500), (0.8, 3000, 1000), (0.3, 500, 600)):
        assert model.watts(busy, rate, clock) == pytest.approx(true_w(busy, rate, clock), rel=0.05)


def test_after_one_window_it_knows_that_window_and_believes_in_lower_clocks() -> None:
    model = PowerModel(TOP)
    model.observe(200.0, 0.7, 3000, TOP)
    assert model.watts(0.7, 3000, TOP) == pytest.approx(200.0, rel=0.05)
    assert model.watts(0.7, 3000, 900) < 0.95 * 200.0
    assert model.watts(0.35, 1500, TOP) < 0.8 * 200.0


def test_windows_without_power_or_work_say_nothing() -> None:
    model = PowerModel(None)
    for watts, busy, rate in ((0.0, 0.5, 100.0), (50.0, 0.0, 0.0)):
        model.observe(watts, busy, rate, None)
    assert not model.ready
