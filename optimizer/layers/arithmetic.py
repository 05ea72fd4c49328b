"""How much arithmetic an ONNX operator does.

A multiply-add is two operations; a comparison, an exponential or any other function of one number is one. So
a pooling over 3x3 does nine operations for each number that it answers with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators whose answer is their input under another shape (Dropout does nothing in inference)."""

MOVES = frozenset(
    {"Concat", "Split", "Slice", "Pad", "Transpose", "Gather", "Expand", "Tile", "Cast", "DepthToSpace"}
    | {"SpaceToDepth", "ConstantOfShape", "Shape", "Size"}
)
"""Operators that move numbers and compute none."""

ABOUT_SHAPES = frozenset({"Shape", "Size"})
"""Operators that answer with a shape: they read none of the numbers."""

_ONE_EACH = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal"}
    | {"Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh"}
    | {"Softplus", "Erf", "Gelu", "Mish", "Floor", "Ceil", "Round", "QuantizeLinear", "DequantizeLinear"}
    | {"Greater", "Less", "Equal", "Not", "And", "Or", "Where"}
)
_OVER_ALL_INPUTS = frozenset(
    {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"}
    | {"ArgMax", "ArgMin"}
)
_SOFTMAX = 5  # largest, difference, exponential, sum, quotient
_MOMENTS = 7  # sum; difference, square, sum; quotient, scale, bias
_TAPS = {
    "nearest": 1,
    "linear": 2,
    "bilinear": 2,
    "cubic": 4,
}  # neighbours that a resized number is made of, along one side
_LRN_BESIDES_SUM = 5  # square, times alpha, plus bias, power, quotient


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with the shapes around it.

    Args:
        operator: ONNX's name.
        inputs: shapes of all inputs, weights among them; an input left out has None.
        outputs: shapes of the outputs.
        attributes: as the graph states them.
    """

    operator: str
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape]
    attributes: Mapping[str, Any]

    def given(self, position: int) -> Shape | None:
        """Return the shape of an input; None when it was left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def needed(self, position: int) -> Shape:
        """Return the shape of an input that the operator cannot do without."""
        shape = self.given(position)
        if shape is None:
            raise ValueError(f"{self.operator} lacks its input {position}: the graph is not valid ONNX")
        return shape

    def stated(self, attribute: str) -> Any:  # noqa: ANN401 - whatever the operator's definition says
        """Return an attribute that the operator cannot do without."""
        if attribute not in self.attributes:
            raise ValueError(f"{self.operator} lacks its attribute {attribute}: the graph is not valid ONNX")
        return self.attributes[attribute]

    @property
    def answers(self) -> int:
        """Numbers in the first output."""
        return math.prod(self.outputs[0])


def multiply_adds(node: Node) -> int:
    """Return the multiply-adds of a convolution or matrix product, without its bias; 0 for others."""
    count = _MULTIPLY_ADDS.get(node.operator)
    return count(node) if count else 0


def operations(node: Node) -> int | None:
    """Return all arithmetic operations; None for an operator that is not known here."""
    if node.operator in _MULTIPLY_ADDS:
        biased = node.operator != "MatMul" and node.given(2) is not None
        return 2 * multiply_adds(node) + (node.answers if biased else 0)
    if node.operator in VIEWS | MOVES:
        return 0
    if node.operator in _ONE_EACH:
        # n inputs are joined by n - 1 operations; a function of one number is one
        joined = len(node.inputs) - 1 if node.operator in {"Sum", "Min", "Max"} else 1
        return max(joined, 1) * node.answers
    if node.operator in _OVER_ALL_INPUTS:
        return math.prod(node.needed(0))
    count = _OTHERS.get(node.operator)
    return count(node) if count else None


def _convolution(node: Node) -> int:
    """Each answer is a sum over the window and the input channels of its group: one filter's numbers."""
    channels, groups, read = node.needed(0)[1], node.attributes.get("group", 1), node.needed(1)[1]
    if groups < 1 or channels != groups * read:
        raise ValueError(f"Conv with {groups} groups of {read} channels does not fit an input of {channels}")
    return node.answers * math.prod(node.needed(1)[1:])


def _transposed_convolution(node: Node) -> int:
    """Each input is spread over the window and the output channels of its group."""
    return math.prod(node.needed(0)) * math.prod(node.needed(1)[1:])


def _gemm(node: Node) -> int:
    return node.answers * node.needed(0)[0 if node.attributes.get("transA") else 1]


def _matrix_product(node: Node) -> int:
    return node.answers * node.needed(0)[-1]


def _pooling(node: Node) -> int:
    kernel: Sequence[int] = node.stated("kernel_shape")
    return node.answers * math.prod(kernel)


def _normalisation(node: Node) -> int:
    """In inference it is one factor and one summand a channel."""
    return 2 * node.answers


def _by_moments(node: Node) -> int:
    """Mean and variance are of the very numbers, also in inference."""
    return _MOMENTS * node.answers


def _power_pooling(node: Node) -> int:
    """Each number to a power, the sum, and its root."""
    return 2 * _pooling(node) + node.answers


def _resizing(node: Node) -> int:
    """A weighted sum over neighbours along every side that changes; those nearby are copied."""
    mode = node.attributes.get("mode", b"nearest").decode(errors="replace")
    if mode not in _TAPS:
        raise ValueError(f"{node.operator} has the mode {mode!r}; known are {', '.join(_TAPS)}")
    sides = sum(one != other for one, other in zip(node.needed(0), node.outputs[0], strict=True))
    taps: int = _TAPS[mode] ** sides
    return (2 * taps - 1) * node.answers if taps > 1 else 0


def _local_response(node: Node) -> int:
    neighbours: int = node.stated("size")
    return node.answers * (neighbours - 1 + _LRN_BESIDES_SUM)


def _softmax(node: Node) -> int:
    return _SOFTMAX * node.answers


_MULTIPLY_ADDS: Mapping[str, Callable[[Node], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matrix_product,
}
_OTHERS: Mapping[str, Callable[[Node], int]] = {
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "LpPool": _power_pooling,
    "BatchNormalization": _normalisation,
    "InstanceNormalization": _by_moments,
    "LayerNormalization": _by_moments,
    "GroupNormalization": _by_moments,
    "Resize": _resizing,
    "Upsample": _resizing,
    "LRN": _local_response,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
