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


def test_the_scaled_network_says_that_it_is_assumed_and_is_cheaper() -> None:
    lite = V100.model("efficientnet-lite0")
    for batch in (1, 8, 64):
        assert lite.batch_s(batch, 1530) < RESNET50.batch_s(batch, 1530)
        assert lite.busy_power_w(batch, 1530) < RESNET50.busy_power_w(batch, 1530)
