from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training needs the extra torch")

import torch

from bench.train_energy.networks import check_network, make_network
from server.errors import ConfigError


@pytest.mark.parametrize(("name", "size"), [("mobilenetv2", 32), ("squeezenet", 64)])
def test_networks_of_the_zoo_answer_with_the_classes_there_are(name: str, size: int) -> None:
    """One ends in a fully connected layer, the other in a convolution."""
    network = make_network(name, 10).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_flops_are_counted_by_hand() -> None:
    # 8 filters of 3x3x3 at 3x3 places, and 32 x 10; two operations each.
    expected = 2 * (8 * 27 * 3 * 3 + 32 * 10)
    assert check_network("training_networks:tiny", 10, 8) == pytest.approx(expected / 1e9)


def test_pictures_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"squeezenet cannot take pictures of 16 pixels .* --image-size"):
        check_network("squeezenet", 10, 16)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nonet", "no network nonet: choose of alexnet"),
        ("training_networks:none", "cannot be made"),
        ("no_such_module:tiny", "cannot be made"),
        ("training_networks:broken", "cannot be made of 10 classes: no weights for 10 classes"),
        ("os:getcwd", "cannot be made of 10 classes: .* no arguments"),
        ("json:dumps", "is a str, not a torch.nn.Module"),
        ("training_networks:pair", r"answers one picture with tuple; it must be \(1, 10\)"),
        ("training_networks:wordy", r"must be \(1, 10\)"),
    ],
)
def test_a_network_that_cannot_be_used_says_why(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_network(name, 10, 8)
