"""Networks to train: those of the zoo, with as many answers as there are classes, or a user's own."""

from __future__ import annotations

import importlib

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from server.errors import ConfigError
from server.exporting.complaints import in_a_line
from server.zoo.catalogue import NETWORKS, build

_IMAGENET_CLASSES = 1000


def make_network(name: str, classes: int) -> nn.Module:
    """Return an untrained network; its weights follow PyTorch's seed.

    Args:
        name: of the zoo, or `module:function`, a function of the number of classes.
        classes: answers that it gives.

    Raises:
        ConfigError: there is no such network.
    """
    if name in NETWORKS:
        return _with_classes(build(name), classes)
    module, colon, function = name.partition(":")
    if not colon:
        raise ConfigError(f"no network {name}: choose of {', '.join(NETWORKS)}, or give module:function")
    try:
        made = getattr(importlib.import_module(module), function)(classes)
    except (Exception, SystemExit) as error:  # it is the user's code
        reason = in_a_line(error) or type(error).__name__
        raise ConfigError(f"network {name} cannot be made of {classes} classes: {reason}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"network {name} is a {type(made).__name__}, not a torch.nn.Module")
    return made


def check_network(name: str, classes: int, image_size: int) -> float:
    """Return the GFLOPs of one picture going forward. Raises ConfigError when it cannot take the size."""
    network = make_network(name, classes).eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.inference_mode(), counter:
            answers = network(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # it is the user's code
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{name} cannot take pictures of {image_size} pixels ({reason}): give another --image-size, or"
            " leave it out of --network"
        ) from error
    shape = tuple(answers.shape) if isinstance(answers, torch.Tensor) else type(answers).__name__
    if shape != (1, classes):
        raise ConfigError(f"{name} answers one picture with {shape}; it must be (1, {classes})")
    return float(counter.get_total_flops()) / 1e9


def _with_classes(network: nn.Module, classes: int) -> nn.Module:
    """Exchange the last layer of 1000 answers for one of `classes`."""
    heads = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if _answers(layer) == _IMAGENET_CLASSES
    ]
    if heads:
        parent, name, layer = heads[-1]
        setattr(parent, name, _head(layer, classes))
    return network


def _answers(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return int(layer.out_features)
    return int(layer.out_channels) if isinstance(layer, nn.Conv2d) else None


def _head(layer: nn.Module, classes: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes)
    return nn.Conv2d(layer.in_channels, classes, layer.kernel_size, layer.stride, layer.padding)
