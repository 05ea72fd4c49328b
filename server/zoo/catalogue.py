"""Which networks there are, and what each costs. Needs no PyTorch until one is built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SEED = 0


@dataclass(frozen=True, slots=True)
class ZooNetwork:
    """A network of the zoo.

    Args:
        factory: `module:function` inside server.zoo.
        input_shape: (channels, height, width).
        parameters: learned parameters, batch normalisation's scale and shift included.
        multiply_adds: in convolutions and fully connected layers, for one picture.
        source: the paper.
    """

    factory: str
    input_shape: tuple[int, int, int]
    parameters: int
    multiply_adds: int
    source: str


NETWORKS: Mapping[str, ZooNetwork] = {
    "alexnet": ZooNetwork(
        "alexnet:alexnet", (3, 227, 227), 60_965_224, 724_406_816, "Krizhevsky et al. 2012"
    ),
    "vgg16": ZooNetwork("vgg:vgg16", (3, 224, 224), 138_357_544, 15_470_264_320, "Simonyan, Zisserman 2014"),
    "googlenet": ZooNetwork(
        "googlenet:googlenet", (3, 224, 224), 6_998_552, 1_582_671_872, "Szegedy et al. 2014"
    ),
    "resnet50": ZooNetwork("resnet:resnet50", (3, 224, 224), 25_557_032, 3_857_973_248, "He et al. 2015"),
    "resnet152": ZooNetwork("resnet:resnet152", (3, 224, 224), 60_192_808, 11_282_415_616, "He et al. 2015"),
    "inception-v3": ZooNetwork(
        "inception:inception_v3", (3, 299, 299), 23_834_568, 5_713_216_096, "Szegedy et al. 2015"
    ),
    "nin": ZooNetwork("nin:nin", (3, 224, 224), 7_595_176, 1_100_188_800, "Lin et al. 2013"),
    "overfeat": ZooNetwork(
        "overfeat:overfeat", (3, 231, 231), 145_920_872, 2_801_403_904, "Sermanet et al. 2013, fast model"
    ),
    "cifar10-6conv": ZooNetwork(
        "cifar:cifar10_6conv",
        (3, 32, 32),
        14_029_706,
        616_966_144,
        "Courbariaux et al. 2015, Cai et al. 2017",
    ),
    "mobilenetv2": ZooNetwork(
        "mobilenet:mobilenet_v2", (3, 224, 224), 3_504_872, 300_774_272, "Sandler et al. 2018"
    ),
    "squeezenet": ZooNetwork(
        "squeezenet:squeezenet", (3, 227, 227), 1_248_424, 832_667_936, "Iandola et al. 2016, version 1.0"
    ),
    "densenet121": ZooNetwork(
        "densenet:densenet121", (3, 224, 224), 7_978_856, 2_834_161_664, "Huang et al. 2016"
    ),
    "xception": ZooNetwork("xception:xception", (3, 299, 299), 22_855_952, 8_357_403_496, "Chollet 2016"),
    "nasnet-mobile": ZooNetwork(
        "nasnet:nasnet_mobile", (3, 224, 224), 5_289_978, 563_638_816, "Zoph et al. 2017, NASNet-A 4@1056"
    ),
}


def build(name: str) -> Any:  # noqa: ANN401 - torch is optional, so nothing can be said about its modules here
    """Return the network as its factory makes it, with whatever weights PyTorch starts from."""
    module, _, function = NETWORKS[name].factory.partition(":")
    return getattr(importlib.import_module(f"server.zoo.{module}"), function)()


def load(name: str, seed: int = SEED) -> Any:  # noqa: ANN401 - see build
    """Return the network with random weights, ready for inference; see `server.zoo.weights`."""
    weights = importlib.import_module("server.zoo.weights")
    return weights.randomise(build(name), NETWORKS[name].input_shape, seed)
