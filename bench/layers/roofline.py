"""How fast the machine computes and moves data at best: the roofline of Williams et al., CACM 2009.

A layer can be no quicker than its operations at the best rate, nor than its bytes at the best rate. Which of
the two takes longer says what bounds it. The bytes are the least that the layer needs when every number goes
through memory once; where they lie in a cache, a layer may be above this roof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bench.layers.timed import TimedRun
from optimizer.layers.count import count_layers

TimeFile = Callable[[Path], TimedRun]
"""Times an ONNX file at batch 1 on the engine in question."""

_SIDES = (256, 512, 1024, 2048, 4096, 8192)
_LONG_ENOUGH_S = 2e-3  # beside any overhead; on a machine that is shared, longer ones are interrupted
_STREAMED = 1 << 24  # numbers: 64 MiB in float32, more than caches hold


class Bound(StrEnum):
    """What a layer cannot be quicker than."""

    COMPUTE = "compute"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Roofline:
    """The best rates.

    Args:
        operations_per_s: arithmetic; a multiply-add is two.
        bytes_per_s: to and from memory.
        source: where they come from: `measured`, `stated`, or in words what else.
    """

    operations_per_s: float
    bytes_per_s: float
    source: str

    def raised(self, operations_per_s: float) -> Roofline:
        """The same, where something was seen to compute faster."""
        if operations_per_s <= self.operations_per_s:
            return self
        return Roofline(
            operations_per_s, self.bytes_per_s, f"{self.source}, arithmetic of the quickest layer"
        )

    def least_s(self, operations: int, size_bytes: int) -> float:
        """The time that a layer cannot be below."""
        return max(operations / self.operations_per_s, size_bytes / self.bytes_per_s)

    def bound(self, operations: int, size_bytes: int) -> Bound:
        """Which of the two it is."""
        computing = operations / self.operations_per_s
        return Bound.COMPUTE if computing > size_bytes / self.bytes_per_s else Bound.MEMORY


def measure_roofline(time_file: TimeFile, datatype: str) -> Roofline:
    """Time layers that are known to be bound by arithmetic, and some bound by memory, on the same engine.

    Args:
        time_file: the engine.
        datatype: what the network computes in; `float16`, or else it is float32 that is timed.
    """
    kind = TensorProto.FLOAT16 if datatype == "float16" else TensorProto.FLOAT
    with TemporaryDirectory() as folder:
        path = Path(folder, "probe.onnx")
        computing = max(_best_arithmetic(time_file, make, kind, path) for make in (_product, _pointwise))
        streaming = _measure(time_file, _stream(kind), path)
    return Roofline(computing, streaming.bytes_per_s, "measured")


@dataclass(frozen=True, slots=True)
class _Rates:
    """The best that a network or one of its layers reached, and how long all of them took."""

    operations_per_s: float
    bytes_per_s: float
    seconds: float


def _best_arithmetic(
    time_file: TimeFile, make: Callable[[int, int], ModelProto], kind: int, path: Path
) -> float:
    """Take larger problems until one is long enough: what fills a CPU is nothing to a GPU."""
    best = 0.0
    for side in _SIDES:
        rates = _measure(time_file, make(side, kind), path)
        best = max(best, rates.operations_per_s)
        if rates.seconds > _LONG_ENOUGH_S:
            break
    return best


def _measure(time_file: TimeFile, probe: ModelProto, path: Path) -> _Rates:
    onnx.save(probe, path)
    layers = {layer.name: layer for layer in count_layers(probe)}
    run = time_file(path)
    timed = [(layers[layer.name], layer.seconds) for layer in run.layers if layer.name in layers]
    # The whole is timed by a clock that may stand still in interruptions, which its layers' clock does not.
    operations = [sum(layer.operations or 0 for layer in layers.values()) / run.alone_s]
    size_bytes = [sum(layer.traffic_bytes for layer in layers.values()) / run.alone_s]
    operations += [(layer.operations or 0) / seconds for layer, seconds in timed if seconds]
    size_bytes += [layer.traffic_bytes / seconds for layer, seconds in timed if seconds]
    return _Rates(max(operations), max(size_bytes), run.layers_s)


def _product(side: int, kind: int) -> ModelProto:
    """A product of two square matrices."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    return _network([node], kind, (1, side, side), (1, side, side), (side, side))


def _pointwise(side: int, kind: int) -> ModelProto:
    """A 1x1 convolution, which is a product of matrices as well; some engines are quicker at these."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], "filters")
    images = (1, side, side // 16, side // 16)
    return _network([node], kind, images, images, (side, side, 1, 1))


def _stream(kind: int) -> ModelProto:
    nodes = [
        helper.make_node("Neg", ["x"], ["a"], "there"),
        helper.make_node("Abs", ["a"], ["b"], "back"),
        helper.make_node("ReduceMax", ["b"], ["y"], "end", axes=[1], keepdims=0),
    ]
    return _network(nodes, kind, (1, _STREAMED), (1,), None)


def _network(
    nodes: list[NodeProto],
    kind: int,
    given: tuple[int, ...],
    answer: tuple[int, ...],
    weights: tuple[int, ...] | None,
) -> ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    stored = [] if weights is None else [numpy_helper.from_array(np.full(weights, 1e-3, dtype), "w")]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", kind, given)],
        [helper.make_tensor_value_info("y", kind, answer)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
