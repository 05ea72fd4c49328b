"""CIFAR10-6conv: a network of six convolutions for pictures of 32x32 pixels.

The NeuralPower paper (Cai et al., ACML 2017) names it and refers to Courbariaux, Bengio, David,
"BinaryConnect", NIPS 2015, whose CIFAR-10 network is (2x128C3)-MP2-(2x256C3)-MP2-(2x512C3)-MP2-(2x1024FC)-10.
Assumed, since neither paper says it in full: padding that keeps the size, batch normalisation and ReLU after
every hidden layer, ordinary real weights, and no bias before a normalisation.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import conv_bn


def cifar10_6conv() -> nn.Module:
    """Return the network for `[batch, 3, 32, 32]`; it answers with 10 scores."""
    inputs, layers = 3, list[nn.Module]()
    for width in (128, 256, 512):
        layers += [conv_bn(inputs, width, 3), conv_bn(width, width, 3), nn.MaxPool2d(2)]
        inputs = width
    return nn.Sequential(
        *(*layers, nn.Flatten()),
        *_full(512 * 4 * 4, 1024),
        *_full(1024, 1024),
        nn.Linear(1024, 10),
    )


def _full(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()
