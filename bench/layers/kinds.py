"""What kind of layer it is, in the words of the field."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.layers.arithmetic import MOVES, VIEWS
from optimizer.layers.layer import Layer

ADDED = "added by the engine"
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_POOLING = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"}
)
_NORMALISATION = frozenset({"BatchNormalization", "LRN", "InstanceNormalization", "LayerNormalization"})


def heaviest(layers: Sequence[Layer]) -> Layer:
    """Return the layer that stands for several executed as one: most multiply-adds, else the first."""
    return max(layers, key=lambda layer: layer.multiply_adds)


def kind_of(layers: Sequence[Layer]) -> str:
    """Name the kind of what is executed as one piece, e.g. `depthwise 3x3`, after its heaviest layer."""
    if not layers:
        return ADDED
    layer = heaviest(layers)
    if layer.operator in _CONVOLUTIONS:
        return _convolution(layer)
    if layer.operator in _PRODUCTS:
        return "fully connected"
    if layer.operator in _POOLING:
        return "pooling"
    if layer.operator in _NORMALISATION:
        return "normalisation"
    if layer.operator == "Softmax":
        return "softmax"
    return "data movement" if layer.operator in MOVES | VIEWS else "elementwise"


def _convolution(layer: Layer) -> str:
    window = "x".join(map(str, layer.kernel))
    if layer.groups > 1:
        channels = layer.inputs[0].shape[1]
        return f"{'depthwise' if layer.groups == channels else 'grouped'} {window}"
    return f"{'pointwise' if set(layer.kernel) == {1} else 'convolution'} {window}"
