"""What is remembered of the highest load of late."""

from __future__ import annotations

from optimizer.policies.stronghold import Stronghold


def seen(*windows: tuple[float, int]) -> Stronghold:
    stronghold, before = Stronghold(), 0.0
    for rate_per_s, clock_mhz in windows:
        stronghold.observe(rate_per_s, before, clock_mhz)
        before = rate_per_s
    return stronghold


def test_before_anything_was_seen_no_clock_is_known() -> None:
    assert (Stronghold().rate_per_s, Stronghold().clock_mhz, Stronghold().surges_per_window) == (
        0.0,
        None,
        0.0,
    )


def test_it_is_the_clock_last_chosen_for_about_the_highest_load() -> None:
    stronghold = seen((100.0, 500), (300.0, 1200), (295.0, 1000), (120.0, 500))
    assert (stronghold.rate_per_s, stronghold.clock_mhz) == (300.0, 1000)


def test_what_is_long_past_is_forgotten() -> None:
    stronghold = seen((300.0, 1200), *[(100.0, 500)] * 120)
    assert (stronghold.rate_per_s, stronghold.clock_mhz) == (100.0, 500)


def test_a_surge_of_a_minute_ago_may_come_back() -> None:
    stronghold = seen((100.0, 500), (300.0, 1200), *[(100.0, 500)] * 60)
    assert (stronghold.rate_per_s, stronghold.clock_mhz) == (300.0, 1200)
    assert stronghold.surges_per_window > 0.0


def test_a_clock_at_which_answers_were_late_is_none() -> None:
    stronghold = seen((300.0, 1000), (300.0, 900))
    stronghold.lose(900)
    assert stronghold.clock_mhz is None
    stronghold = seen((300.0, 900), (300.0, 1000))
    stronghold.lose(900)
    assert stronghold.clock_mhz == 1000
    stronghold.lose(None)
    assert stronghold.clock_mhz == 1000


def test_surges_are_counted_and_slow_rises_are_not() -> None:
    assert seen(*[(100.0, 500), (300.0, 1000)] * 10).surges_per_window == 0.5
    assert seen(*[(100.0 * 1.4**step, 500) for step in range(20)]).surges_per_window == 0.0
    assert seen((100.0, 500), (300.0, 1000), *[(300.0, 1000)] * 78).surges_per_window == 1.0 / 80.0
    assert seen((100.0, 500), (300.0, 1000), *[(300.0, 1000)] * 120).surges_per_window == 0.0
