from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from optimizer.models.arrivals import ArrivalModel


def poisson_count(random: Random, mean: float) -> int:
    """Approximate well for large means."""
    return round(random.gauss(mean, mean**0.5))


def test_a_steady_rate_is_learned_and_its_noise_averaged() -> None:
    random, model = Random(1), ArrivalModel()
    for _ in range(200):
        model.observe(poisson_count(random, 1000), 1.0)
    assert model.rate_per_s == pytest.approx(1000, rel=0.05)
    assert model.dispersion < 2.0
    assert model.cautious_rate_per_s > 1.05 * model.rate_per_s


def test_a_rise_is_followed_at_once_and_a_fall_slowly() -> None:
    model = ArrivalModel()
    for images in (1000, 1000, 3000):
        model.observe(images, 1.0)
    assert model.rate_per_s == 3000
    model.observe(1000, 1.0)
    assert 1000 < model.rate_per_s < 3000


def test_bursts_raise_the_dispersion_and_with_it_the_caution() -> None:
    steady, bursty = ArrivalModel(), ArrivalModel()
    for index in range(50):
        steady.observe(1000, 1.0)
        bursty.observe(700 if index % 2 else 1300, 1.0)
    assert bursty.dispersion > 10 * steady.dispersion
    assert bursty.cautious_rate_per_s > steady.cautious_rate_per_s


def test_windows_of_any_length_give_a_rate() -> None:
    model = ArrivalModel()
    for duration_s in (0.5, 2.0, 0.25, 1.0):
        model.observe(round(400 * duration_s), duration_s)
    assert model.rate_per_s == pytest.approx(400)
    assert model.dispersion == pytest.approx(1.0)
    model.observe(10, 0.0)
    assert model.rate_per_s == pytest.approx(400), "an empty interval says nothing"


def test_the_longer_a_rate_is_steady_the_less_its_noise_moves_it() -> None:
    random, model, plain = Random(2), ArrivalModel(), 1000.0
    errors, plain_errors = [], []
    for _ in range(400):
        count = poisson_count(random, 1000)
        model.observe(count, 1.0)
        plain += 0.3 * (count - plain)
        errors.append((model.rate_per_s - 1000.0) ** 2)
        plain_errors.append((plain - 1000.0) ** 2)
    assert sum(errors[100:]) < 0.7 * sum(plain_errors[100:]), "an average of a few windows is worse"


def test_a_slow_drift_is_followed_though_no_step_of_it_stands_out() -> None:
    model = ArrivalModel()
    for _ in range(60):
        model.observe(1000, 1.0)
    rate = 1000.0
    for _ in range(60):
        rate *= 0.985
        model.observe(round(rate), 1.0)
    assert model.rate_per_s < 1.12 * rate


def ramp(highest: float, windows: int) -> list[float]:
    return [highest * (0.2 + 0.8 * (at + 1) / windows) for at in range(windows)]


def at_the_foot_of_a_ramp(random: Random, highest: float) -> ArrivalModel:
    model = ArrivalModel()
    for _ in range(40):
        model.observe(poisson_count(random, 0.2 * highest), 1.0)
    return model


def test_on_ramps_more_is_expected_than_came_last() -> None:
    random, short, last_short = Random(4), 0.0, 0.0
    for _ in range(40):
        highest, windows = random.uniform(1000, 5000), random.randrange(6, 20)
        model = at_the_foot_of_a_ramp(random, highest)
        for at, (rate, following) in enumerate(pairwise(ramp(highest, windows))):
            count = poisson_count(random, rate)
            model.observe(count, 1.0)
            if at > 2:
                short += 1.0 - model.expected_per_s / following
                last_short += 1.0 - count / following
    assert 0.0 < short < 0.5 * last_short


def test_a_ramp_is_no_burstiness() -> None:
    random, dispersions = Random(5), []
    for _ in range(40):
        highest = random.uniform(1000, 5000)
        model = at_the_foot_of_a_ramp(random, highest)
        for rate in ramp(highest, random.randrange(6, 20)):
            model.observe(poisson_count(random, rate), 1.0)
            dispersions.append(model.dispersion)
    assert sum(dispersions) / len(dispersions) < 1.6, "what comes by chance has a dispersion of 1"


def test_what_only_chance_raises_is_not_expected_to_rise() -> None:
    random, model, expected = Random(3), ArrivalModel(), []
    for _ in range(400):
        model.observe(poisson_count(random, 1000), 1.0)
        expected.append(model.expected_per_s)
    assert sum(expected) / len(expected) < 1005


def test_one_step_up_is_followed_no_further() -> None:
    model = ArrivalModel()
    for images in (1000, 1000, 2000, 3000, 3000):  # it began in the middle of a window
        model.observe(images, 1.0)
        assert model.expected_per_s == images
