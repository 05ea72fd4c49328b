"""The shipped V100 against what was published about it."""

from __future__ import annotations

import pytest

from optimizer.twin.profile import load_profile

# batch, images/s, W: NVIDIA's figures for ResNet-50, as tabled by Inoue (Performance Evaluation, 2021).
TABLE = [(1, 476, 120), (2, 880, 109), (4, 1631, 132), (8, 2685, 153), (64, 5877, 274), (128, 6275, 285)]
V100 = load_profile("v100")
RESNET50 = V100.model("resnet50")


@pytest.mark.parametrize(("batch", "images_per_s", "power_w"), TABLE)
def test_resnet50_follows_the_table_at_boost(batch: int, images_per_s: float, power_w: float) -> None:
    clock = V100.boost_clock_mhz
    assert V100.running_clock_mhz("resnet50", batch, clock) == clock, "the power limit must not bite"
    assert batch / RESNET50.batch_s(batch, clock) == pytest.approx(images_per_s, rel=0.05)
    assert RESNET50.busy_power_w(batch, clock) == pytest.approx(power_w, rel=0.08)


def test_the_clock_grid() -> None:
    assert V100.sm_clocks_mhz[:4] == (135, 142, 150, 157)
    assert 1380 in V100.sm_clocks_mhz
    assert (len(V100.sm_clocks_mhz), V100.sm_clocks_mhz[-1]) == (187, 1530)


def test_the_best_clock_saves_what_was_published_for_cnn_inference() -> None:
    """Tang et al. (e-Energy 2019) save 19.6 to 26.4 %; the best clocks lie at 0.39 to 0.85 of the maximum."""

    def joules_per_image(clock: int) -> float:
        return RESNET50.busy_power_w(128, clock) * RESNET50.batch_s(128, clock) / 128

    best = min(V100.sm_clocks_mhz, key=joules_per_image)
    assert 0.39 < best / V100.boost_clock_mhz < 0.85
    assert 0.17 < 1.0 - joules_per_image(best) / joules_per_image(V100.boost_clock_mhz) < 0.28


def test_the_scaled_network_says_that_it_is_assumed_and_is_cheaper() -> None:
    lite = V100.model("efficientnet-lite0")
    for batch in (1, 8, 64):
        assert lite.batch_s(batch, 1530) < RESNET50.batch_s(batch, 1530)
        assert lite.busy_power_w(batch, 1530) < RESNET50.busy_power_w(batch, 1530)
