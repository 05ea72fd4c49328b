"""SqueezeNet 1.0: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.

Table 1, whose first layer answers with 111x111 pixels: that takes 227 pixels, where the table says 224.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import Parallel, conv


def squeezenet() -> nn.Module:
    """Return the network for `[batch, 3, 227, 227]`."""
    return nn.Sequential(
        *(conv(3, 96, 7, stride=2, padding=0), nn.MaxPool2d(3, 2)),
        *(_fire(96, 16, 64), _fire(128, 16, 64), _fire(128, 32, 128), nn.MaxPool2d(3, 2)),
        *(_fire(256, 32, 128), _fire(256, 48, 192), _fire(384, 48, 192), _fire(384, 64, 256)),
        *(nn.MaxPool2d(3, 2), _fire(512, 64, 256), nn.Dropout()),
        *(conv(512, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def _fire(inputs: int, squeeze: int, expand: int) -> nn.Module:
    """Return a fire module (figure 1): few channels, then twice `expand` of them."""
    return nn.Sequential(
        conv(inputs, squeeze, 1), Parallel([conv(squeeze, expand, 1), conv(squeeze, expand, 3)])
    )
