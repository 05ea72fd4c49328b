"""How large the values inside a network get: half precision ends at 65504, and a CPU does not show it.

ONNX Runtime computes most FP16 nodes in float32 on a CPU, so that nothing overflows where the file is judged.
On a GPU it would.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper, shape_inference

from server.engines.engine import Array
from server.exporting.sessions import runner_of

_ITEMS = 16
_SUFFIX = "__largest"


def largest_values(model: ModelProto, inputs: tuple[Array, ...], batch: int | None) -> Mapping[str, float]:
    """Return the largest absolute value of every float32 tensor between the nodes of a graph, by its name.

    Args:
        model: a float32 graph.
        inputs: one array per input, batch first; some of the items are run.
        batch: items that the graph takes at once; None: any number.
    """
    measured = _measured(model)
    names = [out.name.removesuffix(_SUFFIX) for out in measured.graph.output]
    few = tuple(given[:: -(-len(given) // _ITEMS)] for given in inputs)
    run = runner_of(measured)
    found = np.max([run(part) for part in _parts(few, batch or 1)], axis=0) if names else ()
    return dict(zip(names, map(float, found), strict=True))


def _parts(inputs: tuple[Array, ...], batch: int) -> list[tuple[Array, ...]]:
    count = len(inputs[0])
    rows = [np.arange(start, start + batch) % count for start in range(0, count, batch)]
    return [tuple(np.ascontiguousarray(given[chosen]) for given in inputs) for chosen in rows]


def _measured(model: ModelProto) -> ModelProto:
    """Return a copy whose outputs are the largest absolute values of all float32 tensors that nodes make."""
    copy = shape_inference.infer_shapes(model)
    known = (*copy.graph.value_info, *copy.graph.output)
    floats = {value.name for value in known if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    made = [out for node in copy.graph.node for out in node.output if out in floats]
    del copy.graph.output[:]
    for name in made:
        absolute, largest = f"{name}__absolute", f"{name}{_SUFFIX}"
        copy.graph.node.append(helper.make_node("Abs", [name], [absolute]))
        copy.graph.node.append(helper.make_node("ReduceMax", [absolute], [largest], keepdims=0))
        copy.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    return copy
