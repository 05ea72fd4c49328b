"""The ONNX operators of CNNs in TensorFlow. Semantics: the ONNX operator specification, opsets 11 to 23."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray

from server.engines.tensorflow.layout import (
    PIXEL_AXES,
    Laid,
    Value,
    any_pixels,
    as_onnx,
    as_pixels,
    number,
    onnx_axis,
    transposed,
)

_FAR = 2**31 - 1  # ends beyond the end are written larger than TensorFlow's indices may be


class Unsupported(Exception):
    """The graph asks for something that has no counterpart here."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the ONNX graph.

    Args:
        values: the inputs; None where one is left out.
        attributes: as the node gives them.
        opset: version of the operators.
    """

    values: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, index: int) -> Value:
        """Return an input that must be there."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise Unsupported(f"input {index} is missing")
        return value

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.values) and self.values[index] is not None

    def constant(self, index: int) -> NDArray[Any]:
        """Return an input that must be known before anything runs."""
        value = self.get(index)
        if isinstance(value, Laid):
            raise Unsupported(f"input {index} must be a constant")
        return value

    def whole(self, name: str, index: int) -> list[int]:
        """Return whole numbers that older versions have as an attribute and newer as an input; [] if none."""
        if name in self.attributes:
            return list(self.attributes[name])
        return [int(size) for size in self.constant(index).reshape(-1)] if self.has(index) else []


Operator = Callable[[Node], Value]


def _unary(function: Callable[[Any], Any]) -> Operator:
    def convert(node: Node) -> Value:
        value = node.get(0)
        laid = value if isinstance(value, Laid) else Laid(tf.constant(value))
        return Laid(function(laid.tensor), laid.pixels)

    return convert


def _elementwise(function: Callable[[Any, Any], Any]) -> Operator:
    def convert(node: Node) -> Value:
        values = [node.get(index) for index in range(len(node.values))]
        pixels = any_pixels(values)
        tensors = [as_pixels(value) if pixels else as_onnx(value) for value in values]
        total = tensors[0]
        for tensor in tensors[1:]:
            total = function(total, tensor)
        return Laid(total, pixels)

    return convert


def _divide(dividend: Any, divisor: Any) -> Any:  # noqa: ANN401 - tensorflow has no types
    return tf.truncatediv(dividend, divisor) if dividend.dtype.is_integer else tf.divide(dividend, divisor)


def _conv(node: Node) -> Value:
    weights = node.constant(1)
    if weights.ndim != 4:
        raise Unsupported(f"convolutions have 2 spatial dimensions, this one has {weights.ndim - 2}")
    images, padding = as_pixels(node.get(0)), _padding(node)
    strides = node.attributes.get("strides", [1, 1])
    dilations = node.attributes.get("dilations", [1, 1])
    groups = node.attributes.get("group", 1)
    if groups > 1 and weights.shape[1] == 1 and strides[0] == strides[1]:
        made = _depthwise(images, weights, groups, strides, dilations, padding)
    else:
        kernels = np.split(weights.transpose(2, 3, 1, 0), groups, axis=3)
        parts = tf.split(images, groups, axis=3) if groups > 1 else [images]
        made = [
            tf.nn.conv2d(part, kernel, strides, padding, dilations=dilations)
            for part, kernel in zip(parts, kernels, strict=True)
        ]
        made = tf.concat(made, axis=3) if groups > 1 else made[0]
    return Laid(tf.nn.bias_add(made, node.constant(2)) if node.has(2) else made, pixels=True)


def _depthwise(
    images: Any,  # noqa: ANN401
    weights: NDArray[Any],
    channels: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    padding: list[list[int]],
) -> Any:  # noqa: ANN401
    height, width = weights.shape[2:]
    kernel = weights.transpose(2, 3, 0, 1).reshape(height, width, channels, -1)
    padded = tf.pad(images, padding)
    return tf.nn.depthwise_conv2d(padded, kernel, [1, *strides, 1], "VALID", dilations=dilations)


def _padding(node: Node) -> list[list[int]]:
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported(
            f"auto_pad {node.attributes['auto_pad'].decode()} depends on the input: export pads"
        )
    top, left, bottom, right = node.attributes.get("pads", [0, 0, 0, 0])
    return [[0, 0], [top, bottom], [left, right], [0, 0]]


