"""FP16: weights and arithmetic in half precision, float32 at the edges and where half would overflow."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto

from server.errors import ExportError
from server.exporting.precision.kept import Kept

# Half precision ends at 65504 and has 11 significant bits. These square, sum up or exponentiate what they
# read, and cost next to nothing in a CNN.
_FLOAT_OPERATORS = {
    "Softmax": "exponentials and their sum need float's range",
    "LogSoftmax": "exponentials and their sum need float's range",
    "LRN": "squares of activations exceed half precision's 65504",
    "LpNormalization": "squares of activations exceed half precision's 65504",
    "LayerNormalization": "a variance over thousands of values needs float's digits",
    "InstanceNormalization": "a variance over thousands of values needs float's digits",
    "MeanVarianceNormalization": "a variance over thousands of values needs float's digits",
    "ReduceL2": "squares of activations exceed half precision's 65504",
    "ReduceSumSquare": "squares of activations exceed half precision's 65504",
    "ReduceSum": "a sum over a whole picture may exceed half precision's 65504",
    "ReduceLogSumExp": "exponentials and their sum need float's range",
    "Exp": "exponentials need float's range",
    "Pow": "powers of activations exceed half precision's 65504",
}


def to_half(model: ModelProto) -> tuple[ModelProto, tuple[Kept, ...]]:
    """Return an FP16 copy of a float32 graph, and the nodes that stay in float32.

    Inputs and outputs keep their types: casts follow and precede them inside the graph.

    Raises:
        ExportError: the converter is not installed, or cannot convert the graph.
    """
    float16 = _converter()
    copy = ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():  # one for each tensor with values too small for half precision
            warnings.simplefilter("ignore")
            half: ModelProto = float16.convert_float_to_float16(
                copy,
                min_positive_val=5.96e-8,
                keep_io_types=True,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT_OPERATORS],
            )
    except Exception as error:  # the converter raises whatever its rewriting trips over
        raise ExportError(f"the graph cannot be converted to FP16: {error}") from error
    return half, _kept(model, float16.DEFAULT_OP_BLOCK_LIST)


def _converter() -> Any:  # noqa: ANN401 - it ships no types
    try:
        return importlib.import_module("onnxconverter_common.float16")
    except ImportError as error:
        raise ExportError(
            f"--precision fp16 needs onnxconverter-common ({error}); "
            "install it with: pip install onnxconverter-common"
        ) from error


def _kept(model: ModelProto, without_half: Sequence[str]) -> tuple[Kept, ...]:
    reasons = dict.fromkeys(without_half, "has no half-precision kernels everywhere") | _FLOAT_OPERATORS
    return tuple(
        Kept(node.name or node.output[0], node.op_type, reasons[node.op_type])
        for node in model.graph.node
        if node.op_type in reasons
    )
