"""Every network against what was published about it: parameters exactly, multiply-adds as closely as stated.

Networks are built on PyTorch's meta device, where tensors have shapes and no numbers: VGG-16 costs no more
than SqueezeNet.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from server.exporting.builtin_models import BUILTIN_MODELS
from server.zoo import catalogue
from server.zoo.googlenet import inception


@dataclass(frozen=True)
class Published:
    """Figures of a publication.

    `parameters` is exact when given to the last digit; else `parameters_within` says how it was rounded.
    """

    parameters: float
    multiply_adds: float
    source: str
    parameters_within: float = 0.0
    multiply_adds_within: float = 0.005


SURVEY = "Sze et al. 2017, Efficient Processing of Deep Neural Networks, table II"
NASNET = "Zoph et al. 2017, table 2"
TORCHVISION = "torchvision's documentation of its weights (num_params, GFLOPS)"

PUBLISHED = {
    # 60,965,224: Caffe's bvlc_alexnet, which is the same network.
    "alexnet": Published(60_965_224, 724e6, SURVEY),
    "vgg16": Published(138_357_544, 15.47e9, TORCHVISION),
    # Table 1 adds up to 1,502M, with 34M for the first layer; a 7x7 from 3 channels to 112x112x64 makes 118M,
    # which is the difference. Parameters: Caffe's bvlc_googlenet, deployed.
    "googlenet": Published(6_998_552, 1.502e9, "Szegedy et al. 2014, table 1", 0, 0.06),
    "resnet50": Published(25_557_032, 3.86e9, f"{SURVEY}; parameters: {TORCHVISION}"),
    "resnet152": Published(60_192_808, 11.3e9, f"He et al. 2015, table 1; parameters: {TORCHVISION}"),
    "inception-v3": Published(23.8e6, 5.72e9, NASNET, 0.002),
    # The authors publish the size of the file only: 29 MB, at four bytes a parameter.
    "nin": Published(
        29 * 2**20 / 4, 1.1e9, "Lin's model in Caffe's zoo; multiply-adds by hand, below", 0.002
    ),
    "overfeat": Published(145e6, 2_810e6, "Sermanet et al. 2013, table 4, fast model", 0.007),
    # Weights alone; normalisations and the last bias are the rest.
    "cifar10-6conv": Published(14.02e6, 617e6, "by hand, below", 0.001),
    "mobilenetv2": Published(3.4e6, 300e6, "Sandler et al. 2018, table 4", 0.04),
    # Torchvision counts at 224 pixels; 227, which the sizes in the paper's table 1 take, are 1.6 % more work.
    "squeezenet": Published(1_248_424, 0.82e9, f"Iandola et al. 2016, table 1; {TORCHVISION}", 0, 0.02),
    "densenet121": Published(7_978_856, 2.83e9, TORCHVISION),
    "xception": Published(22_855_952, 8.38e9, f"Chollet 2016, table 3; multiply-adds: {NASNET}"),
    "nasnet-mobile": Published(5.3e6, 564e6, NASNET, 0.003),
}


@dataclass(frozen=True)
class Counted:
    parameters: int
    multiply_adds: int
    answer: tuple[int, ...]


def count(network: nn.Module, shape: tuple[int, ...], device: str) -> Counted:
    """Run one picture of `shape` and count what convolutions and fully connected layers do with it."""
    multiply_adds = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(
                lambda layer, _, answer: multiply_adds.append(answer.numel() * layer.weight[0].numel())
            )
    answer = network.eval()(torch.zeros(1, *shape, device=device))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Counted(parameters, sum(multiply_adds), tuple(answer.shape))


@pytest.fixture(scope="module", params=catalogue.NETWORKS)
def counted(request: pytest.FixtureRequest) -> tuple[str, Counted]:
    with torch.device("meta"):
        network = catalogue.build(request.param)
    shape = catalogue.NETWORKS[request.param].input_shape
    return request.param, count(network, shape, "meta")


def test_it_has_the_published_parameters_and_multiply_adds(counted: tuple[str, Counted]) -> None:
    name, found = counted
    meant = PUBLISHED[name]
    assert found.parameters == pytest.approx(meant.parameters, rel=meant.parameters_within, abs=0)
    assert found.multiply_adds == pytest.approx(meant.multiply_adds, rel=meant.multiply_adds_within)


def test_the_catalogue_says_what_it_costs(counted: tuple[str, Counted]) -> None:
    name, found = counted
    network = catalogue.NETWORKS[name]
    assert (network.parameters, network.multiply_adds) == (found.parameters, found.multiply_adds)
    assert found.answer == (1, 10 if name == "cifar10-6conv" else 1000)


def test_efficientnet_lite0_is_the_published_one() -> None:
    builtin = BUILTIN_MODELS["efficientnet-lite0"]
    found = count(builtin.load(), builtin.input_shape, "cpu")
    assert (found.parameters, found.multiply_adds) == (builtin.parameters, builtin.multiply_adds)
    # Google's table (README of EfficientNet-lite) has 4.7M and 407M; the latter counts other layers as well.
    assert found.parameters == pytest.approx(4.7e6, rel=0.011)
    assert found.multiply_adds == pytest.approx(407e6, rel=0.06)


def test_network_in_network_by_hand() -> None:
    first = 54 * 54 * (96 * 3 * 11 * 11 + 2 * 96 * 96)
    second = 27 * 27 * (256 * 96 * 5 * 5 + 2 * 256 * 256)
    third = 13 * 13 * (384 * 256 * 3 * 3 + 2 * 384 * 384)
    fourth = 6 * 6 * (1024 * 384 * 3 * 3 + 1024 * 1024 + 1000 * 1024)
    assert catalogue.NETWORKS["nin"].multiply_adds == first + second + third + fourth


def test_cifar10_6conv_by_hand() -> None:
    convolutions = {32: 9 * (3 * 128 + 128 * 128), 16: 9 * (128 + 256) * 256, 8: 9 * (256 + 512) * 512}
    full = 512 * 4 * 4 * 1024 + 1024 * 1024 + 1024 * 10
    network = catalogue.NETWORKS["cifar10-6conv"]
    assert network.multiply_adds == sum(side**2 * weights for side, weights in convolutions.items()) + full
    scales = 2 * (2 * (128 + 256 + 512) + 2 * 1024)
    assert network.parameters == sum(convolutions.values()) + full + scales + 10


# Columns "params" and "ops" of table 1, in thousands and millions, for an inception module of its two depths.
@pytest.mark.parametrize(
    ("inputs", "widths", "side", "parameters", "multiply_adds"),
    [
        (192, (64, 96, 128, 16, 32, 32), 28, 159e3, 128e6),
        (256, (128, 128, 192, 32, 96, 64), 28, 380e3, 304e6),
        (480, (192, 96, 208, 16, 48, 64), 14, 364e3, 73e6),
        (832, (384, 192, 384, 48, 128, 128), 7, 1388e3, 71e6),
    ],
)
def test_inception_modules_are_those_of_the_paper(
    inputs: int, widths: tuple[int, ...], side: int, parameters: float, multiply_adds: float
) -> None:
    with torch.device("meta"):
        found = count(inception(inputs, *widths), (inputs, side, side), "meta")
    assert found.parameters == pytest.approx(parameters, rel=0.05)
    assert found.multiply_adds == pytest.approx(multiply_adds, rel=0.05)


@pytest.mark.parametrize(
    ("name", "layers"), [("alexnet", 8), ("vgg16", 16), ("resnet50", 50), ("resnet152", 152)]
)
def test_it_is_as_deep_as_its_name(name: str, layers: int) -> None:
    with torch.device("meta"):
        network = catalogue.build(name)
    found = [path for path, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len([path for path in found if ".shortcut." not in path]) == layers
