"""Networks that train in milliseconds, for `--network training_networks:tiny`."""

from __future__ import annotations

from torch import Tensor, nn


def tiny(classes: int) -> nn.Module:
    """One convolution, for pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )


def wordy(classes: int) -> nn.Module:
    """Answers with one score too many."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes + 1))


class Pair(nn.Sequential):
    """Answers twice."""

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        answer = super().forward(pictures)
        return answer, answer


def pair(classes: int) -> nn.Module:
    """Answers with more than the scores."""
    return Pair(*tiny(classes))


def broken(classes: int) -> nn.Module:
    """Cannot be made."""
    raise ValueError(f"no weights\nfor {classes} classes")
