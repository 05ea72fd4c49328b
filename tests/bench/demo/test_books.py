from __future__ import annotations

import pytest

from bench.demo.books import Books, batch_limits, clocks_mhz, loaded
from protos import boulton_pb2 as pb


def _decision(
    arrived: int = 10, *, limit: int = 4, clock: int | None = None, joules: float | None = 5.0
) -> pb.Decision:
    window = pb.Window(
        duration_s=1.0,
        point=pb.OperatingPoint(batch_limit=limit, sm_clock_mhz=clock),
        arrived=arrived,
        completed=arrived,
        late=arrived // 10,
        refused=1,
        expired=2,
        energy_j=joules,
        energy_source="simulated" if joules else "not-measured",
    )
    return pb.Decision(window=window, revenue=pb.Revenue(income=3.0, penalty=1.0, energy_cost=joules and 0.5))


def test_windows_before_and_after_the_load_are_left_out_but_not_a_pause_in_it() -> None:
    decisions = [_decision(arrived) for arrived in (0, 0, 5, 0, 7, 0)]
    assert [decision.window.arrived for decision in loaded(decisions)] == [5, 0, 7]
    assert loaded([_decision(0)]) == []


def test_books_add_up() -> None:
    books = Books.of([_decision(0), _decision(10), _decision(20), _decision(0)])
    assert (books.seconds, books.arrived, books.in_time, books.late) == (2.0, 30, 27, 9)
    assert (books.sales, books.joules, books.energy_cost) == (4.0, 10.0, 1.0)
    assert books.watts == 5.0
    assert books.energy_source == "simulated"
    assert books.revenue_per_hour(load_s=2.0) == pytest.approx(3600 * (4.0 / 2 - 1.0 / 2))


def test_energy_that_was_not_measured_everywhere_is_not_reported() -> None:
    books = Books.of([_decision(10), _decision(10, joules=None)])
    assert books.joules is None
    assert books.watts is None
    assert books.energy_cost == 0.0


def test_the_course_of_the_settings_has_no_repetitions() -> None:
    decisions = [
        _decision(limit=limit, clock=clock)
        for limit, clock in ((64, 1530), (64, 1260), (8, 1260), (64, 1260))
    ]
    assert batch_limits(decisions) == [64, 8, 64]
    assert clocks_mhz(decisions) == [1530, 1260]
    assert clocks_mhz([_decision()]) == []
