"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.

Configuration D of its table 1.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from server.zoo.blocks import conv

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    inputs, layers = 3, list[nn.Module]()
    for widths in _STAGES:
        layers += [conv(a, b, 3) for a, b in pairwise((inputs, *widths))]
        layers.append(nn.MaxPool2d(2))
        inputs = widths[-1]
    return nn.Sequential(
        *layers,
        *(nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, 1000),
    )
