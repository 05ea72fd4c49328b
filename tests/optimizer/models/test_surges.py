from __future__ import annotations

from optimizer.models.surges import PeakModel


def after(*rates: float) -> float:
    peaks = PeakModel()
    for rate in rates:
        peaks.observe(rate, 0, int(rate))
    return peaks.rate_per_s


def test_before_any_window_nothing_is_to_be_ready_for() -> None:
    assert after() == 0.0


def test_it_is_the_rate_that_a_fifth_of_the_windows_exceed() -> None:
    rates = [float(rate) for rate in range(1, 41)]
    ready = after(*reversed(rates))
    assert sum(rate > ready for rate in rates) == 8


def test_peaks_that_return_count_and_rare_ones_do_not() -> None:
    often = ([100.0] * 3 + [900.0]) * 10
    rarely = ([100.0] * 9 + [900.0]) * 4
    assert after(*often) == 900.0
    assert after(*rarely) == 100.0


def test_where_many_were_late_rarer_peaks_count_until_that_is_over() -> None:
    peaks = PeakModel()
    for rate in ([100.0] * 9 + [900.0]) * 4:
        peaks.observe(rate, int(rate // 900 * 50), int(rate))
    assert peaks.rate_per_s == 900.0
    for _ in range(20):
        peaks.observe(100.0, 0, 10_000)
    assert peaks.rate_per_s == 100.0


def test_what_was_long_ago_is_forgotten() -> None:
    assert after(*[900.0] * 40, *[100.0] * 40) == 100.0
