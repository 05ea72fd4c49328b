"""What each executed piece of a network costs, with the work that is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.layers.kinds import heaviest, kind_of
from bench.layers.roofline import Bound, Roofline
from bench.layers.timed import TimedLayer, TimedRun
from optimizer.layers.layer import Layer, Tensor


@dataclass(frozen=True, slots=True)
class LayerCost:
    """An executed piece: one or several layers of the graph, or something that the engine added.

    Args:
        name: as `TimedLayer`.
        kind: see `kinds`.
        layers: the graph's layers in it.
        seconds: for one batch.
        share: of the time of all pieces.
        multiply_adds: of its layers.
        operations: of its layers; None where one of them is not known.
        traffic_bytes: least bytes through memory; what passes between its own layers does not.
        bound: what it is bound by; None where it computes and moves nothing that is known.
        of_roof: the part of the best possible speed that it reaches; None likewise.
    """

    name: str
    kind: str
    layers: tuple[Layer, ...]
    seconds: float
    share: float
    multiply_adds: int
    operations: int | None
    traffic_bytes: int
    bound: Bound | None
    of_roof: float | None

    @property
    def intensity(self) -> float | None:
        """Operations a byte."""
        if self.operations is None or not self.traffic_bytes:
            return None
        return self.operations / self.traffic_bytes

    @property
    def operations_per_s(self) -> float | None:
        """Arithmetic that it reached; None where it is not known, or the time is below the clock's tick."""
        return self.operations / self.seconds if self.operations is not None and self.seconds else None

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes that it moved at least; None where nothing is known to move."""
        return self.traffic_bytes / self.seconds if self.traffic_bytes and self.seconds else None


def cost_layers(run: TimedRun, layers: Sequence[Layer], roofline: Roofline) -> tuple[LayerCost, ...]:
    """Join what was timed with what was counted; one for each timed piece, in its order."""
    known = {layer.name: layer for layer in layers}
    read = _readers(layers)
    return tuple(_cost(timed, run.layers_s, known, read, roofline) for timed in run.layers)


def best_arithmetic(run: TimedRun, layers: Sequence[Layer]) -> float:
    """Return the most operations a second that one of the pieces reached."""
    known = {layer.name: layer for layer in layers}
    rates = [
        sum(known[name].operations or 0 for name in timed.fused if name in known) / timed.seconds
        for timed in run.layers
        if timed.seconds
    ]
    return max(rates, default=0.0)


def _cost(
    timed: TimedLayer,
    whole_s: float,
    known: Mapping[str, Layer],
    readers: Mapping[str, frozenset[str]],
    roofline: Roofline,
) -> LayerCost:
    inside = tuple(known[name] for name in timed.fused if name in known)
    operations = _operations(inside)
    traffic = _traffic(inside, readers)
    does_something = bool(operations is not None and (operations or traffic) and timed.seconds)
    return LayerCost(
        name=heaviest(inside).name if inside else timed.name,
        kind=kind_of(inside),
        layers=inside,
        seconds=timed.seconds,
        share=timed.seconds / whole_s if whole_s else 0.0,
        multiply_adds=sum(layer.multiply_adds for layer in inside),
        operations=operations,
        traffic_bytes=traffic,
        bound=roofline.bound(operations or 0, traffic) if does_something else None,
        of_roof=roofline.least_s(operations or 0, traffic) / timed.seconds if does_something else None,
    )


def _operations(inside: Sequence[Layer]) -> int | None:
    counts = [layer.operations for layer in inside]
    known = [count for count in counts if count is not None]
    return sum(known) if inside and len(known) == len(counts) else None


def _readers(layers: Sequence[Layer]) -> dict[str, frozenset[str]]:
    """Map each tensor to the layers that read it."""
    found: dict[str, set[str]] = {}
    for layer in layers:
        for tensor in layer.inputs:
            found.setdefault(tensor.name, set()).add(layer.name)
    return {name: frozenset(names) for name, names in found.items()}


def _traffic(inside: Sequence[Layer], readers: Mapping[str, frozenset[str]]) -> int:
    """Return the bytes of weights, of what comes from outside and of what is needed outside."""
    own = frozenset(layer.name for layer in inside)
    made = {tensor for layer in inside for tensor in layer.outputs}
    moving = [layer for layer in inside if layer.moves_data]
    taken = {tensor for layer in moving for tensor in layer.inputs} - made
    weights = {tensor for layer in moving for tensor in layer.weights}
    given = {tensor for layer in moving for tensor in layer.outputs if _leaves(tensor, own, readers)}
    return sum(tensor.size_bytes for tensor in taken | weights | given)


def _leaves(tensor: Tensor, own: frozenset[str], readers: Mapping[str, frozenset[str]]) -> bool:
    """Whether somebody outside reads a tensor; what nobody reads is an answer of the network."""
    return not readers.get(tensor.name) or not readers[tensor.name] <= own
