from __future__ import annotations

import pytest

from bench.demo.pace import LEAST_PHASE_S, LIMIT_S, PHASE_S, Pace


def test_a_quiet_machine_has_time_for_the_whole_loads() -> None:
    pace = Pace(export_s=20.0)
    assert pace.phase_s(elapsed_s=20.0, phases=6) == PHASE_S
    assert pace.phase_s(elapsed_s=70.0, phases=4) == PHASE_S
    assert pace.said(PHASE_S) == ""


def test_a_busy_machine_has_shorter_loads_and_is_told() -> None:
    pace = Pace(export_s=130.0)
    phase_s = pace.phase_s(elapsed_s=130.0, phases=6)
    assert LEAST_PHASE_S < phase_s < PHASE_S
    assert 130.0 + 6 * phase_s + 50.0 <= LIMIT_S
    said = f"Each load lasts {phase_s:g} s instead of 18 s, for the demo to end within 5 minutes"
    assert pace.said(phase_s) == f"This machine is slow or busy: the export took 130 s. {said}"


@pytest.mark.parametrize("elapsed_s", [200.0, 1000.0])
def test_loads_are_never_too_short_to_show_anything_and_no_promise_is_made_then(elapsed_s: float) -> None:
    pace = Pace(export_s=elapsed_s)
    assert pace.phase_s(elapsed_s, 4) == LEAST_PHASE_S
    assert pace.said(LEAST_PHASE_S).endswith("the demo may take more than 5 minutes all the same")


def test_time_lost_since_is_taken_from_the_loads_to_come() -> None:
    pace = Pace(export_s=100.0)
    early, late = pace.phase_s(elapsed_s=180.0, phases=4), pace.phase_s(elapsed_s=200.0, phases=4)
    assert late < early <= PHASE_S


def test_a_length_that_was_asked_for_is_kept() -> None:
    pace = Pace(export_s=500.0, asked_s=40.0)
    assert pace.phase_s(elapsed_s=500.0, phases=6) == 40.0
    assert pace.said(40.0) == ""
