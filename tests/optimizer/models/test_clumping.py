"""Batches tell how unevenly images come within their time, where they can."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from optimizer.models.clumping import ClumpModel, RequestModel
from optimizer.telemetry import BatchTimes, Traffic


def batches(sizes: list[int]) -> dict[int, BatchTimes]:
    return {size: BatchTimes(count, 0.001 * count) for size, count in Counter(sizes).items()}


def batch_s(size: int) -> float:
    return 0.004 + 0.0003 * size


def learned(sizes: list[int], *, limit: int = 64, windows: int = 30) -> float:
    model = ClumpModel()
    for _ in range(windows):
        model.observe(batches(sizes), limit, 1000.0, 1.0)
    return model.dispersion


@pytest.mark.parametrize("images", [1, 4, 8])
def test_requests_of_several_images_show(images: int) -> None:
    random = np.random.default_rng(1)
    sizes = [1 + images * int(count) for count in random.poisson(6.0, 5000)]
    assert learned(sizes, limit=1000) == pytest.approx(images, rel=0.15)


@pytest.mark.parametrize("images", [1, 4, 8])
def test_batches_that_never_wait_spread_by_themselves(images: int) -> None:
    """Each takes what came during the one before, and takes the longer for it."""
    random, rate_per_s = np.random.default_rng(1), 1500.0
    size, sizes = 1, []
    for _ in range(5000):
        sizes.append(size)
        size = max(1, images * int(random.poisson(rate_per_s * batch_s(size) / images)))
    ran = {n: BatchTimes(count, count * batch_s(n)) for n, count in Counter(sizes).items()}
    model = ClumpModel()
    for _ in range(30):
        model.observe(ran, 1000, rate_per_s, 0.0)
    assert images > 1 or np.var(sizes) > 1.2 * np.mean(sizes)
    assert model.dispersion == pytest.approx(images, rel=0.15)


def test_it_begins_with_images_that_come_alone() -> None:
    assert ClumpModel().dispersion == 1.0


def test_even_batches_are_no_more_even_than_chance() -> None:
    assert learned([8] * 100) == 1.0


@pytest.mark.parametrize(
    ("sizes", "limit"),
    [([1] * 100, 64), ([1, 30] * 4, 64), ([1] * 50 + [32] * 50, 32)],
    ids=["single images", "few batches", "cut by the limit"],
)
def test_what_tells_nothing_teaches_nothing(sizes: list[int], limit: int) -> None:
    assert learned(sizes, limit=limit) == 1.0


def asked(*images: int) -> Traffic:
    return Traffic(
        arrived=sum(images),
        requests=len(images),
        together=sum(one * one for one in images),
        largest_request=max(images, default=0),
    )


def test_requests_are_known_from_one_window() -> None:
    model = RequestModel()
    model.observe(asked(1, 1, 2, 4, 8))
    assert (model.images, model.largest) == (pytest.approx(3.2), 8.0)
    assert model.own_images == pytest.approx(86.0 / 16.0)


def test_without_a_count_images_come_alone() -> None:
    model = RequestModel()
    model.observe(Traffic(arrived=1000))
    assert (model.images, model.own_images, model.largest) == (1.0, 1.0, 1.0)


def test_requests_of_before_are_forgotten_and_quiet_windows_change_nothing() -> None:
    model = RequestModel()
    model.observe(asked(*[16] * 100))
    for _ in range(50):
        model.observe(asked())
    assert model.images == pytest.approx(16.0)
    for _ in range(300):
        model.observe(asked(*[1] * 100))
    assert model.images == model.own_images == pytest.approx(1.0, abs=1e-6)
    assert model.largest == 1.0


def test_batches_that_outlast_the_delay_spread_by_themselves() -> None:
    """As without a delay: a large batch makes the next one large, and is no sign of clumps."""
    random, sizes, rate_per_s, delay_s = np.random.default_rng(4), [10], 2500.0, 0.014
    for _ in range(40_000):
        sizes.append(1 + int(random.poisson(rate_per_s * max(delay_s, batch_s(sizes[-1])))))
    ran = {n: BatchTimes(count, count * batch_s(n)) for n, count in Counter(sizes).items()}
    model = ClumpModel()
    for _ in range(30):
        model.observe(ran, 1000, rate_per_s, delay_s)
    assert np.var(sizes) > 1.3 * np.mean(sizes)
    assert model.dispersion == pytest.approx(1.0, abs=0.25)
