from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from optimizer.models.batch_time import BatchTimeModel
from optimizer.telemetry import BatchTimes

TOP = 1500


def true_s(batch: int, clock: int) -> float:
    return 0.001 + 0.0002 * batch + (0.0015 + 0.0001 * batch) * TOP / clock


def batches(clock: int, sizes: tuple[int, ...], noise: float = 0.0, seed: int = 0) -> dict[int, BatchTimes]:
    random = Random(seed)
    return {size: BatchTimes(5, 5 * true_s(size, clock) * random.gauss(1.0, noise)) for size in sizes}


def test_it_learns_batch_and_clock_from_noisy_windows() -> None:
    model = BatchTimeModel(TOP)
    for index in range(60):
        clock = (1500, 1200, 900)[index % 3]
        model.observe(batches(clock, (1, 3, 8, 20), noise=0.02, seed=index), clock)
    for batch, clock in ((1, 1500), (16, 1000), (32, 750)):
        assert model.batch_s(batch, clock) == pytest.approx(true_s(batch, clock), rel=0.05)


def test_before_clocks_vary_it_believes_that_lower_is_slower() -> None:
    model = BatchTimeModel(TOP)
    assert not model.ready
    model.observe(batches(TOP, (1, 8)), TOP)
    assert model.ready
    assert model.batch_s(4, TOP) == pytest.approx(true_s(4, TOP), rel=0.05)
    slowdown = model.batch_s(4, TOP // 2) / model.batch_s(4, TOP)
    assert 1.3 < slowdown < 2.0


def test_one_batch_size_is_enough_to_start() -> None:
    model = BatchTimeModel(None)
    model.observe({8: BatchTimes(10, 0.4)}, None)
    assert model.batch_s(8, None) == pytest.approx(0.04, rel=0.01)
    assert model.batch_s(1, None) < model.batch_s(16, None) < 0.08


def test_it_forgets_what_no_longer_holds() -> None:
    model = BatchTimeModel(None)
    for seconds in [0.01] * 50 + [0.03] * 100:
        model.observe({1: BatchTimes(1, seconds), 4: BatchTimes(1, 2 * seconds)}, None)
    assert model.batch_s(4, None) == pytest.approx(0.06, rel=0.05)


def test_nothing_to_see_changes_nothing() -> None:
    model = BatchTimeModel(TOP)
    model.observe({}, TOP)
    model.observe({4: BatchTimes(0, 0.0)}, TOP)
    assert not model.ready


def taught() -> BatchTimeModel:
    model = BatchTimeModel(TOP)
    for index in range(30):
        clock = (1500, 1200, 900)[index % 3]
        model.observe(batches(clock, (1, 3, 8, 20)), clock)
    return model


def test_many_settings_at_once_take_what_each_takes() -> None:
    sizes, clocks = np.array([1.0, 5.0, 64.0]), np.array([600.0, 1000.0, 1500.0])
    table = taught().batch_s(sizes[:, None], clocks)
    assert table.shape == (3, 3)
    for row, size in enumerate(sizes):
        for column, clock in enumerate(clocks):
            assert table[row, column] == pytest.approx(taught().batch_s(size, clock))


def test_without_clocks_any_clock_will_do() -> None:
    model = BatchTimeModel(None)
    model.observe({8: BatchTimes(10, 0.4), 2: BatchTimes(10, 0.2)}, None)
    column = model.batch_s(np.array([[2.0], [8.0]]), np.array([1.0]))
    assert column[:, 0].tolist() == [model.batch_s(2, None), model.batch_s(8, None)]
    assert column.shape == (2, 1)


def test_what_was_learned_survives_json() -> None:
    restored = BatchTimeModel(TOP)
    restored.import_state(json.loads(json.dumps(taught().export_state())))
    assert restored.ready
    for model in (restored, original := taught()):
        model.observe(batches(1000, (4,), noise=0.1), 1000)
    assert restored.batch_s(4, 800) == original.batch_s(4, 800)


def test_what_is_doubted_gives_way_at_once() -> None:
    doubted, sure = taught(), taught()
    doubted.forget(0.001)
    slower = {8: BatchTimes(8, 8 * 1.4 * true_s(8, 1500))}
    for model in (doubted, sure):
        model.observe(slower, 1500)
    assert doubted.batch_s(8, 1500) > 1.3 * true_s(8, 1500)
    assert sure.batch_s(8, 1500) < 1.15 * true_s(8, 1500)
