"""Small random networks whose layers resemble those of CNNs, to learn layer times from.

Each is a short piece of one family of architectures, with sizes drawn at random, so that no network that a
predictor is judged on need ever be measured for it. Layers are met as engines meet them: fused, and with
their neighbours' data layout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from bench.predict.network_builder import OPSET, NetworkBuilder

_OPSETS = (18, OPSET)
"""Between these, ONNX gave mean poolings dilations, for which engines may use code of another speed."""
_SIDES = (7, 8, 13, 14, 16, 17, 19, 27, 28, 32, 35, 54, 56, 71, 112, 147, 224)
_MOST_OPERATIONS = 5e8
_LONG_TIMES = 8.0
"""So many times as much is computed by networks that are to push what they read out of the caches."""
_MOST_WEIGHTS = 40_000_000
_HALVING = ((2, 2, 0), (2, 2, 0), (3, 2, 0), (3, 2, 1))
_ODD = 0.3
"""How often channels are drawn that fill no block, where that matters most."""
_HEAVY_SIDE = 28
_WINDOWS = (*_HALVING, (3, 1, 1), (3, 1, 1), (2, 1, 0), (5, 3, 0))
"""Side, stride and padding of poolings; those that are frequent in published networks stand twice."""


def small_network(seed: int) -> tuple[str, ModelProto]:
    """Return a family's name and a network of it, its weights still empty; the same for the same seed."""
    rng = np.random.default_rng(seed)
    family = list(_FAMILIES)[seed % len(_FAMILIES)]
    model = _FAMILIES[family](rng)
    model.opset_import[0].version = _OPSETS[seed // len(_FAMILIES) % len(_OPSETS)]
    return family, model


def most_operations(family: str) -> float:
    """Return how much a batch of a family's networks may compute: a few milliseconds' work, or tens."""
    return _MOST_OPERATIONS * (_LONG_TIMES if family in _LONG else 1.0)


def draw_batch(rng: np.random.Generator, operations_per_image: float, allowed: float) -> int:
    """Draw a batch size that computes no more than is allowed, where one image does not."""
    most = max(1.0, allowed / max(operations_per_image, 1.0))
    choices = [batch for batch in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128) if batch <= most]
    return int(rng.choice(choices))


def _side(rng: np.random.Generator, least: int = 7, most: int = 224) -> int:
    return int(rng.choice([side for side in _SIDES if least <= side <= most]))


def _channels(rng: np.random.Generator, side: int, scale: float = 2600.0, odd: float = 0.05) -> int:
    """Draw channels that go with a side, mostly in eights, as in published networks; `odd` of them in any."""
    wanted = float(np.clip(scale / side * np.exp(rng.normal(0.0, 0.6)), 8, 1600))
    step = 1 if rng.random() < odd else int(rng.choice([4, 8, 16, 32], p=[0.1, 0.3, 0.3, 0.3]))
    return max(step, round(wanted / step) * step)


def _act(rng: np.random.Generator) -> str:
    return str(rng.choice(["Relu", "Relu", "Clip", ""]))


def _head(net: NetworkBuilder, rng: np.random.Generator, x: str) -> str:
    return net.product(net.global_mean(x), int(rng.choice([10, 100, 1000, 1000])))


def _plain(rng: np.random.Generator) -> ModelProto:
    """An image through large, then small windows, as in AlexNet, VGG and the networks for CIFAR."""
    side = int(rng.choice([32, 64, 96, 128, 160, 224, 227, 299]))
    net = NetworkBuilder(3, side)
    kernel, stride = ((3, 1), (3, 2), (5, 2), (7, 2), (11, 4), (3, 1))[rng.integers(6)]
    stride = max(stride, 2) if side > 160 and rng.random() < 0.7 else stride
    x = net.convolution("input", int(rng.choice([24, 32, 48, 64, 96])), kernel, stride, act=_act(rng))
    if rng.random() < 0.3:
        x = net.local_response(x)
    for _ in range(rng.integers(2, 5)):
        if net.shapes[x][1] >= 12 and rng.random() < 0.6:
            x = net.pooling(x, "MaxPool", int(rng.choice([2, 3])), 2)
        kernel = int(rng.choice([3, 3, 3, 5]))
        x = net.convolution(x, _channels(rng, net.shapes[x][1]), kernel, act=_act(rng))
    return net.model(_classified(net, rng, x))


