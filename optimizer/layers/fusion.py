"""Which nodes an engine runs as one: a layer and the followers that are computed while its answer is at hand.

The rule is that of ONNX Runtime and, in the main, of TensorRT: a normalisation, the sum with a branch that is
already there, and an activation disappear into the convolution before them when nobody else reads what lies
between. Shapes that only change their name are no work and belong to whoever made the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from optimizer.layers.layer import Layer, Tensor

NORMALISATIONS = frozenset({"BatchNormalization"})
_LONE_NORMALISATIONS = NORMALISATIONS | {"InstanceNormalization", "LayerNormalization", "GroupNormalization"}
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "HardSwish", "Elu", "PRelu"}
)
SUMS = frozenset({"Add", "Sum"})
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
_WHOLE_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"})
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_MOVES = frozenset(
    {"Concat", "Split", "Slice", "Pad", "Transpose", "Gather", "Expand", "Tile", "Resize", "Upsample"}
)
_RESIZES = frozenset({"Resize", "Upsample"})


class Kind(StrEnum):
    """What a step is for a predictor; each has a model of its own."""

    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise"
    FULLY_CONNECTED = "fully connected"
    POOLING = "pooling"
    WHOLE_POOLING = "pooling of all pixels"
    ELEMENTWISE = "elementwise"
    NORMALISATION = "normalisation"
    LOCAL_RESPONSE = "local response"
    MOVE = "move"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """What an engine runs at once.

    Args:
        kind: of the layer that leads it.
        leader: the layer that gives it its shape.
        followers: layers computed on its answer before it is written, in their order.
    """

    kind: Kind
    leader: Layer
    followers: tuple[Layer, ...] = ()

    @property
    def name(self) -> str:
        """The leader's name."""
        return self.leader.name

    @property
    def operators(self) -> str:
        """All operators, joined as engines write it, e.g. `Conv+Relu`."""
        return "+".join(layer.operator for layer in (self.leader, *self.followers))

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of everything that it or a part of it answers with."""
        return tuple(out.name for layer in (self.leader, *self.followers) for out in layer.outputs)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Everything that it reads and does not make itself, without weights."""
        inside = set(self.tensors)
        parts = (self.leader, *self.followers)
        return tuple(tensor for part in parts for tensor in part.inputs if tensor.name not in inside)


def fuse(layers: Iterable[Layer]) -> tuple[Step, ...]:
    """Join layers, given in the order of the graph, to steps; layers that move no data are left out."""
    layers = tuple(layers)
    flow = _Flow(layers)
    steps: list[Step] = []
    placed: set[str] = set()
    for layer in flow.working:
        if layer.outputs[0].name not in placed:
            followers = tuple(flow.followers(layer, placed))
            placed.update(follower.outputs[0].name for follower in followers)
            steps.append(Step(kind_of(layer), layer, followers))
    return tuple(steps)


def kind_of(layer: Layer) -> Kind:
    """Return the kind of a layer; an operator that is not known is UNKNOWN, never something else.

    So is a resize that interpolates: none was measured, and it takes longer than one that copies.
    """
    if layer.operations is None:
        return Kind.UNKNOWN
    if layer.operator in _CONVOLUTIONS:
        depthwise = layer.groups > 1 and layer.groups == layer.inputs[0].shape[1]
        return Kind.DEPTHWISE if depthwise else Kind.CONVOLUTION
    if layer.operator in _PRODUCTS:
        return Kind.FULLY_CONNECTED
    if layer.operator in _POOLS:
        return Kind.POOLING
    if layer.operator in _WHOLE_POOLS:
        return Kind.WHOLE_POOLING
    if layer.operator in _LONE_NORMALISATIONS:
        return Kind.NORMALISATION
    if layer.operator == "LRN":
        return Kind.LOCAL_RESPONSE
    if layer.operator in _RESIZES and layer.operations:  # it computes what lies between, which no move does
        return Kind.UNKNOWN
    if layer.operator in _MOVES:
        return Kind.MOVE
    return Kind.ELEMENTWISE


_FOLLOW: Mapping[Kind, tuple[frozenset[str], ...]] = {
    Kind.CONVOLUTION: (NORMALISATIONS, SUMS, ACTIVATIONS),
    Kind.DEPTHWISE: (NORMALISATIONS, SUMS, ACTIVATIONS),
    Kind.FULLY_CONNECTED: (ACTIVATIONS,),
    Kind.NORMALISATION: (ACTIVATIONS,),
}
"""What may follow, at most one of each, in this order."""


class _Flow:
    """Who makes and who reads each tensor, views looked through."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.working: list[Layer] = []
        self._source: dict[str, str] = {}
        self._readers: dict[str, list[Layer]] = {}
        self._viewed: set[str] = set()
        self._made_at: dict[str, int] = {}
        for layer in layers:
            self._take(layer)

    def _take(self, layer: Layer) -> None:
        if not layer.moves_data and layer.inputs:
            source = self._behind(layer.inputs[0].name)
            self._viewed.add(source)
            self._source.update((out.name, source) for out in layer.outputs)
            return
        self._made_at.update((out.name, len(self.working)) for out in layer.outputs)
        self.working.append(layer)
        for name in {self._behind(tensor.name) for tensor in layer.inputs}:
            self._readers.setdefault(name, []).append(layer)

    def _behind(self, name: str) -> str:
        return self._source.get(name, name)

    def followers(self, leader: Layer, placed: set[str]) -> Iterator[Layer]:
        """Yield the layers that disappear into `leader`."""
        wanted, tip = _FOLLOW.get(kind_of(leader), ()), leader
        begun = self._made_at[leader.outputs[0].name]
        for operators in wanted:
            reader = self._only_reader(tip)
            if reader is None or reader.operator not in operators or reader.outputs[0].name in placed:
                continue
            if reader.operator not in SUMS or self._ready(reader, tip, begun):
                yield reader
                tip = reader

    def _only_reader(self, layer: Layer) -> Layer | None:
        name = layer.outputs[0].name
        readers = self._readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self._viewed else None

    def _ready(self, reader: Layer, tip: Layer, begun: int) -> bool:
        """Whether the sum's other tensor has the same shape and is there before the leader begins."""
        others = [tensor for tensor in reader.inputs if tensor.name != tip.outputs[0].name]
        return (
            len(others) == 1
            and others[0].shape == tip.outputs[0].shape
            and self._made_at.get(self._behind(others[0].name), -1) < begun
        )
