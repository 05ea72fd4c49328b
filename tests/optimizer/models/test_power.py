from __future__ import annotations

import json
from typing import Any

import numpy as np
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


def taught() -> PowerModel:
    model = PowerModel(TOP)
    for index in range(60):
        (busy, rate), clock = ((0.2, 400), (0.6, 2500), (0.9, 5000))[index % 3], (1500, 1200, 800)[index % 3]
        model.observe(true_w(busy, rate, clock), busy, rate, clock)
    return model


def test_idle_windows_teach_the_idle_power_and_nothing_about_work() -> None:
    model = PowerModel(TOP)
    model.observe(200.0, 0.7, 3000, TOP)
    for _ in range(200):
        model.observe(25.0, 0.0, 0.0, TOP)
    assert model.idle_w == pytest.approx(25.0, rel=0.02)
    assert model.watts(0.0, 0.0, TOP) == model.idle_w
    assert model.watts(0.7, 3000, TOP) > 150.0


def test_many_settings_at_once_draw_what_each_draws() -> None:
    model = taught()
    sizes, clocks = np.array([1.0, 8.0, 64.0]), np.array([600.0, 1000.0, 1500.0])
    times_s = np.add.outer(0.002 + 0.0002 * sizes, np.array([0.003, 0.001, 0.0]))
    table = model.running_w(sizes[:, None], times_s, clocks)
    assert table.shape == (3, 3)
    for row, size in enumerate(sizes):
        for column, clock in enumerate(clocks):
            assert table[row, column] == pytest.approx(model.running_w(size, times_s[row, column], clock))


def test_without_clocks_any_clock_will_do() -> None:
    model = PowerModel(None)
    model.observe(200.0, 0.7, 3000, None)
    sizes, times_s = np.array([[1.0], [8.0]]), np.array([[0.002], [0.004]])
    column = model.running_w(sizes, times_s, np.array([1.0]))
    assert column[:, 0].tolist() == [model.running_w(1, 0.002, None), model.running_w(8, 0.004, None)]


def test_a_running_batch_draws_what_a_busy_second_does() -> None:
    model = taught()
    always_w = model.watts(1.0, 8 / 0.004, 1200)
    assert model.idle_w + model.running_w(8, 0.004, 1200) == pytest.approx(always_w)


def test_what_was_learned_survives_json() -> None:
    restored, original = PowerModel(TOP), taught()
    restored.import_state(json.loads(json.dumps(original.export_state())))
    assert restored.ready
    for model in (restored, original):
        model.observe(170.0, 0.5, 2000, 1000)
    assert restored.watts(0.4, 1000, 700) == original.watts(0.4, 1000, 700)


@pytest.mark.parametrize(
    "damage",
    [
        {"theta": [1.0, 2.0]},
        {"theta": [1.0, 2.0, 3.0, -1.0]},
        {"theta": [1.0, 2.0, 3.0, float("nan")]},
        {"theta": ["a", 2.0, 3.0, 4.0]},
        {"last": [1.0]},
        {"last": None},
        {"fit": {"gram": [[1.0]], "moment": [1.0]}},
        {"fit": {}},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage: dict[str, Any]) -> None:
    model = taught()
    with pytest.raises((ValueError, KeyError, TypeError)):
        model.import_state({**taught().export_state(), **damage})
    assert model.watts(0.4, 1000, 700) == taught().watts(0.4, 1000, 700)
    assert model.export_state() == taught().export_state()