def _classified(net: NetworkBuilder, rng: np.random.Generator, x: str) -> str:
    while net.shapes[x][1] > 9:
        x = net.pooling(x, "MaxPool", 3, 2)
    width = int(rng.choice([64, 256, 512, 1024, 2048, 4096]))
    channels, side = net.shapes[x]
    width = min(width, _MOST_WEIGHTS // (channels * side * side))
    x = net.product(net.flat(x), width, act="Relu")
    return net.softmax(net.product(x, int(rng.choice([10, 100, 1000]))))


def _residual(rng: np.random.Generator) -> ModelProto:
    """Residual blocks, with and without bottleneck."""
    side = _side(rng, 7, 56)
    width = _channels(rng, side, 1800)
    net = NetworkBuilder(width * 4 if rng.random() < 0.5 else width, side)
    x = "input"
    for _ in range(rng.integers(2, 4)):
        x = _bottleneck(net, rng, x, width) if rng.random() < 0.6 else _basic(net, x)
    return net.model(_head(net, rng, x))


def _bottleneck(net: NetworkBuilder, rng: np.random.Generator, x: str, width: int) -> str:
    stride = 2 if net.shapes[x][1] >= 14 and rng.random() < 0.35 else 1
    out = net.shapes[x][0] * (2 if stride == 2 else 1)
    shortcut = net.convolution(x, out, 1, stride) if stride == 2 or rng.random() < 0.2 else x
    y = net.convolution(x, width, 1, act="Relu")
    y = net.convolution(y, width, 3, stride, act="Relu")
    return net.activation(net.joined("Add", net.convolution(y, out, 1), shortcut), "Relu")


def _basic(net: NetworkBuilder, x: str) -> str:
    out = min(net.shapes[x][0], 512)
    shortcut = x if out == net.shapes[x][0] else net.convolution(x, out, 1)
    y = net.convolution(x, out, 3, act="Relu")
    return net.activation(net.joined("Add", net.convolution(y, out, 3), shortcut), "Relu")


def _inverted(rng: np.random.Generator) -> ModelProto:
    """Inverted residuals around depthwise convolutions."""
    side = _side(rng, 7, 112)
    narrow = _channels(rng, side, 900, _ODD)
    net = NetworkBuilder(narrow, side)
    x, act = "input", str(rng.choice(["Clip", "Relu"]))
    for _ in range(rng.integers(2, 4)):
        channels, now = net.shapes[x]
        stride = 2 if now >= 14 and rng.random() < 0.35 else 1
        out = channels if stride == 1 and rng.random() < 0.7 else _channels(rng, now // stride + 1, 900, _ODD)
        wide = channels * int(rng.choice([1, 3, 4, 6, 6]))
        y = net.convolution(x, wide, 1, act=act)
        y = net.convolution(y, wide, int(rng.choice([3, 3, 5, 7])), stride, groups=wide, act=act)
        y = net.convolution(y, out, 1)
        x = net.joined("Add", x, y) if stride == 1 and out == channels else y
    x = net.convolution(x, _channels(rng, net.shapes[x][1], 4000), 1, act=act)
    return net.model(_head(net, rng, x))


def _inception(rng: np.random.Generator) -> ModelProto:
    """Branches with windows of several sizes, joined."""
    side = _side(rng, 7, 35)
    net = NetworkBuilder(_channels(rng, side, 7000), side)
    x = "input"
    for _ in range(rng.integers(1, 3)):
        some = [_channels(rng, side, 1800) for _ in range(6)]
        pooled = net.pooling(x, str(rng.choice(["MaxPool", "AveragePool"])), 3, 1, 1)
        x = net.joined(
            "Concat",
            net.convolution(x, some[0], 1, act="Relu"),
            net.convolution(net.convolution(x, some[1], 1, act="Relu"), some[2], 3, act="Relu"),
            net.convolution(
                net.convolution(x, some[3], 1, act="Relu"), some[4], int(rng.choice([3, 5])), act="Relu"
            ),
            net.convolution(pooled, some[5], 1, act="Relu"),
        )
    if side >= 13:
        x = net.pooling(x, "MaxPool", 3, 2)
    return net.model(_head(net, rng, x))


def _fire(rng: np.random.Generator) -> ModelProto:
    """Squeeze, then expand."""
    side = _side(rng, 13, 56)
    net = NetworkBuilder(_channels(rng, side, 5000), side)
    x = "input"
    for _ in range(rng.integers(1, 4)):
        squeezed = net.convolution(x, max(8, net.shapes[x][0] // 8), 1, act="Relu")
        out = _channels(rng, side, 3000)
        wide = [net.convolution(squeezed, out, kernel, act="Relu") for kernel in (1, 3)]
        x = net.joined("Concat", *wide)
        if net.shapes[x][1] > 20 and rng.random() < 0.5:
            x = net.pooling(x, "MaxPool", 3, 2)
    x = net.convolution(x, int(rng.choice([100, 1000])), 1, act="Relu")
    return net.model(net.global_mean(x))


def _dense(rng: np.random.Generator) -> ModelProto:
    """Normalised, activated, convolved and joined to what came before."""
    side = _side(rng, 7, 56)
    net = NetworkBuilder(_channels(rng, side, 6000), side)
    x = net.pooling("input", "MaxPool", 3, 1, 1) if rng.random() < 0.5 else net.convolution("input", 128, 1)
    for _ in range(rng.integers(2, 4)):
        y = net.activation(net.normalisation(x), "Relu")
        y = net.convolution(net.convolution(y, 128, 1, act="Relu"), 32, 3)
        x = net.joined("Concat", x, y)
    x = net.convolution(net.activation(net.normalisation(x), "Relu"), net.shapes[x][0] // 2, 1)
    x = net.pooling(x, "AveragePool", 2, 2)
    return net.model(_head(net, rng, x))


def _network_in_network(rng: np.random.Generator) -> ModelProto:
    """A window, then single pixels."""
    side = _side(rng, 13, 56)
    net = NetworkBuilder(_channels(rng, side), side)
    x = "input"
    for _ in range(rng.integers(1, 3)):
        out = _channels(rng, net.shapes[x][1], 3500)
        x = net.convolution(x, out, int(rng.choice([3, 5])), act="Relu")
        for _ in range(2):
            x = net.convolution(x, out, 1, act="Relu")
        x = net.pooling(x, "MaxPool", 3, 2)
    return net.model(_head(net, rng, x))


def _separable(rng: np.random.Generator) -> ModelProto:
    """Depthwise and pointwise convolutions without anything between them."""
    side = _side(rng, 7, 112)
    net = NetworkBuilder(_channels(rng, side, 5000, _ODD), side)
    x = "input"
    for _ in range(rng.integers(1, 4)):
        channels = net.shapes[x][0]
        y = net.activation(x, "Relu") if rng.random() < 0.4 else x
        y = net.convolution(y, channels, 3, groups=channels)
        out = channels if rng.random() < 0.6 else _channels(rng, net.shapes[x][1], 5000, _ODD)
        y = net.convolution(y, out, 1)
        x = net.joined("Add", x, y) if out == channels and rng.random() < 0.6 else y
        if net.shapes[x][1] > 14 and rng.random() < 0.4:
            x = net.pooling(x, "MaxPool", 3, 2, 1)
    return net.model(_head(net, rng, x))


def _cells(rng: np.random.Generator) -> ModelProto:
    """Cells as searches find them: separable windows and mean poolings, of channels that fill no block."""
    side = _side(rng, 7, 56)
    width = int(rng.choice([4, 11, 12, 16, 20])) * int(rng.integers(1, 13))
    net = NetworkBuilder(width, side)
    x = "input"
    for _ in range(rng.integers(1, 3)):
        stride = 2 if net.shapes[x][1] >= 14 and rng.random() < 0.3 else 1
        windows = rng.choice([3, 3, 5, 5, 7], size=2)
        first, second = (_separated(net, x, int(kernel), stride) for kernel in windows)
        pooled = net.pooling(x, str(rng.choice(["AveragePool", "AveragePool", "MaxPool"])), 3, stride, 1)
        parts = [net.joined("Add", first, pooled), net.joined("Add", first, second), pooled]
        x = net.convolution(net.activation(net.joined("Concat", *parts), "Relu"), width, 1)
    return net.model(_head(net, rng, x))


def _separated(net: NetworkBuilder, x: str, kernel: int, stride: int) -> str:
    """Twice an activation, a depthwise convolution and one of single pixels."""
    channels = net.shapes[x][0]
    for step in (stride, 1):
        x = net.convolution(net.activation(x, "Relu"), channels, kernel, step, groups=channels)
        x = net.convolution(x, channels, 1)
    return x


def _perceptron(rng: np.random.Generator) -> ModelProto:
    """Fully connected layers, wide and narrow."""
    net = NetworkBuilder(int(np.exp(rng.uniform(np.log(128), np.log(12000)))), 0)
    x = "input"
    for _ in range(rng.integers(2, 5)):
        width = int(np.exp(rng.uniform(np.log(10), np.log(4200))))
        width = int(rng.choice([width, width // 8 * 8 + 8, 1000, 4096]))
        x = net.product(x, min(width, _MOST_WEIGHTS // net.shapes[x][0]), act=str(rng.choice(["Relu", ""])))
    return net.model(net.softmax(x))


def _poolings(rng: np.random.Generator) -> ModelProto:
    """Poolings of several windows and as many numbers as in published networks.

    What is before them is one cheap layer, which leaves the caches as they were, or one of many weights.
    """
    side = _side(rng, 8)
    heavy = side <= _HEAVY_SIDE and rng.random() < 0.5
    out = _channels(rng, side, float(rng.choice([2600, 7000, 14000])), 0.5)
    net = NetworkBuilder(min(out, 1024) if heavy else 16, side)
    x = net.convolution("input", min(out, 1024) if heavy else out, 3 if heavy else 1, act=_act(rng))
    for _ in range(rng.integers(1, 5)):
        if net.shapes[x][1] >= 6:
            operator = str(rng.choice(["MaxPool", "AveragePool"]))
            window = _WINDOWS[rng.integers(len(_WINDOWS))]
            x = net.pooling(x, operator, *window, overlapping=bool(rng.random() < 0.2))
    return net.model(_head(net, rng, x))


def _late(rng: np.random.Generator) -> ModelProto:
    """How plain networks end: convolutions of many weights, long ones, each followed by a pooling."""
    side = int(rng.choice([8, 10, 12, 13, 14, 16, 20, 24, 27, 28]))
    channels = 16 * int(rng.integers(8, 33))
    net = NetworkBuilder(channels, side)
    x = "input"
    for _ in range(rng.integers(1, 3)):
        if net.shapes[x][1] >= 6:
            channels = 16 * int(rng.integers(8, 41))
            x = net.convolution(x, channels, int(rng.choice([1, 3, 3, 5])), act="Relu")
            operator = str(rng.choice(["MaxPool", "MaxPool", "AveragePool"]))
            x = net.pooling(x, operator, *_HALVING[rng.integers(len(_HALVING))])
    return net.model(_head(net, rng, x))


def _whole(rng: np.random.Generator) -> ModelProto:
    """From an image to classes, with as much memory as published networks take, so that no cache holds it."""
    side = int(rng.choice([64, 96, 128, 160, 192, 224]))
    net = NetworkBuilder(3, side)
    kernel, stride = ((3, 1), (3, 2), (5, 2), (7, 2))[rng.integers(4)]
    width = int(rng.choice([16, 24, 32])) if side // stride > 112 else int(rng.choice([32, 48, 64, 96]))
    x = net.convolution("input", width, kernel, stride, act=_act(rng))
    while net.shapes[x][1] >= 12:
        operator = str(rng.choice(["MaxPool", "MaxPool", "AveragePool"]))
        x = net.pooling(x, operator, *_HALVING[rng.integers(len(_HALVING))])
        width = min(2 * width, 512) if rng.random() < 0.8 else width
        for _ in range(rng.integers(1, 4)):
            x = net.convolution(x, width, int(rng.choice([1, 3, 3])), act=_act(rng))
    return net.model(_head(net, rng, x))


def _moves(rng: np.random.Generator) -> ModelProto:
    """Channels weighed, shuffled and taken apart, images framed and thinned out, between convolutions."""
    side = _side(rng, 7, 56)
    width = int(rng.choice([4, 11, 12, 16, 32])) * int(rng.integers(1, 13)) * 2
    net = NetworkBuilder(width, side)
    x = net.convolution("input", width, 1, act="Relu")
    for _ in range(rng.integers(2, 5)):
        now = net.shapes[x][1]
        choice = rng.integers(4)
        if choice == 0:
            x = net.weighed(x, max(4, width // 8))
        elif choice == 1:
            x = net.shuffled(x, 2)
        elif choice == 2:
            halves = net.sliced(x, 1, 0, width // 2), net.sliced(x, 1, width // 2, width)
            x = net.joined("Concat", halves[0], net.convolution(halves[1], width // 2, 3, act="Relu"))
        elif now >= 14:
            x = net.sliced(net.framed(x), 2, 1, now, 2)
        x = net.convolution(x, width, 1, act="Relu")
    return net.model(_head(net, rng, x))


def _stem(rng: np.random.Generator) -> ModelProto:
    """How networks begin: a convolution over an image, a pooling, and so again."""
    side = int(rng.choice([32, 64, 112, 224, 227, 299]))
    net = NetworkBuilder(3, side)
    kernel, stride = ((3, 1), (3, 2), (7, 2), (11, 4), (5, 1))[rng.integers(5)]
    x = net.convolution("input", int(rng.choice([32, 64, 64, 96])), kernel, stride, act=_act(rng))
    for _ in range(rng.integers(1, 4)):
        if net.shapes[x][1] >= 12:
            x = net.pooling(x, "MaxPool", *_HALVING[rng.integers(len(_HALVING))])
            x = net.convolution(x, min(2 * net.shapes[x][0], 512), int(rng.choice([1, 3])), act="Relu")
    return net.model(_head(net, rng, x))


def _grouped(rng: np.random.Generator) -> ModelProto:
    """Convolutions in groups, and local response normalisation."""
    side = _side(rng, 7, 56)
    groups = int(rng.choice([2, 2, 2, 4, 8, 32]))
    step = groups * 16 if rng.random() < 0.6 else groups * 4
    width = max(step, round(_channels(rng, side, 3500) / step) * step)
    net = NetworkBuilder(width, side)
    x = "input"
    for _ in range(rng.integers(1, 4)):
        x = net.convolution(x, width, int(rng.choice([1, 3, 3, 5])), groups=groups, act="Relu")
    if rng.random() < 0.4:
        x = net.local_response(x)
    return net.model(_head(net, rng, x))


def _responses(rng: np.random.Generator) -> ModelProto:
    """Local response normalisation between convolutions and poolings, as in the networks of 2012 to 2014."""
    side = _side(rng, 13, 56)
    net = NetworkBuilder(_channels(rng, side), side)
    x = net.local_response("input")
    for _ in range(rng.integers(1, 3)):
        x = net.convolution(x, _channels(rng, net.shapes[x][1], 4000), 1, act="Relu")
        x = net.local_response(x)
        if net.shapes[x][1] >= 6 and rng.random() < 0.6:
            x = net.pooling(x, "MaxPool", 3, 2)
    return net.model(_head(net, rng, x))


_FAMILIES: dict[str, Callable[[np.random.Generator], ModelProto]] = {
    "plain": _plain,
    "residual": _residual,
    "inverted": _inverted,
    "inception": _inception,
    "fire": _fire,
    "dense": _dense,
    "network-in-network": _network_in_network,
    "separable": _separable,
    "cells": _cells,
    "perceptron": _perceptron,
    "poolings": _poolings,
    "stem": _stem,
    "late": _late,
    "moves": _moves,
    "grouped": _grouped,
    "responses": _responses,
    "whole": _whole,
}
_LONG = frozenset({"late", "whole"})
