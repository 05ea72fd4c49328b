from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_server import colour_model, model, tensor


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "colours.onnx"
    onnx.save(colour_model(), path)
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`picture` FP32 [n,3,8,8] to `scores` FP32 [n,5]: a convolution and the mean of its planes."""
    weights = np.random.default_rng(1).normal(size=(5, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["picture", "weights"], ["planes"], kernel_shape=[3, 3]),
        helper.make_node("ReduceMean", ["planes", "axes"], ["scores"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    picture, scores = (
        tensor("picture", TensorProto.FLOAT, "batch", 3, 8, 8),
        tensor("scores", TensorProto.FLOAT, "batch", 5),
    )
    path = tmp_path_factory.mktemp("classifier") / "planes.onnx"
    onnx.save(model(nodes, [picture], [scores], constants), path)
    return path
