"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2015, table 1.

As in the paper, a stage halves the picture in its first 1x1 convolution. Many libraries do so in the 3x3
("v1.5"): as many parameters, about 6 % more multiply-adds in ResNet-50.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import Residual, classifier, conv_bn

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


def resnet50() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    return _resnet((3, 4, 6, 3))


def resnet152() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    return _resnet((3, 8, 36, 3))


def _resnet(depths: tuple[int, int, int, int]) -> nn.Module:
    channels, body = 64, list[nn.Module]()
    for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True)):
        for block in range(depth):
            body.append(_bottleneck(channels, width, stride=2 if stage and not block else 1))
            channels = width * _EXPANSION
    stem = (conv_bn(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *body, classifier(channels, 1000))


def _bottleneck(inputs: int, width: int, *, stride: int) -> nn.Module:
    outputs = width * _EXPANSION
    body = nn.Sequential(
        conv_bn(inputs, width, 1, stride=stride),
        conv_bn(width, width, 3),
        conv_bn(width, outputs, 1, activation=None),
    )
    changes = stride != 1 or inputs != outputs
    shortcut = conv_bn(inputs, outputs, 1, stride=stride, activation=None) if changes else None
    return nn.Sequential(Residual(body, shortcut), nn.ReLU())
