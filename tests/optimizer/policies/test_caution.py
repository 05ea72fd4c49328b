"""How much of the SLO is used."""

from __future__ import annotations

import pytest

from optimizer.operating_point import OperatingPoint
from optimizer.policies.caution import Caution
from optimizer.revenue import Targets
from optimizer.telemetry import Traffic, Window

SLO_MS = 10.0
TARGETS = Targets(slo_p99_ms=SLO_MS)


def window(late: int, *, p99_ms: float = 9.5, completed: int = 2000, queued: int = 0) -> Window:
    traffic = Traffic(arrived=completed, completed=completed, late=late, latency_p99_ms=p99_ms, queued=queued)
    return Window(0.0, 1.0, OperatingPoint(8, None), traffic)


def after(
    late: int,
    windows: int,
    *,
    expected_ms: float | None = 9.6,
    p99_ms: float = 9.6,
    surged: bool = False,
    bound: bool = True,
) -> Caution:
    """Return a caution that saw so many windows alike."""
    caution = Caution()
    for _ in range(windows):
        seen = window(late, p99_ms=p99_ms)
        caution.count(seen)
        caution.observe(seen, TARGETS, expected_ms, surged=surged, slo_bound=bound)
    return caution


def slo_share(caution: Caution) -> float:
    return caution.margins(0.0).slo_share


def test_late_answers_where_nothing_keeps_the_slo_are_no_reason_for_more_caution() -> None:
    caution, cautious = Caution(), after(100, 3)
    for one in (caution, cautious):
        before = slo_share(one)
        for _ in range(20):
            seen = window(100, p99_ms=9.6)
            one.count(seen)
            one.observe(seen, TARGETS, 9.6, surged=False, slo_bound=False, hopeless=True)
        assert slo_share(one) == before


def test_few_late_answers_take_caution_back_even_where_nothing_was_expected_to_keep_the_slo() -> None:
    caution = after(100, 3)
    before = slo_share(caution)
    for _ in range(500):
        seen = window(0, p99_ms=9.6)
        caution.count(seen)
        caution.observe(seen, TARGETS, 9.6, surged=False, slo_bound=False, hopeless=True)
    assert before < slo_share(caution) <= slo_share(Caution())


def test_where_the_slo_binds_few_late_answers_let_more_of_the_slo_be_used_up_to_a_bound() -> None:
    first, later = slo_share(Caution()), slo_share(after(0, 5))
    assert later > first
    assert slo_share(after(0, 500)) <= 1.15


def test_where_it_does_not_bind_or_latencies_reach_it_calm_changes_nothing() -> None:
    assert slo_share(after(0, 50, bound=False)) == slo_share(Caution())
    assert slo_share(after(0, 50, p99_ms=9.95)) == slo_share(Caution())


@pytest.mark.parametrize("late", [40, 100, 2000])
def test_too_many_late_answers_leave_more_of_it_free_the_more_the_more(late: int) -> None:
    caution, worse = after(late, 3), after(late + 20, 3)
    assert slo_share(caution) < slo_share(Caution())
    assert slo_share(worse) <= slo_share(caution)
    assert slo_share(after(late, 1000)) >= 0.5


def test_calm_gives_back_what_late_answers_took_and_no_more() -> None:
    caution = after(200, 5)
    for _ in range(400):
        seen = window(0, p99_ms=4.0)
        caution.count(seen)
        caution.observe(seen, TARGETS, 4.0, surged=False, slo_bound=False)
    assert slo_share(caution) == pytest.approx(slo_share(Caution()))


def test_late_answers_that_were_no_evidence_count_against_the_budget_all_the_same() -> None:
    spent, calm = Caution(), Caution()
    spent.count(window(1000))
    for caution in (spent, calm):
        seen = window(0)
        caution.count(seen)
        caution.observe(seen, TARGETS, 9.6, surged=False, slo_bound=True)
    assert slo_share(spent) < slo_share(calm)


def test_a_surge_teaches_nothing() -> None:
    caution = after(1500, 5, surged=True, p99_ms=100.0)
    assert caution.margins(7.0) == Caution().margins(7.0)


def test_latency_beyond_the_expected_is_learned_and_less_of_it_than_a_little_is_not_trusted() -> None:
    assert after(0, 200, expected_ms=9.6, p99_ms=11.0).margins(0.0).overhead_ms > 1.0
    assert -0.05 * SLO_MS < after(0, 200, expected_ms=9.6, p99_ms=2.0).margins(0.0).overhead_ms < 0.0


def test_latency_beyond_the_slo_is_believed_sooner_than_latency_within_it() -> None:
    within = after(0, 1, expected_ms=5.0, p99_ms=9.9).overhead_ms / 4.9
    beyond = after(0, 1, expected_ms=9.0, p99_ms=13.9).overhead_ms / 4.9
    assert 0.0 < 2.0 * within < beyond


def test_a_queue_that_has_piled_up_says_nothing_of_the_overhead() -> None:
    caution = Caution()
    caution.observe(window(0, p99_ms=90.0, queued=100), TARGETS, 9.6, surged=False, slo_bound=True)
    assert caution.margins(0.0).overhead_ms == 0.0


def test_the_more_answers_there_were_the_nearer_to_what_is_allowed_it_aims() -> None:
    def used(images: int, late_share: float) -> float:
        caution = Caution()
        for _ in range(60):
            seen = window(round(late_share * images), completed=images, p99_ms=9.5)
            caution.count(seen)
            caution.observe(seen, TARGETS, None, surged=False, slo_bound=True)
        return slo_share(caution)

    assert used(50_000, 0.007) > used(500, 0.007)
    assert used(50_000, 0.0105) < slo_share(Caution()), "more than allowed is too much for all"


def test_late_answers_that_come_together_leave_less_to_aim_at() -> None:
    def used(together: int) -> float:
        caution = Caution()
        for at in range(60):
            seen = window(together * 60 if at % together == 0 else 0, completed=12_000, p99_ms=9.5)
            caution.count(seen)
            caution.observe(seen, TARGETS, None, surged=False, slo_bound=True)
        return slo_share(caution)

    assert used(1) > used(10)


def test_a_crowd_that_an_alarm_ended_leaves_more_of_the_slo_free_and_calm_does_not() -> None:
    crowded, calm, unforeseen = Caution(), Caution(), Caution()
    crowded.crowded(window(50, p99_ms=14.0), TARGETS, 9.0)
    calm.crowded(window(50, p99_ms=8.0), TARGETS, 9.0)
    unforeseen.crowded(window(50, p99_ms=14.0), TARGETS, None)
    assert 0.0 < crowded.overhead_ms <= 5.0
    assert calm.overhead_ms == unforeseen.overhead_ms == 0.0
