"""The precisions that a graph can be in, and telling which one it is."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from onnx import ModelProto, TensorProto

from server.onnx_graph import datatype_of, graph_inputs

_QUANTISED_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)


class Precision(StrEnum):
    """In what a network computes most of its work."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def precision_of(model: ModelProto) -> str:
    """Return the precision that a graph is in: int8 with quantising nodes, else the type of most weights.

    A graph without float weights is named after its first input, in lower case.
    """
    if any(node.op_type in _QUANTISED_OPERATORS for node in model.graph.node):
        return Precision.INT8
    sizes = Counter[int]()
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] += _count(tensor)
    halves, floats = sizes[TensorProto.FLOAT16], sizes[TensorProto.FLOAT]
    if not halves and not floats:
        return datatype_of(graph_inputs(model)[0]).lower()
    return Precision.FP16 if halves > floats else Precision.FP32


def _count(tensor: TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count
