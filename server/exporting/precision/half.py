"""FP16: weights and arithmetic in half precision, float32 at the edges and where half would overflow."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto

from server.engines.engine import Array
from server.errors import ExportError
from server.exporting.precision.kept import Kept, with_names
from server.exporting.precision.magnitudes import largest_values

_LEAST_HALF, _LARGEST_HALF = 5.96e-8, 65504.0
_MARGIN = 0.5  # other pictures may give values twice as large as those that were seen

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


def to_half(
    model: ModelProto, inputs: tuple[Array, ...], batch: int | None
) -> tuple[ModelProto, tuple[Kept, ...]]:
    """Return an FP16 copy of a float32 graph, and the nodes that stay in float32.

    Inputs and outputs keep their types: casts follow and precede them inside the graph. What reads or makes
    values near the end of half precision stays in float32.

    Args:
        model: a float32 graph.
        inputs: what to run through it to see how large its values get, one array per input, batch first.
        batch: items that the graph takes at once; None: any number.

    Raises:
        ExportError: the converter is not installed, or cannot convert the graph.
    """
    float16 = _converter()
    copy = with_names(model)
    names = {node.name for node in copy.graph.node}
    kept = _kept(copy, float16.DEFAULT_OP_BLOCK_LIST) + _overflowing(copy, inputs, batch)
    try:
        with warnings.catch_warnings():  # one for each tensor with values too small for half precision
            warnings.simplefilter("ignore")
            half: ModelProto = float16.convert_float_to_float16(
                copy,
                min_positive_val=_LEAST_HALF,
                max_finite_val=_LARGEST_HALF,
                keep_io_types=True,
                node_block_list=[node.name for node in kept],
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT_OPERATORS],
            )
    except Exception as error:  # the converter raises whatever its rewriting trips over
        raise ExportError(f"the graph cannot be converted to FP16: {error}") from error
    _restore_outputs(half)
    _join_float_nodes(half, names)
    return half, kept


def _restore_outputs(half: ModelProto) -> None:
    """Let float32 nodes that make outputs of the graph hand them over: the converter casts these to FP16."""
    makers = {out: node for node in half.graph.node for out in node.output}
    for value in half.graph.output:
        maker = makers.get(value.name)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and maker and maker.op_type == "Cast":
            _swap_names(half, maker.input[0], value.name)
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _join_float_nodes(half: ModelProto, names: set[str]) -> None:
    """Let neighbours that both stay in float32 hand over float32: the converter puts FP16 between them."""
    graph = half.graph
    added = [node for node in graph.node if node.op_type == "Cast" and node.name not in names]
    down = {node.output[0]: node.input[0] for node in added if _casts_to(node, TensorProto.FLOAT16)}
    up = {node.output[0]: node.input[0] for node in added if _casts_to(node, TensorProto.FLOAT)}
    direct = {out: down[given] for out, given in up.items() if given in down}
    for node in graph.node:
        node.input[:] = [direct.get(name, name) for name in node.input]
    for kind in (up, down):  # a cast down is idle once the casts up that read it are gone
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in added:
            if node.output[0] in kind and node.output[0] not in read:
                graph.node.remove(node)


def _casts_to(node: NodeProto, datatype: int) -> bool:
    return any(attribute.name == "to" and attribute.i == datatype for attribute in node.attribute)


def _swap_names(model: ModelProto, one: str, other: str) -> None:
    swapped = {one: other, other: one}
    for node in model.graph.node:
        node.input[:] = [swapped.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]
    known = [value for value in model.graph.value_info if value.name not in swapped]
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)


def _converter() -> Any:  # noqa: ANN401 - it ships no types
    try:
        return importlib.import_module("onnxconverter_common.float16")
    except ImportError as error:
        raise ExportError(
            f"--precision fp16 needs onnxconverter-common ({error}); "
            "install it with: pip install onnxconverter-common"
        ) from error


def _overflowing(model: ModelProto, inputs: tuple[Array, ...], batch: int | None) -> tuple[Kept, ...]:
    largest = largest_values(model, inputs, batch)
    too_large = {name: value for name, value in largest.items() if not value < _LARGEST_HALF * _MARGIN}
    return tuple(
        Kept(node.name, node.op_type, f"values up to {max(found):.3g}, and half precision ends at 65504")
        for node in model.graph.node
        if (found := [too_large[name] for name in (*node.input, *node.output) if name in too_large])
    )


def _kept(model: ModelProto, without_half: Sequence[str]) -> tuple[Kept, ...]:
    reasons = dict.fromkeys(without_half, "has no half-precision kernels everywhere") | _FLOAT_OPERATORS
    return tuple(
        Kept(node.name, node.op_type, reasons[node.op_type])
        for node in model.graph.node
        if node.op_type in reasons
    )
