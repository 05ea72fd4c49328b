"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, table 2."""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import Residual, classifier, conv_bn

# expansion t, output channels c, repeats n, stride s of the first
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2() -> nn.Module:
    """Return the network of width 1.0 for `[batch, 3, 224, 224]`."""
    channels, body = 32, list[nn.Module]()
    for expansion, outputs, repeats, stride in _STAGES:
        for block in range(repeats):
            body.append(_inverted(channels, outputs, expansion, stride=1 if block else stride))
            channels = outputs
    pool, flatten, linear = classifier(1280, 1000)
    return nn.Sequential(
        conv_bn(3, 32, 3, stride=2, activation=nn.ReLU6),
        *body,
        conv_bn(channels, 1280, 1, activation=nn.ReLU6),
        *(pool, flatten, nn.Dropout(0.2), linear),
    )


def _inverted(inputs: int, outputs: int, expansion: int, *, stride: int) -> nn.Module:
    """Widen, convolve each channel alone, narrow without an activation."""
    hidden = inputs * expansion
    widen = [conv_bn(inputs, hidden, 1, activation=nn.ReLU6)] if expansion > 1 else []
    body = nn.Sequential(
        *widen,
        conv_bn(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6),
        conv_bn(hidden, outputs, 1, activation=None),
    )
    return Residual(body) if stride == 1 and inputs == outputs else body