def _window(node: Node, images: Any) -> tuple[list[int], list[int], list[list[int]]]:  # noqa: ANN401
    """Return kernel, strides and padding; with `ceil_mode` as much more padding as the last window needs."""
    kernel = node.attributes["kernel_shape"]
    if len(kernel) != 2 or any(step != 1 for step in node.attributes.get("dilations", ())):
        raise Unsupported("windows have 2 dimensions and no gaps")
    strides, padding = node.attributes.get("strides", [1, 1]), _padding(node)
    if node.attributes.get("ceil_mode", 0):
        for axis, (size, step) in enumerate(zip(kernel, strides, strict=True), start=1):
            begin, end = padding[axis]
            length = images.shape[axis] + begin + end
            windows = -(-(length - size) // step) + 1
            if (windows - 1) * step >= images.shape[axis] + begin:
                windows -= 1  # no window begins in the padding at the end
            padding[axis] = [begin, end + max(0, (windows - 1) * step + size - length)]
    return list(kernel), list(strides), padding


def _max_pool(node: Node) -> Value:
    images = as_pixels(node.get(0))
    kernel, strides, padding = _window(node, images)
    padded = tf.pad(images, padding, constant_values=images.dtype.min)
    return Laid(tf.nn.max_pool2d(padded, kernel, strides, "VALID"), pixels=True)


def _average_pool(node: Node) -> Value:
    images = as_pixels(node.get(0))
    kernel, strides, padding = _window(node, images)
    made = tf.nn.avg_pool2d(tf.pad(images, padding), kernel, strides, "VALID")
    if not np.any(padding):
        return Laid(made, pixels=True)
    if node.attributes.get("count_include_pad", 0):
        if node.attributes.get("ceil_mode", 0):
            raise Unsupported("averages over padding and beyond it are not known")
        return Laid(made, pixels=True)
    ones = tf.ones((1, *images.shape[1:3], 1), images.dtype)
    return Laid(made / tf.nn.avg_pool2d(tf.pad(ones, padding), kernel, strides, "VALID"), pixels=True)


def _reduction(function: Callable[..., Any]) -> Operator:
    def convert(node: Node) -> Value:
        value, axes, keep = node.get(0), node.whole("axes", 1), bool(node.attributes.get("keepdims", 1))
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return value
        if isinstance(value, Laid) and value.pixels and axes:
            axes = sorted(onnx_axis(axis, 4) for axis in axes)
            if keep or axes == [2, 3]:
                return Laid(function(value.tensor, [PIXEL_AXES[axis] for axis in axes], keep), keep)
        return Laid(function(as_onnx(value), axes or None, keep))

    return convert


def _global(function: Callable[..., Any]) -> Operator:
    return lambda node: Laid(function(as_pixels(node.get(0)), [1, 2], keepdims=True), pixels=True)


def _batch_norm(node: Node) -> Value:
    scale, bias, mean, variance = (node.constant(index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5), dtype=scale.dtype)
    shift = (bias - mean * factor).astype(scale.dtype)
    value = node.get(0)
    if isinstance(value, Laid) and value.rank != 4:
        raise Unsupported("only images are normalised")
    return Laid(as_pixels(value) * factor.astype(scale.dtype) + shift, pixels=True)


def _local_response(node: Node) -> Value:
    size = node.attributes["size"]
    if size % 2 == 0:
        raise Unsupported(f"an even size ({size}) cannot be centred")
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    made = tf.nn.local_response_normalization(
        as_pixels(node.get(0)), size // 2, node.attributes.get("bias", 1.0), alpha / size, beta
    )
    return Laid(made, pixels=True)


def _gemm(node: Node) -> Value:
    rows, weights = as_onnx(node.get(0)), as_onnx(node.get(1))
    flips = {f"transpose_{side.lower()}": bool(node.attributes.get(f"trans{side}", 0)) for side in "AB"}
    made = tf.matmul(rows, weights, **flips) * node.attributes.get("alpha", 1.0)
    if not node.has(2):
        return Laid(made)
    return Laid(made + as_onnx(node.get(2)) * node.attributes.get("beta", 1.0))


def _clip(node: Node) -> Value:
    low = number(node.constant(1)) if node.has(1) else node.attributes.get("min")
    high = number(node.constant(2)) if node.has(2) else node.attributes.get("max")

    def clipped(tensor: Any) -> Any:  # noqa: ANN401
        above = tensor if low is None else tf.maximum(tensor, tf.cast(low, tensor.dtype))
        return above if high is None else tf.minimum(above, tf.cast(high, tensor.dtype))

    return _unary(clipped)(node)


def _softmax(node: Node) -> Value:
    values = as_onnx(node.get(0))
    axis = onnx_axis(node.attributes.get("axis", -1 if node.opset >= 13 else 1), len(values.shape))
    if node.opset >= 13 or axis == len(values.shape) - 1:
        return Laid(tf.nn.softmax(values, axis=axis))
    raise Unsupported("before opset 13 it must be over the last axis")


def _hard_sigmoid(node: Node) -> Value:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return _unary(lambda tensor: tf.clip_by_value(alpha * tensor + beta, 0, 1))(node)


def _hard_swish(tensor: Any) -> Any:  # noqa: ANN401
    return tensor * tf.clip_by_value(tensor / 6 + 0.5, 0, 1)


def _leaky_relu(node: Node) -> Value:
    alpha = node.attributes.get("alpha", 0.01)
    return _unary(lambda tensor: tf.nn.leaky_relu(tensor, alpha))(node)


def _cast(node: Node) -> Value:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    return _unary(lambda tensor: tf.cast(tensor, dtype))(node)


def _concat(node: Node) -> Value:
    values = [node.get(index) for index in range(len(node.values))]
    axis = node.attributes["axis"]
    if any_pixels(values):
        return Laid(tf.concat(list(map(as_pixels, values)), PIXEL_AXES[onnx_axis(axis, 4)]), pixels=True)
    return Laid(tf.concat(list(map(as_onnx, values)), axis))


def _reshape(node: Node) -> Value:
    values, sizes = as_onnx(node.get(0)), node.whole("shape", 1)
    lengths = tf.shape(values)
    return Laid(tf.reshape(values, [lengths[axis] if size == 0 else size for axis, size in enumerate(sizes)]))


def _flatten(node: Node) -> Value:
    values, axis = as_onnx(node.get(0)), node.attributes.get("axis", 1)
    return Laid(
        tf.reshape(values, [tf.reduce_prod(tf.shape(values)[:axis]), tf.reduce_prod(values.shape[axis:])])
    )


def _transpose(node: Node) -> Value:
    value = node.get(0)
    rank = value.rank if isinstance(value, Laid) else value.ndim
    return transposed(value, node.attributes.get("perm", list(reversed(range(rank)))))


def _squeeze(node: Node) -> Value:
    return Laid(tf.squeeze(as_onnx(node.get(0)), node.whole("axes", 1) or None))


def _pad(node: Node) -> Value:
    if node.attributes.get("mode", b"constant") != b"constant" or node.has(3):
        raise Unsupported("only padding of all axes with a constant is known")
    pads = node.whole("pads", 1)
    fill = number(node.constant(2)) if node.has(2) else node.attributes.get("value", 0.0)
    sides = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
    value = node.get(0)
    if isinstance(value, Laid) and value.pixels:
        return Laid(
            tf.pad(value.tensor, [sides[axis] for axis in (0, 2, 3, 1)], constant_values=fill), pixels=True
        )
    return Laid(tf.pad(as_onnx(value), sides, constant_values=fill))


def _arg_max(node: Node) -> Value:
    made = tf.argmax(as_onnx(node.get(0)), node.attributes.get("axis", 0))
    return Laid(
        tf.expand_dims(made, node.attributes.get("axis", 0)) if node.attributes.get("keepdims", 1) else made
    )


def _gather(node: Node) -> Value:
    return Laid(tf.gather(as_onnx(node.get(0)), as_onnx(node.get(1)), axis=node.attributes.get("axis", 0)))


def _slice(node: Node) -> Value:
    starts, ends = node.whole("starts", 1), node.whole("ends", 2)
    axes = node.whole("axes", 3) or list(range(len(starts)))
    steps = node.whole("steps", 4) or [1] * len(starts)
    if min(steps) < 1:
        raise Unsupported("steps backwards are not known")
    value = node.get(0)
    laid = value if isinstance(value, Laid) else Laid(tf.constant(value))
    index = [slice(None)] * laid.rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = onnx_axis(axis, laid.rank)
        index[PIXEL_AXES[place] if laid.pixels else place] = slice(start, min(end, _FAR), step)
    return Laid(laid.tensor[tuple(index)], laid.pixels)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": _elementwise(tf.add),
        "ArgMax": _arg_max,
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Cast": _cast,
        "Clip": _clip,
        "Concat": _concat,
        "Conv": _conv,
        "Div": _elementwise(_divide),
        "Dropout": _unary(tf.identity),
        "Flatten": _flatten,
        "Gather": _gather,
        "Gemm": _gemm,
        "GlobalAveragePool": _global(tf.reduce_mean),
        "GlobalMaxPool": _global(tf.reduce_max),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _unary(_hard_swish),
        "Identity": _unary(tf.identity),
        "LRN": _local_response,
        "LeakyRelu": _leaky_relu,
        "MatMul": lambda node: Laid(tf.matmul(as_onnx(node.get(0)), as_onnx(node.get(1)))),
        "MaxPool": _max_pool,
        "Mul": _elementwise(tf.multiply),
        "Pad": _pad,
        "ReduceMax": _reduction(tf.reduce_max),
        "ReduceMean": _reduction(tf.reduce_mean),
        "ReduceSum": _reduction(tf.reduce_sum),
        "Relu": _unary(tf.nn.relu),
        "Reshape": _reshape,
        "Sigmoid": _unary(tf.sigmoid),
        "Slice": _slice,
        "Softmax": _softmax,
        "Squeeze": _squeeze,
        "Sub": _elementwise(tf.subtract),
        "Sum": _elementwise(tf.add),
        "Tanh": _unary(tf.tanh),
        "Transpose": _transpose,
    }
)
"""Conversions by the operator's name in ONNX."""
