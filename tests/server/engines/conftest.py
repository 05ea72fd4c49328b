from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_networks import lite0_uint8, shared_directory
from onnx import TensorProto, helper

Dims = Sequence[int | str | None]
WriteModel = Callable[..., Path]


def small_cnn(*, batch: int | str = "batch", seed: int = 7) -> onnx.ModelProto:
    """From UINT8 `image` [batch, 6, 6, 3] to FP32 `scores` [batch, 4] and the INT64 index `top` [batch]."""
    weights = np.random.default_rng(seed).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["features"]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["scores"], axes=[2, 3], keepdims=0),
        helper.make_node("ArgMax", ["scores"], ["top"], axis=1, keepdims=0),
    ]
    return model(
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (batch, 6, 6, 3))],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, (batch, 4)),
            helper.make_tensor_value_info("top", TensorProto.INT64, (batch,)),
        ],
        [helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel())],
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its real weights, as it would be served."""
    return lite0_uint8(shared_directory(tmp_path_factory)).path


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model, by default the small CNN, and return its path."""

    def write(made: onnx.ModelProto | None = None, **settings: int | str) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(made or small_cnn(**settings), path)
        return path

    return write


@pytest.fixture
def write_identity(write_model: WriteModel) -> WriteModel:
    """Write a model that returns its inputs, given as (name, ONNX type, dimensions)."""

    def write(*tensors: tuple[str, int, Dims]) -> Path:
        nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in tensors]
        inputs = [helper.make_tensor_value_info(*tensor) for tensor in tensors]
        outputs = [helper.make_tensor_value_info(f"{name}_out", kind, dims) for name, kind, dims in tensors]
        return write_model(model(nodes, inputs, outputs))

    return write
