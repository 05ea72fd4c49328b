"""Random weights that behave like trained ones where time, power and half precision are concerned.

Convolutions and fully connected layers are drawn after He et al. 2015 ("Delving deep into rectifiers"), which
keeps the variance through ReLUs. Batch normalisations then take the means and variances of some made-up
pictures, as training would have left them: with the usual 0 and 1 they would do nothing, and the sums of a
deep residual network would outgrow half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_PICTURES = 4
_BIAS_STD = 0.05  # not 0: an exporter stores equal biases once and drops those that do nothing
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def randomise(network: nn.Module, input_shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Fill `network` with random weights and return it, ready for inference.

    Args:
        network: built of convolutions, fully connected layers and batch normalisations.
        input_shape: (channels, height, width) that it takes.
        seed: the same seed gives the same weights, but for the rounding of the machine in the statistics.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=_BIAS_STD, generator=generator)
    _settle(network, clouds(_PICTURES, input_shape, generator))
    return network.eval()


def clouds(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return `[count, *shape]` of mean 0 and variance 1 with contrast at every scale, as photographs have."""
    channels, height, width = shape
    sizes = [1 << power for power in range(1, min(height, width).bit_length())]
    grains = [torch.randn(count, channels, size, size, generator=generator) for size in sizes]
    layers = [functional.interpolate(grain, (height, width), mode="bilinear") for grain in grains]
    picture = torch.stack(layers).sum(dim=0)
    return (picture - picture.mean()) / picture.std()


def _settle(network: nn.Module, pictures: Tensor) -> None:
    """Let every batch normalisation measure what reaches it; dropout stays off."""
    network.eval()
    norms = [layer for layer in network.modules() if isinstance(layer, _NORMS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean, here of one batch
        norm.train()
    with torch.inference_mode():
        network(pictures)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
