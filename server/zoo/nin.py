"""Network in Network: Lin, Chen, Yan, 2013.

The paper describes the idea and small networks; this is the ImageNet network that its authors published for
Caffe, of four mlpconv layers, with its pooling that rounds up.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import conv


def nin() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    return nn.Sequential(
        *(*_mlpconv(3, (96, 96, 96), 11, stride=4, padding=0), _half()),
        *(*_mlpconv(96, (256, 256, 256), 5), _half()),
        *(*_mlpconv(256, (384, 384, 384), 3), _half(), nn.Dropout()),
        *_mlpconv(384, (1024, 1024, 1000), 3),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def _mlpconv(
    inputs: int, widths: tuple[int, int, int], kernel: int, *, stride: int = 1, padding: int | None = None
) -> tuple[nn.Module, ...]:
    """A convolution, and a small network of two 1x1 convolutions that slides over what it answers."""
    first, second, third = widths
    wide = conv(inputs, first, kernel, stride=stride, padding=padding)
    return wide, conv(first, second, 1), conv(second, third, 1)


def _half() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
