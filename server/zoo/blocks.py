"""What several networks are built of. Activations are `[batch, channels, height, width]` throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Kernel = int | tuple[int, int]


def conv(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    *,
    stride: int = 1,
    padding: Kernel | None = None,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution with bias, then ReLU. Padding left out keeps the size, as `same` does."""
    pad = same(kernel) if padding is None else padding
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups), nn.ReLU())


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: Kernel,
    *,
    stride: int = 1,
    padding: Kernel | None = None,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
    epsilon: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, activation (None: none)."""
    pad = same(kernel) if padding is None else padding
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, epsilon),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


def same(kernel: Kernel) -> Kernel:
    """Return the padding that keeps height and width under an odd kernel at stride 1."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


def separable(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise convolution, then 1x1, with nothing between them."""
    depthwise = nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


def average_pool(kernel: int, stride: int) -> nn.AvgPool2d:
    """Mean over the pixels that are there: padding is not counted."""
    return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)


def classifier(channels: int, classes: int) -> nn.Sequential:
    """Mean over each channel's pixels, then one fully connected layer to the scores."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Parallel(nn.Module):
    """Runs branches on the same input and puts their channels one after another."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, images: Tensor) -> Tensor:
        """Return `[batch, sum of the branches' channels, height, width]`."""
        return torch.cat([branch(images) for branch in self.branches], dim=1)


class Residual(nn.Module):
    """Adds what `body` makes of its input to what `shortcut` makes of it (None: to the input itself)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the sum; both sides have its shape."""
        return self.body(images) + self.shortcut(images)


class LocalResponseNorm(nn.Module):
    """Divides each activation by (k + alpha * sum of the squares in 5 neighbouring channels) ** 0.75.

    Krizhevsky et al. 2012, section 3.3. ONNX and PyTorch divide alpha by the number of channels; the paper
    does not.
    """

    SIZE, ALPHA, BETA = 5, 1e-4, 0.75

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, images: Tensor) -> Tensor:
        """Return the same shape. In an export it becomes ONNX's own LRN instead of ten small operators."""
        alpha = self.ALPHA * self.SIZE
        if not torch.onnx.is_in_onnx_export():
            return functional.local_response_norm(images, self.SIZE, alpha, self.BETA, self.k)
        attributes = {"size": self.SIZE, "alpha": alpha, "beta": self.BETA, "bias": self.k}
        return torch.onnx.ops.symbolic(
            "LRN", [images], attributes, dtype=images.dtype, shape=images.shape, version=13
        )
