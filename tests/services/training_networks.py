"""Networks that train in milliseconds, for `--network training_networks:tiny`."""

from __future__ import annotations

from torch import nn


def tiny(classes: int) -> nn.Module:
    """One convolution, for pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )


def wordy(classes: int) -> nn.Module:
    """Answers with one score too many."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes + 1))
