"""A layer of a network and what it costs, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """What flows between layers, or a weight.

    Args:
        name: as in the graph.
        shape: batch first, for what flows.
        datatype: of an element, in lower case, e.g. `float16`.
        bits: of an element.
    """

    name: str
    shape: tuple[int, ...]
    datatype: str
    bits: int

    @property
    def elements(self) -> int:
        """How many numbers it holds; a scalar holds one."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, packed."""
        return -(-self.elements * self.bits // 8)


@dataclass(frozen=True, slots=True)
class Layer:
    """A node of the graph at one batch size.

    Args:
        name: of the node, or of its first output where the node has none.
        operator: ONNX's name, e.g. `Conv`.
        inputs: what flows in, in the node's order.
        weights: the learned constants that it reads.
        outputs: what it answers with.
        multiply_adds: of convolutions and matrix products; 0 for others.
        operations: arithmetic operations in all, two to a multiply-add; None: the operator is not known.
        moves_data: False where the answer is the input under another shape, so that no byte moves.
        reads_data: False where only the shape of what flows in matters.
        kernel: height and width of its window; empty without one.
        strides: of the window, likewise.
        pads: (top, left, bottom, right), likewise.
        groups: of a convolution; as many as input channels when it is depthwise.
        version: of ONNX's definition of the operator; 0 for an operator that is not ONNX's.
    """

    name: str
    operator: str
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    multiply_adds: int
    operations: int | None
    moves_data: bool = True
    reads_data: bool = True
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    groups: int = 1
    version: int = 0

    @property
    def parameters(self) -> int:
        """Numbers in its weights."""
        return sum(weight.elements for weight in self.weights)

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights."""
        return sum(weight.size_bytes for weight in self.weights)

    @property
    def input_bytes(self) -> int:
        """Bytes that flow in and are read; each tensor once, though a layer may read it twice."""
        return (
            sum(tensor.size_bytes for tensor in set(self.inputs))
            if self.moves_data and self.reads_data
            else 0
        )

    @property
    def output_bytes(self) -> int:
        """Bytes that it writes."""
        return sum(tensor.size_bytes for tensor in self.outputs) if self.moves_data else 0

    @property
    def traffic_bytes(self) -> int:
        """Least bytes through memory when the layer runs alone: everything read and written once."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def intensity(self) -> float | None:
        """Operations a byte of traffic; None where either is unknown or nothing moves."""
        if self.operations is None or not self.traffic_bytes:
            return None
        return self.operations / self.traffic_bytes


@dataclass(frozen=True, slots=True)
class Totals:
    """A network, added up.

    Args:
        parameters: numbers in the weights; what several layers share counts once.
        weight_bytes: bytes of the weights, likewise.
        multiply_adds: of all layers.
        operations: of the layers whose operators are known.
        activation_bytes: read and written between layers when each runs alone.
        unknown: operators that `operations` leaves out.
    """

    parameters: int
    weight_bytes: int
    multiply_adds: int
    operations: int
    activation_bytes: int
    unknown: tuple[str, ...]


def add_up(layers: Iterable[Layer]) -> Totals:
    """Return the sums over `layers`."""
    layers = tuple(layers)
    weights = {weight.name: weight for layer in layers for weight in layer.weights}
    return Totals(
        parameters=sum(weight.elements for weight in weights.values()),
        weight_bytes=sum(weight.size_bytes for weight in weights.values()),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        operations=sum(layer.operations or 0 for layer in layers),
        activation_bytes=sum(layer.input_bytes + layer.output_bytes for layer in layers),
        unknown=tuple(sorted({layer.operator for layer in layers if layer.operations is None})),
    )
