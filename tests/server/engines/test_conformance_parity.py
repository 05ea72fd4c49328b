"""Every engine that computes gives the answers of ONNX Runtime on the CPU, for real photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.engines.engine import Array, Engine
from server.engines.onnxruntime import load_onnxruntime_engine
from server.engines.padding import padded
from server.engines.registry import ENGINE_KINDS, EngineRequest
from server.images import centre_crop
from server.photographs import load_photographs

BATCH = 5
INSTALLED = [name for name, kind in ENGINE_KINDS.items() if kind.available() is None]


def load(name: str, path: Path) -> Engine:
    """As the registry does, but compiled without the last step, which takes a minute for this network."""
    if name != "pytorch-compiled":
        return ENGINE_KINDS[name].load(EngineRequest(path, BATCH, threads=1, served_batches=(BATCH,)))
    from server.engines.pytorch.engine import load_compiled_pytorch_engine

    return padded(
        load_compiled_pytorch_engine(
            path, max_batch=BATCH, threads=1, served_batches=(BATCH,), backend="aot_eager"
        )
    )


@pytest.fixture(scope="module")
def photographs() -> Array:
    """Photographs as the network takes them, `[n, 224, 224, 3]`."""
    pictures = [Image.fromarray(photograph.pixels) for photograph in load_photographs()]
    if len(pictures) < BATCH:
        pytest.skip("scikit-image is not installed: pip install 'boulton[photos]'")
    return np.stack([np.asarray(centre_crop(picture, 224, 224)) for picture in pictures[:BATCH]])


@pytest.fixture(scope="module")
def expected(efficientnet: Path, photographs: Array) -> Array:
    """Scores by ONNX Runtime on the CPU, `[n, classes]`."""
    engine = load_onnxruntime_engine(efficientnet, max_batch=BATCH, threads=1)
    (scores,) = engine.run((photographs,))
    engine.close()
    return scores


@pytest.mark.parametrize("name", INSTALLED)
def test_scores_of_photographs(name: str, efficientnet: Path, photographs: Array, expected: Array) -> None:
    engine = load(name, efficientnet)
    for images in (1, BATCH):
        (scores,) = engine.run((photographs[:images],))
        assert scores.argmax(axis=1).tolist() == expected[:images].argmax(axis=1).tolist()
        np.testing.assert_allclose(scores, expected[:images], rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert engine.padded_images == BATCH - 1
    engine.close()


def test_the_photographs_tell_engines_apart(expected: Array) -> None:
    assert len(set(expected.argmax(axis=1).tolist())) > 1
