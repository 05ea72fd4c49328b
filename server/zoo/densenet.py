"""DenseNet-121: Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", 2016.

DenseNet-BC of its table 1, growth rate 32.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import Parallel, classifier, conv_bn

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)


def densenet121() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    channels, body = 2 * _GROWTH, list[nn.Module]()
    for block, layers in enumerate(_BLOCKS):
        if block:
            body.append(_transition(channels))
            channels //= 2
        for _ in range(layers):
            body.append(Parallel([nn.Identity(), _dense(channels)]))
            channels += _GROWTH
    stem = (conv_bn(3, 2 * _GROWTH, 7, stride=2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *body, nn.BatchNorm2d(channels), nn.ReLU(), classifier(channels, 1000))


def _dense(inputs: int) -> nn.Module:
    """Normalise, activate and convolve, through a bottleneck of four growth rates."""
    narrow = (nn.BatchNorm2d(inputs), nn.ReLU(), conv_bn(inputs, 4 * _GROWTH, 1))
    return nn.Sequential(*narrow, nn.Conv2d(4 * _GROWTH, _GROWTH, 3, padding=1, bias=False))


def _transition(inputs: int) -> nn.Module:
    narrow = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), narrow, nn.AvgPool2d(2))
