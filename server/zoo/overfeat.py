"""OverFeat: Sermanet et al., "OverFeat: integrated recognition, localization and detection", 2013.

The fast model of its table 1, classifying one window.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import conv


def overfeat() -> nn.Module:
    """Return the network for `[batch, 3, 231, 231]`."""
    return nn.Sequential(
        *(conv(3, 96, 11, stride=4, padding=0), nn.MaxPool2d(2)),
        *(conv(96, 256, 5, padding=0), nn.MaxPool2d(2)),
        conv(256, 512, 3),
        conv(512, 1024, 3),
        *(conv(1024, 1024, 3), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(1024 * 6 * 6, 3072), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(3072, 4096), nn.ReLU()),
        nn.Linear(4096, 1000),
    )
