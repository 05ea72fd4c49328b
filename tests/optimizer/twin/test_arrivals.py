from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from optimizer.settings_table import SettingsError
from optimizer.twin.arrivals import Times, diurnal, flash_crowd, load_trace, mmpp, poisson, steps

Make = Callable[[int], Times]

MAKERS: dict[str, Make] = {
    "poisson": lambda seed: poisson(200.0, 50.0, seed=seed),
    "steps": lambda seed: steps([(20.0, 300.0), (30.0, 100.0)], seed=seed),
    "diurnal": lambda seed: diurnal(200.0, 0.8, 25.0, 50.0, seed=seed),
    "mmpp": lambda seed: mmpp((100.0, 500.0), (3.0, 1.0), 50.0, seed=seed),
    "flash crowd": lambda seed: flash_crowd(100.0, 800.0, 20.0, 2.0, 5.0, 8.0, 50.0, seed=seed),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_times_ascend_within_the_duration_and_repeat_by_seed(make: Make) -> None:
    times_s = make(1)
    assert times_s.dtype == np.float64
    assert (np.diff(times_s) >= 0.0).all()
    assert times_s[0] >= 0.0
    assert times_s[-1] <= 50.0
    assert np.array_equal(times_s, make(1))
    assert not np.array_equal(times_s, make(2))


def between(times_s: Times, start_s: float, end_s: float) -> int:
    return int(((times_s >= start_s) & (times_s < end_s)).sum())


def test_poisson_counts_have_the_variance_of_their_mean() -> None:
    times_s = poisson(100.0, 1000.0, seed=4)
    counts = np.histogram(times_s, bins=1000, range=(0.0, 1000.0))[0]
    assert counts.mean() == pytest.approx(100.0, rel=0.02)
    assert counts.var() == pytest.approx(100.0, rel=0.15)
    assert poisson(0.0, 10.0).size == 0


def test_steps_follow_each_other() -> None:
    times_s = steps([(10.0, 100.0), (5.0, 0.0), (10.0, 400.0)], seed=3)
    assert between(times_s, 0.0, 10.0) == pytest.approx(1000, rel=0.1)
    assert between(times_s, 10.0, 15.0) == 0
    assert between(times_s, 15.0, 25.0) == pytest.approx(4000, rel=0.1)


def test_a_day_starts_at_its_lowest_and_keeps_its_mean() -> None:
    times_s = diurnal(500.0, 0.9, 40.0, 40.0, seed=3)
    assert times_s.size == pytest.approx(20_000, rel=0.05)
    assert between(times_s, 0.0, 2.0) < 0.2 * between(times_s, 19.0, 21.0)


def test_bursts_are_burstier_than_poisson_at_the_mean_of_their_stays() -> None:
    times_s = mmpp((100.0, 1000.0), (4.0, 1.0), 2000.0, seed=5)
    counts = np.histogram(times_s, bins=2000, range=(0.0, 2000.0))[0]
    assert counts.mean() == pytest.approx((4 * 100 + 1 * 1000) / 5, rel=0.15)
    assert counts.var() / counts.mean() > 50.0


def test_a_crowd_comes_stays_and_leaves() -> None:
    times_s = flash_crowd(100.0, 1000.0, 20.0, 2.0, 10.0, 4.0, 50.0, seed=6)
    assert between(times_s, 0.0, 20.0) == pytest.approx(2000, rel=0.1)
    assert between(times_s, 20.0, 22.0) == pytest.approx(1100, rel=0.15)
    assert between(times_s, 22.0, 32.0) == pytest.approx(10_000, rel=0.1)
    assert between(times_s, 36.0, 50.0) == pytest.approx(1400, rel=0.15)


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_images_of_a_trace_arrive_at_once_in_any_order_of_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "images, time_s,note\n2,0.5,a\n0,1,b\n\n1,1,c\n")
    assert load_trace(path).tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("time_s,images\n2,1\n1,1\n", "time 1 comes after 2"),
        ("time_s,images\n-1,1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n1,-1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n1,1.5\n", "line 2: expected a time in seconds and a number of images, got 1,1.5"),
        ("time_s,images\n1\n", "line 2: expected"),
        ("time_s,images\nnan,1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n1,0\n", "0 images arrive; expected 1 to"),
        ("time_s,images\n", "0 images arrive"),
        ("", "must start with the line time_s,images"),
        ("when,images\n1,1\n", "must start with the line time_s,images"),
        ("time_s,images\n1,30000000\n", "30,000,000 images arrive"),
    ],
)
def test_an_unusable_trace_is_refused_with_its_fault(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=r"trace\.csv") as refused:
        load_trace(written(tmp_path, text))
    assert complaint in str(refused.value)


def test_a_trace_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00time")
    with pytest.raises(SettingsError, match="not a CSV file"):
        load_trace(tmp_path / "binary.csv")
