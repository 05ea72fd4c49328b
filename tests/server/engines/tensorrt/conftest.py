"""TensorRT-RTX itself, which builds without a GPU, and networks to build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from server.engines.tensorrt.toolkit import TENSORRT_RTX, Toolkit, load_toolkit

Dims = tuple[int | str, ...]


@pytest.fixture(scope="session")
def rtx() -> Toolkit:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: boulton[rtx]")
    return load_toolkit(TENSORRT_RTX)


@pytest.fixture
def write_node(tmp_path: Path) -> Callable[..., Path]:
    """Write a network of one operator on FP32 `x` `[batch, *shape]`, and return its path."""

    def write(
        operator: str,
        shape: Dims = (4,),
        out: Dims = (4,),
        datatype: int = TensorProto.FLOAT,
        weights: tuple[int, ...] = (),
        **attributes: object,
    ) -> Path:
        tensors = []
        if weights:
            tensors = [helper.make_tensor("w", TensorProto.FLOAT, weights, np.ones(weights, "f4").ravel())]
        names = ["x", *(tensor.name for tensor in tensors)]
        node = helper.make_node(operator, names, ["y"], name=f"my_{operator}", **attributes)
        x = helper.make_tensor_value_info("x", datatype, ("batch", *shape))
        y = helper.make_tensor_value_info("y", datatype, ("batch", *out))
        graph = helper.make_graph([node], "one", [x], [y], tensors)
        path = tmp_path / f"{operator}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    return write
