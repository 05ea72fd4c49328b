"""Xception: Chollet, "Xception: deep learning with depthwise separable convolutions", 2016, figure 5."""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import Residual, classifier, conv_bn, separable

_MIDDLE_BLOCKS = 8


def xception() -> nn.Module:
    """Return the network for `[batch, 3, 299, 299]`."""
    middle = [Residual(nn.Sequential(*(_unit(728, 728) for _ in range(3)))) for _ in range(_MIDDLE_BLOCKS)]
    return nn.Sequential(
        *(conv_bn(3, 32, 3, stride=2, padding=0), conv_bn(32, 64, 3, padding=0)),
        *(_halving(64, 128, 128), _halving(128, 256, 256), _halving(256, 728, 728)),
        *middle,
        _halving(728, 728, 1024),
        *(_separable_bn(1024, 1536), nn.ReLU(), _separable_bn(1536, 2048), nn.ReLU()),
        classifier(2048, 1000),
    )


def _halving(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """Two units and a maximum over 3x3, beside a 1x1 convolution; both halve the picture."""
    body = nn.Sequential(_unit(inputs, hidden), _unit(hidden, outputs), nn.MaxPool2d(3, 2, 1))
    return Residual(body, conv_bn(inputs, outputs, 1, stride=2, activation=None))


def _unit(inputs: int, outputs: int) -> nn.Module:
    # In front of the first block the ReLU changes nothing: its input has just passed one.
    return nn.Sequential(nn.ReLU(), _separable_bn(inputs, outputs))


def _separable_bn(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(separable(inputs, outputs, 3), nn.BatchNorm2d(outputs))
