"""Random weights: the same every time, and nothing vanishes or explodes on the way through."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from server.zoo import catalogue
from server.zoo.resnet import resnet50
from server.zoo.weights import clouds, randomise

LARGEST_HALF = 65504.0


@pytest.fixture(
    scope="module", params=["googlenet", "nin", "cifar10-6conv", "mobilenetv2", "squeezenet", "densenet121"]
)
def loaded(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, int, int]]:
    return catalogue.load(request.param), catalogue.NETWORKS[request.param].input_shape


def layers_on(network: nn.Module, pictures: torch.Tensor) -> list[torch.Tensor]:
    """Run the network and return what every layer answered."""
    answers: list[torch.Tensor] = []
    leaves = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [leaf.register_forward_hook(lambda _, __, answer: answers.append(answer)) for leaf in leaves]
    with torch.inference_mode():
        network(pictures)
    for hook in hooks:
        hook.remove()
    return answers


@pytest.mark.parametrize("kind", ["clouds", "noise"])
def test_activations_neither_vanish_nor_explode(
    loaded: tuple[nn.Module, tuple[int, int, int]], kind: str
) -> None:
    network, shape = loaded
    generator = torch.Generator().manual_seed(5)  # not the pictures that the normalisations have seen
    pictures = (
        clouds(2, shape, generator) if kind == "clouds" else torch.randn(2, *shape, generator=generator)
    )
    for answer in layers_on(network, pictures):
        assert 0.03 < answer.std() < 30
        assert answer.abs().max() < LARGEST_HALF / 100
        assert (answer != 0).float().mean() > 0.2


def test_different_pictures_get_different_scores(loaded: tuple[nn.Module, tuple[int, int, int]]) -> None:
    network, shape = loaded
    with torch.inference_mode():
        one, other = network(clouds(2, shape, torch.Generator().manual_seed(6)))
    assert (one - other).abs().max() > 0.05


def test_normalisations_keep_a_deep_residual_network_within_bounds() -> None:
    shape = (3, 64, 64)
    generator = torch.Generator().manual_seed(7)
    pictures = clouds(4, shape, generator)
    settled = randomise(resnet50(), shape, seed=1)
    unsettled = randomise(resnet50(), shape, seed=1)
    for layer in unsettled.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    spread = max(float(answer.std()) for answer in layers_on(settled, pictures))
    assert spread < 10 < 10 * spread < max(float(answer.std()) for answer in layers_on(unsettled, pictures))


def test_the_seed_decides_the_weights() -> None:
    one, again, other = (catalogue.load("cifar10-6conv", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.allclose(one[key], again[key], rtol=1e-4, atol=1e-6) for key in one)
    assert not torch.allclose(one["0.0.weight"], other["0.0.weight"])


def test_nothing_else_draws_from_the_generator_that_torch_shares() -> None:
    torch.manual_seed(3)
    first = catalogue.load("squeezenet").state_dict()
    torch.manual_seed(4)
    assert all(
        torch.equal(first[key], value) for key, value in catalogue.load("squeezenet").state_dict().items()
    )


def test_what_it_returns_is_ready_for_inference() -> None:
    network = catalogue.load("cifar10-6conv")
    assert not any(layer.training for layer in network.modules())
    momenta = {layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert momenta == {0.1}


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 227, 227), (1, 40, 8)])
def test_clouds_have_mean_0_and_variance_1_and_are_smooth(shape: tuple[int, int, int]) -> None:
    pictures = clouds(16, shape, torch.Generator().manual_seed(8))
    assert pictures.shape == (16, *shape)
    assert abs(float(pictures.mean())) < 1e-3
    assert float(pictures.std()) == pytest.approx(1, abs=1e-3)
    steps = (pictures[..., 1:] - pictures[..., :-1]).std()
    assert steps < 1.2  # of white noise: the square root of two
