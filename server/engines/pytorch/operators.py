"""The ONNX operators of CNNs in PyTorch. Semantics: the ONNX operator specification, opsets 11 to 23."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx
from torch.nn import functional

from server.engines.pytorch.operands import Operands, Sizes, Unsupported, Value

Operator = Callable[[Operands], "Value | tuple[Value, ...]"]

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_MAX_POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE_POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_TORCH_DTYPES = {
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node: node.call(function, node.tensor(0))


def _arithmetic(function: Callable[..., Any]) -> Operator:
    """An operation on two tensors, or on lengths."""

    def convert(node: Operands) -> Value:
        if any(isinstance(value, list) for value in node.values):
            return _on_sizes(node, function)
        return node.call(function, node.tensor(0), node.tensor(1))

    return convert


def _on_sizes(node: Operands, function: Callable[..., Any]) -> Sizes:
    left, right = node.sizes(0), node.sizes(1)
    count = max(len(left), len(right))
    pairs = zip(_stretched(left, count), _stretched(right, count), strict=True)
    return [node.call(function, a, b) for a, b in pairs]


def _stretched(sizes: Sizes, count: int) -> Sizes:
    return sizes * count if len(sizes) == 1 else sizes


def _divide(dividend: Tensor | int, divisor: Tensor | int) -> Tensor | int:
    """Whole numbers are divided towards zero; lengths are none below it."""
    if isinstance(dividend, int):
        return dividend // divisor
    if dividend.is_floating_point():
        return dividend / divisor
    return torch.div(dividend, divisor, rounding_mode="trunc")


def _sum(node: Operands) -> Value:
    total = node.tensor(0)
    for index in range(1, len(node.values)):
        total = node.call(operator.add, total, node.tensor(index))
    return total


def _conv(node: Operands) -> Value:
    spatial = node.constant(1).ndim - 2
    if spatial not in _CONVOLUTIONS:
        raise Unsupported(f"convolutions have 1 to 3 spatial dimensions, this one has {spatial}")
    images, padding = _padded(node, spatial, 0.0)
    return node.call(
        _CONVOLUTIONS[spatial],
        images,
        node.tensor(1),
        node.tensor_or_none(2),
        stride=node.attribute("strides", [1] * spatial),
        padding=padding,
        dilation=node.attribute("dilations", [1] * spatial),
        groups=node.attribute("group", 1),
    )


def _max_pool(node: Operands) -> Value:
    kernel: list[int] = node.attributes["kernel_shape"]
    if node.outputs > 1:
        raise Unsupported("indices of the largest elements are not given out")
    images, padding = _padded(node, len(kernel), float("-inf"))
    return node.call(
        _MAX_POOLS[len(kernel)],
        images,
        kernel,
        stride=node.attribute("strides", [1] * len(kernel)),
        padding=padding,
        dilation=node.attribute("dilations", [1] * len(kernel)),
        ceil_mode=bool(node.attribute("ceil_mode", 0)),
    )


def _average_pool(node: Operands) -> Value:
    kernel: list[int] = node.attributes["kernel_shape"]
    counted = bool(node.attribute("count_include_pad", 0))
    if any(step != 1 for step in node.attributes.get("dilations", ())):
        raise Unsupported("dilated averages are not known")
    images, padding = _padded(node, len(kernel), 0.0 if counted else None)
    return node.call(
        _AVERAGE_POOLS[len(kernel)],
        images,
        kernel,
        stride=node.attribute("strides", [1] * len(kernel)),
        padding=padding,
        ceil_mode=bool(node.attribute("ceil_mode", 0)),
        count_include_pad=counted,
    )


def _padded(node: Operands, spatial: int, fill: float | None) -> tuple[fx.Node, list[int]]:
    """Return the images and the padding left to the operator, which pads both sides alike.

    What differs between the sides is padded before, with `fill`; None: that cannot be done.
    """
    if node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise Unsupported(
            f"auto_pad {node.attributes['auto_pad'].decode()} depends on the input: export pads"
        )
    pads = list(node.attribute("pads", [0] * (2 * spatial)))
    before, after = pads[:spatial], pads[spatial:]
    if before == after:
        return node.tensor(0), before
    if fill is None:
        raise Unsupported("averages cannot leave out padding that differs between the sides")
    return node.call(functional.pad, node.tensor(0), _torch_pads(pads), value=fill), [0] * spatial


def _torch_pads(pads: Sequence[int]) -> list[int]:
    """From ONNX' order (all begins, all ends) to PyTorch's (begin and end of the last dimension first)."""
    rank = len(pads) // 2
    return [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]


def _pad(node: Operands) -> Value:
    mode = node.attribute("mode", b"constant").decode()
    if node.has(3):
        raise Unsupported("padding of named axes is not known")
    pads = _torch_pads(node.settings("pads", 1) or [])
    while pads[-2:] == [0, 0]:
        pads = pads[:-2]  # whole dimensions; the modes but constant take no others
    if mode == "constant":
        value = float(node.constant(2)) if node.has(2) else float(node.attribute("value", 0.0))
        return node.call(functional.pad, node.tensor(0), pads, value=value)
    if mode not in ("reflect", "edge"):
        raise Unsupported(f"padding mode {mode} is not known")
    return node.call(functional.pad, node.tensor(0), pads, mode={"edge": "replicate"}.get(mode, mode))


def _global_average(images: Tensor) -> Tensor:
    return images.mean(tuple(range(2, images.dim())), keepdim=True)


def _global_max(images: Tensor) -> Tensor:
    return images.amax(tuple(range(2, images.dim())), keepdim=True)


def _batch_norm(node: Operands) -> Value:
    if node.attribute("training_mode", 0):
        raise Unsupported("it is in training mode")
    images, scale, bias, mean, variance = (node.tensor(index) for index in range(5))
    epsilon = node.attribute("epsilon", 1e-5)
    return node.call(functional.batch_norm, images, mean, variance, scale, bias, eps=epsilon)


def _local_response(node: Operands) -> Value:
    size = node.attributes["size"]
    if size % 2 == 0:
        raise Unsupported(f"an even size ({size}) is centred differently in PyTorch")
    alpha, beta, bias = (
        node.attribute(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return node.call(functional.local_response_norm, node.tensor(0), size, alpha=alpha, beta=beta, k=bias)


def _gemm(node: Operands) -> Value:
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    rows, weights, bias = node.tensor(0), node.tensor(1), node.tensor_or_none(2)
    if node.attribute("transA", 0):
        rows = node.call(torch.t, rows)
    if not node.attribute("transB", 0):
        weights = node.call(torch.t, weights)
    if alpha == beta == 1.0:
        return node.call(functional.linear, rows, weights, bias)
    product = node.call(operator.mul, node.call(functional.linear, rows, weights), alpha)
    if bias is None:
        return product
    return node.call(operator.add, product, node.call(operator.mul, bias, beta))


def _clip(node: Operands) -> Value:
    low = float(node.constant(1)) if node.has(1) else node.attributes.get("min")
    high = float(node.constant(2)) if node.has(2) else node.attributes.get("max")
    return node.call(torch.clamp, node.tensor(0), low, high)


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def flat(scores: Tensor, axis: int) -> Tensor:
        """Before opset 13 all dimensions from `axis` on are one."""
        return function(scores.flatten(axis), dim=-1).reshape(scores.shape)

    def convert(node: Operands) -> Value:
        if node.opset >= 13:
            return node.call(function, node.tensor(0), dim=node.attribute("axis", -1))
        return node.call(flat, node.tensor(0), node.attribute("axis", 1))

    return convert


def _hard_sigmoid(node: Operands) -> Value:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    line = node.call(operator.add, node.call(operator.mul, node.tensor(0), alpha), beta)
    return node.call(torch.clamp, line, 0.0, 1.0)


def _gelu(node: Operands) -> Value:
    approximate = node.attribute("approximate", b"none").decode()
    return node.call(functional.gelu, node.tensor(0), approximate=approximate)


def _leaky_relu(node: Operands) -> Value:
    return node.call(functional.leaky_relu, node.tensor(0), node.attribute("alpha", 0.01))


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def reduced(values: Tensor, axes: list[int], keepdim: bool) -> Tensor:
        return function(values, dim=axes or list(range(values.dim())), keepdim=keepdim)

    def convert(node: Operands) -> Value:
        axes, keepdim = node.settings("axes", 1) or [], bool(node.attribute("keepdims", 1))
        if not axes and node.attribute("noop_with_empty_axes", 0):
            return node.tensor(0)
        return node.call(reduced, node.tensor(0), axes, keepdim)

    return convert


def _arg_max(node: Operands) -> Value:
    if node.attribute("select_last_index", 0):
        raise Unsupported("PyTorch does not promise the last of equal elements")
    keep = bool(node.attribute("keepdims", 1))
    return node.call(torch.argmax, node.tensor(0), dim=node.attribute("axis", 0), keepdim=keep)


def _cast(node: Operands) -> Value:
    value = node.get(0)
    if isinstance(value, list):
        return value
    kind = node.attributes["to"]
    if kind not in _TORCH_DTYPES:
        raise Unsupported(f"type {onnx.TensorProto.DataType.Name(kind)} is not known")
    return node.call(Tensor.to, node.tensor(0), _TORCH_DTYPES[kind])


def _reshape(node: Operands) -> Value:
    value, sizes = node.get(0), node.sizes(1)
    if isinstance(value, list):
        return value
    if node.attribute("allowzero", 0) and 0 in sizes:
        raise Unsupported("empty tensors are not known")
    images = node.tensor(0)
    kept = [_length(node, images, axis) if size == 0 else size for axis, size in enumerate(sizes)]
    return node.call(torch.reshape, images, kept)


def _flatten(node: Operands) -> Value:
    return node.call(_as_matrix, node.tensor(0), node.attribute("axis", 1))


def _as_matrix(values: Tensor, axis: int) -> Tensor:
    rows = int(np.prod(values.shape[:axis]))
    return values.reshape(rows, -1)


def _transpose(node: Operands) -> Value:
    order = node.attributes.get("perm")
    return node.call(torch.permute, node.tensor(0), order) if order else node.call(_reversed, node.tensor(0))


def _reversed(values: Tensor) -> Tensor:
    return values.permute(tuple(reversed(range(values.dim()))))


def _squeeze(node: Operands) -> Value:
    value, axes = node.get(0), node.settings("axes", 1)
    if isinstance(value, list):
        return value
    return node.call(torch.squeeze, node.tensor(0), *([tuple(axes)] if axes else []))


def _unsqueeze(node: Operands) -> Value:
    value, axes = node.get(0), node.settings("axes", 1) or []
    if isinstance(value, list):
        return value
    if len(axes) > 1 and min(axes) < 0:
        raise Unsupported("several axes must be counted from the front")
    made = node.tensor(0)
    for axis in sorted(axes):
        made = node.call(torch.unsqueeze, made, axis)
    return made


def _concat(node: Operands) -> Value:
    if any(isinstance(value, list) for value in node.values):
        return [size for index in range(len(node.values)) for size in node.sizes(index)]
    tensors = [node.tensor(index) for index in range(len(node.values))]
    return node.call(torch.cat, tensors, dim=node.attributes["axis"])


def _split(node: Operands) -> tuple[Value, ...]:
    lengths = node.settings("split", 1)
    axis = node.attribute("axis", 0)
    parts = node.call(_parts, node.tensor(0), lengths, node.outputs, axis)
    return tuple(node.call(operator.getitem, parts, index) for index in range(node.outputs))


def _parts(values: Tensor, lengths: list[int] | None, count: int, axis: int) -> tuple[Tensor, ...]:
    """Equal parts where no lengths are given, the last one smaller."""
    even = -(-values.shape[axis] // count)
    return tuple(torch.split(values, lengths or even, dim=axis))


def _slice(node: Operands) -> Value:
    starts, ends = node.settings("starts", 1) or [], node.settings("ends", 2) or []
    axes = node.settings("axes", 3) or list(range(len(starts)))
    steps = (node.whole(4) if node.has(4) else None) or [1] * len(starts)
    value = node.get(0)
    if isinstance(value, list):
        return value[starts[0] : ends[0] : steps[0]]
    if min(steps) < 1:
        raise Unsupported("steps backwards are not known")
    return node.call(_sliced, node.tensor(0), axes, list(zip(starts, ends, steps, strict=True)))


def _sliced(values: Tensor, axes: Sequence[int], bounds: Sequence[tuple[int, int, int]]) -> Tensor:
    index = [slice(None)] * values.dim()
    for axis, (start, end, step) in zip(axes, bounds, strict=True):
        index[axis] = slice(start, end, step)
    return values[tuple(index)]


def _gather(node: Operands) -> Value:
    value, axis = node.get(0), node.attribute("axis", 0)
    if isinstance(value, list):
        return [value[index] for index in node.whole(1)]
    if isinstance(node.get(1), np.ndarray) and node.constant(1).ndim == 0:
        return node.call(torch.select, node.tensor(0), axis, int(node.constant(1)))
    return node.call(_gathered, node.tensor(0), node.tensor(1), axis)


def _gathered(table: Tensor, indices: Tensor, axis: int) -> Tensor:
    shape = (*table.shape[:axis], *indices.shape, *table.shape[axis:][1:])
    length = table.shape[axis]
    forwards = torch.where(indices < 0, indices + length, indices).reshape(-1)
    return table.index_select(axis, forwards).reshape(shape)


def _shape(node: Operands) -> Value:
    if node.shape is None:
        raise Unsupported("the number of dimensions is not known before it runs")
    images = node.tensor(0)
    lengths = [
        size if isinstance(size, int) else _length(node, images, axis) for axis, size in enumerate(node.shape)
    ]
    return lengths[node.attribute("start", 0) : node.attribute("end", len(lengths))]


def _length(node: Operands, tensor: fx.Node, axis: int) -> fx.Node:
    return node.call(Tensor.size, tensor, axis)


def _constant(node: Operands) -> Value:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attributes:
            given = node.attributes[name]
            return onnx.numpy_helper.to_array(given) if name == "value" else np.array(given)
    raise Unsupported("only tensors, numbers and lists of numbers can be constants")


def _same(node: Operands) -> Value:
    value = node.get(0)
    return value if value is not None else node.tensor(0)


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Abs": _unary(torch.abs),
        "Add": _arithmetic(operator.add),
        "ArgMax": _arg_max,
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Cast": _cast,
        "Clip": _clip,
        "Concat": _concat,
        "Constant": _constant,
        "Conv": _conv,
        "Div": _arithmetic(_divide),
        "Dropout": _same,
        "Exp": _unary(torch.exp),
        "Flatten": _flatten,
        "Gather": _gather,
        "Gelu": _gelu,
        "Gemm": _gemm,
        "GlobalAveragePool": _unary(_global_average),
        "GlobalMaxPool": _unary(_global_max),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _unary(functional.hardswish),
        "Identity": _same,
        "LRN": _local_response,
        "LeakyRelu": _leaky_relu,
        "LogSoftmax": _softmax(functional.log_softmax),
        "MatMul": _arithmetic(torch.matmul),
        "MaxPool": _max_pool,
        "Mul": _arithmetic(operator.mul),
        "Neg": _unary(torch.neg),
        "Pad": _pad,
        "Pow": _arithmetic(torch.pow),
        "ReduceMax": _reduction(torch.amax),
        "ReduceMean": _reduction(torch.mean),
        "ReduceSum": _reduction(torch.sum),
        "Relu": _unary(functional.relu),
        "Reshape": _reshape,
        "Shape": _shape,
        "Sigmoid": _unary(torch.sigmoid),
        "Slice": _slice,
        "Softmax": _softmax(functional.softmax),
        "Split": _split,
        "Sqrt": _unary(torch.sqrt),
        "Squeeze": _squeeze,
        "Sub": _arithmetic(operator.sub),
        "Sum": _sum,
        "Tanh": _unary(torch.tanh),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
"""Conversions by the operator's name in ONNX."""
