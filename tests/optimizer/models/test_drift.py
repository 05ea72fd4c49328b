from __future__ import annotations

from collections.abc import Iterable

import pytest

from optimizer.models.drift import DriftDetector


def first_found(errors: Iterable[float], clock_mhz: int | None = 1000) -> int | None:
    """Return after how many windows the machine was found to have changed."""
    detector = DriftDetector()
    return next((n for n, error in enumerate(errors, 1) if detector.observe(error, clock_mhz)), None)


@pytest.mark.parametrize("error", [0.4, -0.25])
def test_batches_that_take_other_times_for_good_mean_another_machine(error: float) -> None:
    found = first_found([error] * 20)
    assert found is not None
    assert 2 <= found <= 6, "neither by one window nor after long"


def test_neither_small_errors_nor_single_large_ones_do() -> None:
    assert first_found([0.08, -0.08, 0.1] * 50) is None
    assert first_found(([0.3] + [0.0] * 9) * 20) is None


def test_errors_count_only_at_a_clock_that_stays() -> None:
    detector = DriftDetector()
    assert not any(detector.observe(0.5, 1000 + 15 * (n // 3)) for n in range(60))


def test_at_clocks_where_it_was_measured_they_count_wherever_it_goes() -> None:
    detector = DriftDetector()
    assert any(detector.observe(0.5, 1000 + 15 * n, familiar=True) for n in range(6))


def test_it_begins_anew_after_each_finding() -> None:
    detector = DriftDetector()
    found = [detector.observe(0.5, None) for _ in range(12)]
    assert found.index(True) == 3
    assert not found[4], "one finding is said once"
    assert sum(found) == 3, "and again while the errors stay"
    assert detector.found == found[-1]


def test_a_surprise_at_a_clock_that_had_stayed_is_remembered_when_it_is_left() -> None:
    detector = DriftDetector()
    assert not any(detector.observe(error, 900) for error in [0.0] * 10 + [0.35])
    assert detector.observe(0.3, 1500)
    calm = DriftDetector()
    assert not any(calm.observe(0.0, 900) for _ in range(10))
    assert not any(calm.observe(0.3, 1500) for _ in range(3)), "the model's error at a clock that is new"
