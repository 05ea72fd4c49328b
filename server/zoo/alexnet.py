"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep CNNs", NIPS 2012.

The network of the paper, on one GPU: where its two GPUs did not talk, the convolutions have two groups. Its
first layer needs 227 pixels, where the text says 224.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import LocalResponseNorm, conv


def alexnet() -> nn.Module:
    """Return the network for `[batch, 3, 227, 227]`."""
    return nn.Sequential(
        *(conv(3, 96, 11, stride=4, padding=0), LocalResponseNorm(k=2.0), nn.MaxPool2d(3, 2)),
        *(conv(96, 256, 5, groups=2), LocalResponseNorm(k=2.0), nn.MaxPool2d(3, 2)),
        conv(256, 384, 3),
        conv(384, 384, 3, groups=2),
        *(conv(384, 256, 3, groups=2), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, 1000),
    )
