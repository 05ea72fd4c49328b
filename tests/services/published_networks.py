"""The four networks of the shipped profiles, counted layer by layer from the papers that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Count:
    """Multiply-accumulates, elements read and written, layers, weights: of convolutions and dense layers."""

    macs: int = 0
    elements: int = 0
    layers: int = 0
    weights: int = 0

    def convolve(
        self, size: int, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> int:
        """Add a padded convolution on size x size pixels and return the size of its output."""
        size_out = -(-size // stride)
        weights = kernel**2 * inputs // groups * outputs
        self.add(size_out**2 * weights, size**2 * inputs + size_out**2 * outputs, weights)
        return size_out

    def connect(self, inputs: int, outputs: int) -> None:
        """Add a dense layer."""
        self.add(inputs * outputs, inputs + outputs, inputs * outputs)

    def add(self, macs: int, elements: int, weights: int) -> None:
        """Add a layer."""
        self.macs += macs
        self.elements += elements
        self.layers += 1
        self.weights += weights


def resnet50() -> Count:
    """He et al., CVPR 2016, with the stride in the 3x3 convolution (v1.5)."""
    net = Count()
    net.convolve(224, 3, 64, 7, 2)
    size, width = 56, 64
    for inner, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            if block == 0:
                net.convolve(size, width, 4 * inner, 1, stride)
            net.convolve(size, width, inner, 1)
            size = net.convolve(size, inner, inner, 3, stride)
            net.convolve(size, inner, 4 * inner, 1)
            width = 4 * inner
    net.connect(2048, 1000)
    return net


def vgg16() -> Count:
    """Simonyan and Zisserman, ICLR 2015, configuration D."""
    net, size, width = Count(), 224, 3
    for outputs, layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(layers):
            net.convolve(size, width, outputs, 3)
            width = outputs
        size //= 2
    for inputs, outputs in ((25088, 4096), (4096, 4096), (4096, 1000)):
        net.connect(inputs, outputs)
    return net


def _inverted_residuals(stages: Sequence[tuple[int, int, int, int, int]]) -> Count:
    """Stages of (expansion, outputs, blocks, stride, kernel), between the usual head and tail."""
    net = Count()
    size, width = net.convolve(224, 3, 32, 3, 2), 32
    for expansion, outputs, blocks, first_stride, kernel in stages:
        for block in range(blocks):
            inner = expansion * width
            if expansion > 1:
                net.convolve(size, width, inner, 1)
            size = net.convolve(size, inner, inner, kernel, first_stride if block == 0 else 1, inner)
            net.convolve(size, inner, outputs, 1)
            width = outputs
    net.convolve(size, width, 1280, 1)
    net.connect(1280, 1000)
    return net


def mobilenetv2() -> Count:
    """Sandler et al., CVPR 2018, table 2."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    return _inverted_residuals([(*stage, 3) for stage in (*stages, (6, 320, 1, 1))])


def efficientnet_lite0() -> Count:
    """Tan and Le, ICML 2019, table 1, as released for edge devices: without squeeze and excitation."""
    stages = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))
    return _inverted_residuals((*stages, (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)))
