from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.arrivals import arrivals_of, load_trace, poisson_times, sizes_of, split_images
from bench.load.plan import Closed, LoadPlan, Poisson, Trace
from server.client.endpoint import Endpoint
from server.errors import ConfigError

PLAN = LoadPlan(endpoint=Endpoint("h:1"), model="net", arrivals=Poisson(100.0), warmup_s=1.0, duration_s=9.0)


def trace(*arrivals: tuple[float, int]) -> Trace:
    return Trace(Path("t.csv"), arrivals)


def test_poisson_times_ascend_and_end_at_the_horizon() -> None:
    times = list(poisson_times(1000.0, 20.0, (1,)))

    assert times == sorted(times)
    assert times[0] > 0.0
    assert 19.9 < times[-1] < 20.0


def test_poisson_gaps_have_the_mean_and_the_spread_of_an_exponential() -> None:
    times = list(poisson_times(500.0, 100.0, (7,)))  # one fixed seed, 50,000 gaps

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 500.0, rel=0.02)
    assert deviation == pytest.approx(mean, rel=0.02)


def test_a_seed_gives_the_same_times_again_and_another_gives_others() -> None:
    assert list(poisson_times(50.0, 5.0, (3,))) == list(poisson_times(50.0, 5.0, (3,)))
    assert list(poisson_times(50.0, 5.0, (3,))) != list(poisson_times(50.0, 5.0, (4,)))


def test_processes_share_the_rate_and_none_repeats_another() -> None:
    plan = replace(PLAN, arrivals=Poisson(1000.0), processes=4)

    shares = [[time_s for time_s, _ in arrivals_of(plan, index, 16)] for index in range(4)]

    assert sum(map(len, shares)) == pytest.approx(10_000, rel=0.05)
    assert len({time_s for share in shares for time_s in share}) == sum(map(len, shares))


def test_poisson_requests_carry_the_batch() -> None:
    assert {images for _, images in arrivals_of(replace(PLAN, batch=4), 0, 16)} == {4}
    assert {images for _, images in arrivals_of(PLAN, 0, 16)} == {1}


@given(st.integers(1, 1000), st.integers(1, 64))
def test_splitting_loses_no_image_and_keeps_the_limit(images: int, most: int) -> None:
    parts = list(split_images(images, most))

    assert sum(parts) == images
    assert all(0 < part <= most for part in parts)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 40)), min_size=1), st.integers(1, 5))
def test_a_trace_is_dealt_to_processes_without_loss(
    arrivals: list[tuple[float, int]], processes: int
) -> None:
    plan = replace(PLAN, arrivals=trace(*sorted(arrivals)), processes=processes)

    dealt = [each for index in range(processes) for each in arrivals_of(plan, index, 16)]

    assert sum(images for _, images in dealt) == sum(images for _, images in arrivals)
    assert {time_s for time_s, _ in dealt} == {time_s for time_s, _ in arrivals}


def test_a_trace_ends_with_the_run() -> None:
    plan = replace(PLAN, arrivals=trace((0.0, 1), (10.0, 2), (10.5, 3)))

    assert list(arrivals_of(plan, 0, 16)) == [(0.0, 1), (10.0, 2)]


def test_sizes_are_those_that_requests_will_have() -> None:
    assert sizes_of(PLAN, 16) == (1,)
    assert sizes_of(replace(PLAN, batch=8), 8) == (8,)
    assert sizes_of(replace(PLAN, arrivals=trace((0.0, 3), (1.0, 20))), 16) == (3, 4, 16)


def test_a_closed_loop_has_no_times() -> None:
    with pytest.raises(ValueError, match="closed loop"):
        arrivals_of(replace(PLAN, arrivals=Closed(1)), 0, 1)


def test_a_trace_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("images,time_s\n2,0\n0,0.5\n1,0.75\n")

    assert load_trace(path).arrivals == ((0.0, 2), (0.75, 1))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must start with the line time_s,images"),
        ("when,count\n1,2\n", "must start with the line time_s,images"),
        ("time_s,images\n", "holds no arrivals"),
        ("time_s,images\n1,x\n", "line 2: expected a time in seconds"),
        ("time_s,images\n1\n", "line 2: expected a time in seconds"),
        ("time_s,images\n0,1\n-1,2\n", "line 3: time and images must be 0 or more"),
        ("time_s,images\nnan,1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\ninf,1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n0,-1\n", "line 2: time and images must be 0 or more"),
        ("time_s,images\n2,1\n1,1\n", "line 3: time 1 is before 2"),
    ],
)
def test_a_faulty_trace_names_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    with pytest.raises(ConfigError, match=complaint):
        load_trace(path)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trace .*absent\.csv cannot be read"):
        load_trace(tmp_path / "absent.csv")
